"""`Controls`: what QEMU can do to a running guest (QMP): pause it, take memory from it, plug cards, move it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ..core.errors import WaitTimeout
from ..core.units import duration_s, format_size, size_bytes
from ..core.wait import until
from .cards import Cards
from .guest import Guest
from .ksm import merged_bytes
from .migrate import Migration, migrate
from .nic import Nic

__all__ = ["Controls"]

_CLOSE_ENOUGH_BYTES = 4 << 20
_BALLOON_S, _MIGRATE_S, _UNPLUG_S = 120.0, 300.0, 120.0


class Controls:
    """The part of a virtual machine that is about the machine, not about what runs in it."""

    name: str
    guest: Guest
    cards: Cards
    outside: Any
    _kept: ExitStack

    started: bool

    def _demand(self) -> None:
        """See to it that the guest is there."""

    def follow_plan(self) -> None:
        """Have the guest configure its network as it is to be."""

    def _qmp(self) -> Any:
        if not self.started:
            self._demand()
        return self.guest.emulator.qmp

    def pause(self) -> None:
        """Stop its processors: nothing runs in it, and it answers nothing."""
        self._qmp().ask("stop")
        self.guest.paused = True

    def resume(self) -> None:
        """Let its processors go on."""
        self.guest.paused = False
        self._qmp().ask("cont")

    @property
    def memory_bytes(self) -> int:
        """The memory that it has now: what it was started with, less what the balloon holds (virtio, "Balloon")."""
        return int(self._qmp().ask("query-balloon")["actual"])

    def set_memory(self, memory: str | int, within: str | float = _BALLOON_S) -> int:
        """Ask it to get along with so much memory, and wait for that; returns what it has then, in bytes.

        A guest gives back what it does not need, so it may keep more than was asked for.

        Raises:
            WaitTimeout: it has not come near it in time; the text says how far it came.
        """
        wanted = size_bytes(memory)
        qmp = self._qmp()
        qmp.ask("balloon", value=wanted)
        try:
            until(lambda: abs(self.memory_bytes - wanted) <= _CLOSE_ENOUGH_BYTES, within_s=duration_s(within), what="")
        except WaitTimeout:
            raise WaitTimeout(
                f"the guest {self.name} was asked to get along with {format_size(wanted)}, and has "
                f"{format_size(self.memory_bytes)} after {duration_s(within):g} s: it needs the rest itself, or has no "
                "driver for the balloon (virtio_balloon)"
            ) from None
        return self.memory_bytes

    @property
    def merged_bytes(self) -> int:
        """How much of its memory it shares with others, as the kernel found equal pages (KSM; proc(5)).

        Raises:
            Unavailable: the machine's kernel does not merge pages, or nobody has told it to.
        """
        self._demand()
        return merged_bytes(self.guest.emulator.process.pid)

    def plug(self, nic: Nic) -> str:
        """Plug in a network card while it runs; returns the interface's name in the guest."""
        self._demand()
        self.cards.plug_nic(self.guest, nic)
        self.follow_plan()
        return self.cards.all[-1].name

    def unplug(self, name: str, within: str | float = _UNPLUG_S) -> None:
        """Take a network card out while it runs.

        Args:
            name: the interface's name in the guest.
            within: how long the guest may take to let it go.

        Raises:
            BadInput: it has no such card.
            WaitTimeout: it does not let it go.
        """
        self._demand()
        self.cards.unplug(self.guest, name, duration_s(within))

    def migrate(self, within: str | float = _MIGRATE_S) -> Migration:
        """Move it to another QEMU process while it runs; its links, files and programs go along.

        Raises:
            BadInput: it has something that cannot move: the machine's files, a disk, a card that is no link.
            StartFailed: it did not move; it goes on where it was.
            WaitTimeout: it took longer than `within`.
        """
        self._demand()
        migration, emulator = migrate(self.guest, self.cards, self.outside, duration_s(within))
        self.guest.emulator = emulator
        self._kept.callback(emulator.stop)
        return migration
