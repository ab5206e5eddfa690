"""Live migration: a guest moves from one QEMU process to another while it runs (QEMU's Migration document)."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..core.errors import BadInput, StartFailed, WaitTimeout
from ..core.wait import until
from .cards import Card, Cards
from .emulator import Emulator
from .guest import Guest
from .snapshot import finished_migration

__all__ = ["Migration", "migrate"]

_BANDWIDTH = 1 << 33
_RESUMES_S = 60.0


@dataclass(frozen=True)
class Migration:
    """What a migration took, as QEMU reports it (``query-migrate``)."""

    downtime_s: float
    """For how long the guest stood still, in seconds."""
    total_s: float
    """From the command to the end, in seconds."""
    transferred_bytes: int
    emulated: bool
    """Whether the guest's processor is emulated: then the times say little."""


def migrate(guest: Guest, cards: Cards, dock: Any, within_s: float) -> tuple[Migration, Emulator]:
    """Move a guest; returns what it took, and the process that it runs in now.

    Raises:
        BadInput: such a guest cannot move.
        StartFailed: it did not move; it goes on where it was.
    """
    _check(guest, cards)
    guest.channel.ping()
    with ExitStack() as undo:
        target = undo.enter_context(_Target(guest, cards, dock))
        with guest.channel.quiet():
            _transfer(guest.emulator, target, within_s)
            state = guest.emulator.qmp.ask("query-migrate")
            guest.channel.move_to(target.agent)
            guest.emulator.stop()
        undo.pop_all()
    migration = Migration(
        downtime_s=state.get("downtime", 0) / 1000,
        total_s=state.get("total-time", 0) / 1000,
        transferred_bytes=state["ram"]["transferred"],
        emulated=guest.machine.accel == "tcg",
    )
    return migration, target


def _check(guest: Guest, cards: Cards) -> None:
    if guest.machine.shares_root:
        raise BadInput(
            f"the guest {guest.name} uses the machine's files, and QEMU cannot move such a guest; leave rootfs= out"
        )
    if cards.has_disk:
        raise BadInput(f"the guest {guest.name} has a disk, which would be open twice; migrate one without disk=")
    for card in cards.all:
        if card.port is None:
            raise BadInput(f"the guest {guest.name} has a {card.name} card; only the cards of links can move with it")


class _Target(Emulator):
    """The process that waits for the guest: with the same devices, each card on a tap of its own."""

    def __init__(self, guest: Guest, cards: Cards, dock: Any) -> None:
        self._cards, self._dock = cards, dock
        super().__init__(guest.machine, guest.popen, guest.console, incoming="defer")

    def _start(self, undo: ExitStack) -> None:
        taps: list[int] = []
        try:
            for card in self._cards.all:
                taps.append(self._dock.tap(card.port))
            self._devices = [word for card, fd in zip(self._cards.all, taps, strict=True) for word in _words(card, fd)]
            self._fds = tuple(taps)
            super()._start(undo)
        finally:
            for fd in taps:
                os.close(fd)


def _words(card: Card, fd: int) -> list[str]:
    vhost = ",vhost=on" if card.vhost else ""
    device = ",".join(f"{name}={value}" for name, value in card.device().items() if name != "driver")
    driver = card.device()["driver"]
    return ["-netdev", f"tap,id=net{card.slot},fd={fd}{vhost}", "-device", f"{driver},{device}"]


def _transfer(source: Emulator, target: Emulator, within_s: float) -> None:
    near, far = socket.socketpair()
    with near, far:
        source.qmp.give("out", near.fileno())
        target.qmp.give("in", far.fileno())
    target.qmp.ask("migrate-incoming", uri="fd:in")
    source.qmp.ask("migrate-set-parameters", max_bandwidth=_BANDWIDTH)
    source.qmp.ask("migrate", uri="fd:out")
    try:
        state = until(lambda: finished_migration(source.qmp), within_s=within_s, what="the migration")
    except WaitTimeout:
        source.qmp.ask("migrate_cancel")
        raise
    if state["status"] != "completed":
        source.qmp.ask("cont")
        why = state.get("error-desc") or target.errors or state["status"]
        raise StartFailed(f"the guest did not move, and goes on where it was: {why}")
    until(
        lambda: target.qmp.ask("query-status")["status"] == "running",
        within_s=_RESUMES_S,
        what="the guest goes on in the other process",
        last_words=lambda: target.errors,
    )
