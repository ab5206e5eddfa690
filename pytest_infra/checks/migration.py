"""`assert_migrates`: a guest moves to another process while a client keeps asking it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.node import Node
from ..core.report import Report, explain
from ..core.units import format_duration, format_size
from .arguments import seconds
from .probe_icmp import open_echo
from .target import choose_ends

__all__ = ["MigrationReport", "assert_migrates", "measure_migration"]

_SETTLE_S = 1.0


@dataclass(frozen=True)
class MigrationReport(Report):
    """What a client saw of a guest that moved; times in seconds."""

    kind: ClassVar[str] = "migration"

    guest: str
    client: str
    address: str
    sent: int
    """Echo requests sent before, during and after."""
    lost: int
    longest_gap_s: float
    """The longest time between two answers."""
    downtime_s: float
    """For how long QEMU says the guest stood still."""
    total_s: float
    transferred_bytes: int
    emulated: bool
    """Whether the guest's processor is emulated: then the times are reported and never judged."""
    answers_after: bool
    """Whether it answered after the move."""
    lost_at_most: int

    @property
    def ok(self) -> bool:
        """Whether it answers afterwards, and no more requests were lost than allowed."""
        return self.answers_after and self.lost <= self.lost_at_most

    def explain(self) -> str:
        """The verdict, what was measured and wanted, and the likely cause."""
        moved = f"{self.guest} moved to another process"
        verdict = f"{moved}, and {self.client} lost {self.lost} of {self.sent} echo requests"
        if not self.answers_after:
            verdict = f"{moved}, and does not answer {self.client} any more"
        stood = "" if self.emulated else f", for {format_duration(self.longest_gap_s)} at a stretch"
        measured = [
            f"{self.lost} of {self.sent} ICMP echo requests to {self.address} not answered{stood}",
            f"downtime {format_duration(self.downtime_s)} of {format_duration(self.total_s)}, "
            f"{format_size(self.transferred_bytes)} moved (QEMU)"
            + ("; emulated, so the times are not judged" if self.emulated else ""),
        ]
        wanted = f"at most {self.lost_at_most} lost, and answers afterwards"
        rows = [("measured", "\n".join(measured)), ("wanted", wanted)]
        if not self.ok:
            rows += [("cause", self._cause()), ("next", self._next())]
        return explain(verdict, rows)

    def _cause(self) -> str:
        if not self.answers_after:
            return "the network still sends its frames to where it was, or its card did not come along"
        return "what was sent while it stood still was dropped, or sent to where it was before"

    def _next(self) -> str:
        if not self.answers_after:
            return "capture the link of the guest: it announces itself after the move (RARP); does the switch learn it?"
        return "allow that many with lost_at_most=, or give it less memory to move"


class _Pinger:
    """Sends echo requests at an even pace until it is told to stop."""

    def __init__(self, run: Any, every_s: float) -> None:
        self._run, self._every_s = run, every_s
        self._over = threading.Event()
        self.arrivals: list[float] = []
        self._thread = threading.Thread(target=self._loop, name="infra-pinger", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        next_at = time.monotonic()
        while not self._over.is_set():
            self._run.send(self._run.sent)
            next_at = max(next_at + self._every_s, time.monotonic())
            before = len(self._run.answers)
            self._run.receive(next_at, to_the_end=True)
            if len(self._run.answers) > before:
                self.arrivals.append(time.monotonic())

    def stop(self, patience_s: float) -> None:
        self._over.set()
        self._thread.join()
        self._run.receive(time.monotonic() + patience_s)


def measure_migration(
    guest: Any, client: Node, *, every: str | float = "50 ms", lost_at_most: int = 0, within: str | float = "5 min"
) -> MigrationReport:
    """Move a guest while a client pings it, and report; `assert_migrates` takes the same and judges."""
    if not hasattr(guest, "migrate"):
        raise BadInput(f"{guest!r} is no virtual machine, and cannot move")
    if getattr(client, "remote", False):
        raise BadInput(f"the client {client.name} is a virtual machine itself; give a host or a container")
    ends = choose_ends(client, guest)
    every_s = seconds("every", every)
    with client.call(open_echo, str(ends.address)) as run:
        pinger = _Pinger(run, every_s)
        try:
            run_before = threading.Event()
            run_before.wait(_SETTLE_S)
            moved = guest.migrate(within)
            sent = run.sent
            run_before.wait(_SETTLE_S)
        finally:
            pinger.stop(10 * _SETTLE_S)
        replied = {number for number, answer in run.answers.items() if answer.replied}
    times = pinger.arrivals
    return MigrationReport(
        guest=guest.name,
        client=client.name,
        address=str(ends.address),
        sent=run.sent,
        lost=run.sent - len(replied),
        longest_gap_s=max((b - a for a, b in pairwise(times)), default=0.0),
        downtime_s=moved.downtime_s,
        total_s=moved.total_s,
        transferred_bytes=moved.transferred_bytes,
        emulated=moved.emulated,
        answers_after=any(number >= sent for number in replied),
        lost_at_most=lost_at_most,
    )


def assert_migrates(
    guest: Any, client: Node, *, every: str | float = "50 ms", lost_at_most: int = 0, within: str | float = "5 min"
) -> MigrationReport:
    """Move a guest to another QEMU process while a client pings it: it goes on answering.

    Args:
        guest: a virtual machine of the lab, whose cards are links.
        client: a host or container that reaches it.
        every: the time between two echo requests.
        lost_at_most: how many may stay without an answer.
        within: how long the move may take.

    Returns:
        What was lost, the longest gap, the downtime. Times of an emulated guest are reported and never judged.

    Raises:
        CheckFailed: more were lost, or it does not answer afterwards.
        BadInput: `guest` is none, or has something that cannot move.
        StartFailed: it did not move.
    """
    __tracebackhide__ = True
    report = measure_migration(guest, client, every=every, lost_at_most=lost_at_most, within=within)
    report.demand()
    return report
