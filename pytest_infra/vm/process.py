"""Commands in a guest, as `core.process.Process` has them: started by its agent, with their output in files here."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import StartFailed
from ..core.process import Process
from .channel import Channel
from .wire import Frame

__all__ = ["GuestPopen", "GuestProcess"]

_START_S = 120.0


class GuestPopen:
    """A command in a guest; it has what `Process` needs of a `subprocess.Popen`.

    Args:
        channel: the guest's agent.
        argv: the command.
        stdin: a descriptor whose content is its standard input, or something negative for none.
        stdout: the descriptor that gets its standard output.
        stderr: the descriptor that gets its standard error.
        env: its environment.
        cwd: the folder in the guest to run in.
    """

    def __init__(
        self,
        channel: Channel,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        env: Mapping[str, str],
        cwd: str | None,
    ) -> None:
        self._channel = channel
        self._started, self._ended = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._outputs = {"out": os.dup(stdout), "err": os.dup(stderr)}
        self.pid = 0
        """The process id as the guest sees it."""
        self.returncode: int | None = None
        content = None if stdin < 0 else os.pread(stdin, os.fstat(stdin).st_size, 0)
        self._number = channel.request("spawn", list(argv), dict(env), cwd, content, listener=self._take)
        self._started.wait(_START_S)
        if self._error is not None:
            raise self._error
        if not self.pid and self.returncode is None:
            raise StartFailed(f"the guest {channel.name} has not started {argv[0]!r} within {_START_S:g} s")

    def _take(self, frame: Frame) -> None:
        _, kind, content = frame
        if kind == "pid":
            self.pid = content
        elif kind in self._outputs:
            os.write(self._outputs[kind], content)
            return
        else:
            self._end(kind, content)
        self._started.set()

    def _end(self, kind: str, content: Any) -> None:
        if kind == "error":
            self._error = content[0]
        elif kind == "gone" and not self.pid:
            self._error = self._channel.lost()
        self.returncode = content if kind == "end" else -signal.SIGKILL
        for fd in self._outputs.values():
            os.close(fd)
        self._outputs = {}
        self._channel.forget(self._number) if hasattr(self, "_number") else None
        self._ended.set()

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self.returncode if self._ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end, `timeout` seconds at most."""
        self._ended.wait(timeout)
        return self.poll()

    def signal_group(self, number: int) -> None:
        """Send a signal to it and the processes of its group."""
        if self.poll() is None and not self._channel.gone.is_set():
            self._channel.ask("signal", self._number, number)


class GuestProcess(Process):
    """A process in a guest."""

    _popen: Any

    def _signal_group(self, number: int) -> None:
        self._popen.signal_group(number)

    def _await_end(self, within_s: float) -> None:
        self._popen.wait(max(0.0, within_s))
