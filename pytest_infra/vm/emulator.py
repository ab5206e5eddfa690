"""`Emulator`: one QEMU process with its monitor, its console and the socket to the agent in its guest."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from ..core.errors import StartFailed
from ..core.process import Popen, await_end
from ..core.resource import Resource
from .console import Console
from .qemu import Machine, argv
from .qmp import Qmp, QmpError
from .requirement import QEMU

__all__ = ["Emulator"]

_END_S = 10.0


class Emulator(Resource):
    """A QEMU process. It dies with whatever `popen` starts processes in.

    Args:
        machine: what it emulates.
        popen: starts the process.
        console: takes what the guest writes to its first serial line.
        incoming: where the guest's state comes from; empty for a fresh start.
        devices: further arguments.
        io: the descriptor of a socket for the guest's second port; -1 for none.
        fds: further descriptors that the process is given.
    """

    requires = (QEMU,)

    def __init__(
        self,
        machine: Machine,
        popen: Popen,
        console: Console,
        *,
        incoming: str = "",
        devices: Sequence[str] = (),
        io: int = -1,
        fds: tuple[int, ...] = (),
    ) -> None:
        self.machine = machine
        self.version: tuple[int, int] = (0, 0)
        """QEMU's, as major and minor number."""
        self._popen = popen
        self._console = console
        self._incoming, self._devices, self._io = incoming, devices, io
        self._fds = fds

    def _start(self, undo: ExitStack) -> None:
        self._errors = os.memfd_create("qemu-errors", os.MFD_CLOEXEC)
        undo.callback(os.close, self._errors)
        monitor, qmp = socket.socketpair()
        with qmp:
            self.qmp = Qmp(monitor)
            undo.callback(self.qmp.close)
            self.agent, agent = socket.socketpair()
            with agent:
                undo.callback(self.agent.close)
                self._launch(undo, qmp.fileno(), agent.fileno())
        try:
            version = self.qmp.begin()
        except (QmpError, OSError):
            self.process.wait(_END_S)
            raise StartFailed(f"QEMU could not be started: {self.errors or 'it said nothing'}") from None
        self.version = version["major"], version["minor"]

    def _launch(self, undo: ExitStack, qmp: int, agent: int) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        fds = [qmp, agent, *([self._io] if self._io >= 0 else []), *self._fds]
        words = argv(self.machine, qmp=qmp, agent=agent, io=self._io, incoming=self._incoming, devices=self._devices)
        files: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": write_end, "stderr": self._errors}
        try:
            self._console.read_from(read_end)
            self.process = self._popen(words, **files, pass_fds=fds, cwd="/", start_new_session=True)
        finally:
            os.close(write_end)
        undo.callback(self._kill)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await_end(self.process.pid, _END_S)
        self.process.wait()

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    @property
    def errors(self) -> str:
        """What QEMU wrote to its standard error."""
        return os.pread(self._errors, 1 << 16, 0).decode(errors="replace").strip()
