"""`HostedGuest`: this machine's files and programs on another kernel, outside any lab."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

from ..core.guard import Guard
from ..core.process import Popen
from ..core.resource import Resource
from .channel import Channel
from .guest import Guest
from .initramfs import HOST_MODULES, check_kernel, initramfs
from .kernel import Kernel
from .kvm import choose_accel
from .qemu import Machine
from .requirement import BUSYBOX, QEMU
from .share import become_host_root
from .wire import Frame

__all__ = ["HostedGuest"]


class HostedGuest(Resource):
    """A guest that has the machine's files: read-only below, with a layer in memory on top that goes with it.

    Args:
        kernel: its kernel.
        memory_bytes: its memory.
        cpus: how many processors it has.
        accel: ``auto``, ``kvm`` or ``tcg``.
        warm: whether pytest has been imported in it already, for tests.
        artifacts: a folder of the machine that it can write to; empty for none.
        io: a socket for its second port.
        ready_s: how long it may take to become ready, seconds.
    """

    requires = (QEMU, BUSYBOX)

    def __init__(
        self,
        kernel: Kernel,
        *,
        memory_bytes: int = 1 << 30,
        cpus: int = 2,
        accel: str = "auto",
        warm: bool = False,
        artifacts: str = "",
        io: socket.socket | None = None,
        ready_s: float = 300.0,
    ) -> None:
        self.kernel = kernel
        self._memory_bytes, self._cpus, self._accel = memory_bytes, cpus, accel
        self._warm, self._artifacts, self._io, self._ready_s = warm, artifacts, io, ready_s

    def _start(self, undo: ExitStack) -> None:
        check_kernel(self.kernel, HOST_MODULES)
        popen: Popen = undo.enter_context(Guard("infra-kernel")).popen
        machine = Machine(
            kernel=self.kernel.bootable(),
            initrd=initramfs(self.kernel, warm=self._warm),
            memory_bytes=self._memory_bytes,
            cpus=self._cpus,
            accel=choose_accel(self._accel, self.kernel, popen),
            shares_root=True,
            artifacts=self._artifacts,
        )
        io = -1 if self._io is None else self._io.fileno()
        self.guest = undo.enter_context(Guest(self.kernel.name, machine, popen, ready_s=self._ready_s, io=io))
        self.guest.channel.agent(become_host_root, self.kernel.modules_folder, self._artifacts)

    @property
    def channel(self) -> Channel:
        """Its agent."""
        return self.guest.channel

    @property
    def emulated(self) -> bool:
        """Whether its processor is emulated, so that nothing can be said of time and throughput."""
        return self.guest.machine.accel == "tcg"

    def run(self, argv: Sequence[str], *, cwd: str, env: Mapping[str, str], out: int, err: int) -> int:
        """Run a program to its end, its output going to two descriptors as it comes; returns its exit status.

        Raises:
            StartFailed: the guest has ended.
            OSError: no such program.
        """
        frames: SimpleQueue[Frame] = SimpleQueue()
        self.channel.request("spawn", list(argv), dict(env), cwd, None, listener=frames.put)
        while True:
            _, kind, content = frames.get()
            if kind in ("out", "err"):
                _write(out if kind == "out" else err, content)
            elif kind == "end":
                return 128 - content if content < 0 else int(content)
            elif kind == "error":
                raise content[0]
            elif kind == "gone":
                raise self.channel.lost()


def _write(fd: int, content: bytes) -> None:
    view: Any = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
