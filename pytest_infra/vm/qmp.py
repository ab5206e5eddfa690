"""QMP: how a running QEMU is asked and told (QEMU Machine Protocol Specification)."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from typing import Any

from ..core.errors import InfraError

__all__ = ["Qmp", "QmpError"]

_ANSWER_S = 60.0
_EVENTS_KEPT = 1000


class QmpError(InfraError):
    """QEMU refused a command.

    Args:
        command: the command.
        text: what it said.
    """

    def __init__(self, command: str, text: str) -> None:
        super().__init__(command, text)
        self.command = command
        self.text = text

    def __str__(self) -> str:
        return f"QEMU refuses {self.command}: {self.text}"


class Qmp:
    """One connection; commands are sent one after the other, and events are kept.

    Args:
        channel: the connected socket; it is closed with this.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.settimeout(_ANSWER_S)
        self._file = channel.makefile("rb")
        self._turn = threading.Lock()
        self.events: deque[dict[str, Any]] = deque(maxlen=_EVENTS_KEPT)

    def begin(self) -> dict[str, Any]:
        """Read the greeting and say that no further capability is wanted; returns QEMU's version."""
        greeting = self._message()
        self.ask("qmp_capabilities")
        version: dict[str, Any] = greeting["QMP"]["version"]["qemu"]
        return version

    def ask(self, command: str, **arguments: Any) -> Any:
        """Send a command and return what QEMU answers. An underscore in an argument's name stands for a hyphen.

        Raises:
            QmpError: QEMU refused it, or has ended.
        """
        return self.ask_with(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    def ask_with(self, command: str, arguments: dict[str, Any], fds: tuple[int, ...] = ()) -> Any:
        """As `ask`, with arguments of any name, and descriptors that go along (unix(7), SCM_RIGHTS)."""
        request = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}).encode()
        with self._turn:
            try:
                if fds:
                    socket.send_fds(self._channel, [request], fds)
                else:
                    self._channel.sendall(request)
                while True:
                    message = self._message()
                    if "return" in message:
                        return message["return"]
                    if "error" in message:
                        raise QmpError(command, message["error"]["desc"])
            except OSError as error:
                raise QmpError(command, f"it does not answer: {error}") from error

    def _message(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise QmpError("its monitor", "it has ended")
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            self.events.append(message)
        return message

    def give(self, name: str, fd: int) -> None:
        """Hand a descriptor to QEMU, under a name that other commands use (``getfd``)."""
        self.ask_with("getfd", {"fdname": name}, (fd,))

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._channel.close()
