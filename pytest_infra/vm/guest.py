"""`Guest`: a kernel under QEMU that answers: booted, or restored from a snapshot; with the agent's channel."""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack, suppress
from typing import Any

from ..core.errors import InfraError, StartFailed, WaitTimeout
from ..core.process import Popen
from ..core.progress import taking_long
from ..core.report import explain
from ..core.resource import Resource
from ..core.wait import until
from .channel import Channel
from .console import Console
from .emulator import Emulator
from .initramfs import STEP
from .qemu import Machine
from .snapshot import locked, prune, restore_from, save, snapshot_path

__all__ = ["Guest"]

_RESTORE_S = 60.0
_DYING_S = 0.5
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
_MEMORY = re.compile("[Oo]ut of memory|deadlocked on memory|Initramfs unpacking failed|oom-kill|annot allocate memory")


class Guest(Resource):
    """A guest that is ready for requests.

    Args:
        name: for messages, and its host name.
        machine: what it is.
        popen: starts QEMU.
        ready_s: how long it may take to become ready, seconds.
        snapshot: whether it may be restored from a snapshot, and makes one where there is none.
        io: the descriptor of a socket for the guest's second port; -1 for none.
        fds: further descriptors that QEMU is given, for files without a name.
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        popen: Popen,
        *,
        ready_s: float,
        snapshot: bool = True,
        io: int = -1,
        fds: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.machine = machine
        self.console = Console()
        self.popen = popen
        self.restored = False
        """Whether it came from a snapshot."""
        self.paused = False
        """Whether its processors were stopped on request."""
        self.ready_after_s = 0.0
        self._ready_s = ready_s
        self._snapshot = snapshot
        self._io, self._fds = io, fds

    def _start(self, undo: ExitStack) -> None:
        began = time.monotonic()
        with taking_long(f"starting the guest {self.name}"):
            self._come_up(undo)
        self.ready_after_s = time.monotonic() - began

    def _come_up(self, undo: ExitStack) -> None:
        path = snapshot_path(self.machine) if self._snapshot else ""
        if not path:
            self._boot(undo)
        elif not self._restored_from(path, undo):
            with locked(path):
                if not self._restored_from(path, undo):
                    self._boot(undo)
                    self._save(path)
            prune()
        self._greet()

    def _launch(self, undo: ExitStack, incoming: str) -> None:
        emulator = Emulator(self.machine, self.popen, self.console, incoming=incoming, io=self._io, fds=self._fds)
        self.emulator = undo.enter_context(emulator)
        self.channel = Channel(emulator.agent, self.name, self.obituary)
        undo.callback(self.channel.close)

    def _restored_from(self, path: str, undo: ExitStack) -> bool:
        """Restore it, where there is a snapshot; one that cannot be read is deleted."""
        if not os.path.exists(path):
            return False
        with ExitStack() as attempt:
            try:
                self._launch(attempt, restore_from(path))
                until(self._runs, within_s=_RESTORE_S, what=f"the snapshot of {self.name} is restored")
            except InfraError:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                return False
            undo.push(attempt.pop_all())
        self.restored = True
        return True

    def _runs(self) -> bool:
        if not self.emulator.running:
            raise StartFailed(f"QEMU cannot restore a snapshot: {self.emulator.errors}")
        status: str = self.emulator.qmp.ask("query-status")["status"]
        return status == "running"

    def _boot(self, undo: ExitStack) -> None:
        self._launch(undo, "")
        try:
            until(self._ready_or_ended, within_s=self._ready_s, what="a guest is ready")
        except WaitTimeout:
            raise self._not_up(f"it is not ready after {self._ready_s:g} s") from None
        if not self.channel.ready.is_set():
            self.console.await_end()
            raise self._not_up("it has ended")

    def _save(self, path: str) -> None:
        """Make the snapshot for those that come later."""
        until(lambda: self.channel.warm.is_set() or not self.emulator.running, within_s=self._ready_s,
              what=f"the agent of {self.name} has imported what it needs")  # fmt: skip
        if self.emulator.running:
            save(self.emulator, path)

    def _ready_or_ended(self) -> bool:
        return self.channel.ready.is_set() or not self.emulator.running or self._panicked()

    def _panicked(self) -> bool:
        return "Kernel panic - not syncing" in "\n".join(self.console.last_lines(60))

    def _greet(self) -> None:
        """The handshake: the guest answers, with its clock set and its own random numbers."""
        try:
            self.channel.ask("hello", time.time_ns(), os.urandom(64), self.name[:60], timeout_s=self._ready_s)
        except WaitTimeout:
            raise self._not_up(f"its agent does not answer within {self._ready_s:g} s") from None

    def _not_up(self, what: str) -> StartFailed:
        cause, advice = self._cause()
        rows = [
            ("measured", f"{what}; {self.kind}; {self.console.written_bytes} bytes on its console"),
            ("wanted", f"the agent in it says ready within {self._ready_s:g} s"),
            ("path", f"step reached: {self.step}"),
            ("cause", cause),
            ("next", advice),
            ("evidence", "\n".join(["the console's last lines:", *self.console.last_lines()])),
        ]
        return StartFailed(explain(f"guest {self.name} did not come up", rows))

    def _cause(self) -> tuple[str, str]:
        text, errors = self.console.text, self.emulator.errors
        if errors and not self.console.written_bytes:
            return f"QEMU says: {errors}", "correct what it complains about"
        mebibytes = self.machine.memory_bytes >> 20
        if needed := self._too_little():
            return needed, "give it more with memory="
        if _MEMORY.search(text):
            return f"its memory of {mebibytes} MiB is too little", "give it more with memory="
        if panic := _PANIC.search(text):
            return f"the kernel panicked: {panic.group(1)}", "look at what the console says before that"
        if not self.console.written_bytes:
            return (
                f"its kernel has written nothing: it hangs at once, or does not fit into {mebibytes} MiB",
                "try another kernel, accel='tcg', or more with memory=",
            )
        flood = f"its console is flooded, with {self.console.flood!r} above all" if self.console.flood else ""
        return flood or "it hangs, or waits for something", "look at its console; ready_within= gives it more time"

    def _too_little(self) -> str:
        """What it needs at least, where it has less: the initramfs is there twice while it is unpacked."""
        try:
            kernel, initramfs = (os.stat(path).st_size >> 20 for path in (self.machine.kernel, self.machine.initrd))
        except OSError:
            return ""
        mebibytes = self.machine.memory_bytes >> 20
        if mebibytes >= kernel + 2 * initramfs:
            return ""
        return (
            f"its memory of {mebibytes} MiB is too little for a kernel of {kernel} MiB and an initramfs of "
            f"{initramfs} MiB, which is unpacked beside itself"
        )

    @property
    def kind(self) -> str:
        """How it runs: virtualised or emulated."""
        return "KVM" if self.machine.accel == "kvm" else "emulated (TCG)"

    @property
    def step(self) -> str:
        """The last step of starting that the guest told of."""
        steps = [line for line in self.console.text.splitlines() if STEP in line]
        if steps:
            return steps[-1].split(STEP, 1)[1].strip()
        return "the kernel starts" if self.console.written_bytes else "none, nothing on the console"

    def obituary(self) -> str:
        """Why a guest that was ready does not answer."""
        with suppress(WaitTimeout):  # an emulator that dies closes its channels a little before it has ended
            until(lambda: not self.emulator.running, within_s=_DYING_S, what="QEMU has ended")
        if self.emulator.running:
            return "its agent has ended; the console's last lines: " + " | ".join(self.console.last_lines(3))
        self.console.await_end()
        status = self.emulator.process.poll()
        if panic := _PANIC.search(self.console.text):
            return f"its kernel panicked: {panic.group(1)}; the console's last lines: " + " | ".join(
                self.console.last_lines(4)
            )
        how = f"killed by signal {-status}" if status is not None and status < 0 else f"with status {status}"
        return f"QEMU has ended, {how}; " + " | ".join([self.emulator.errors, *self.console.last_lines(4)]).strip(" |")

    def demand(self) -> None:
        """Raise the error of a guest that has gone where it has."""
        if not self.started:
            raise InfraError(f"the guest {self.name} is not there: its lab has ended, or it is being started")
        if self.channel.gone.is_set():
            raise self.channel.lost()
        if self.paused:
            raise InfraError(f"the guest {self.name} is paused, so nothing can be run or read in it; resume() it first")

    def facts(self) -> dict[str, Any]:
        """How it was started, for reports."""
        return {
            "kernel": os.path.basename(self.machine.kernel),
            "accel": self.machine.accel,
            "restored": self.restored,
            "ready_after_s": round(self.ready_after_s, 3),
            "memory_bytes": self.machine.memory_bytes,
            "cpus": self.machine.cpus,
            "qemu": ".".join(map(str, self.emulator.version)),
        }
