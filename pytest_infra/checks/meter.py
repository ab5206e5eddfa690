"""`assert_metered` and `assert_policed`: a meter lets through what its profile says, exactly or within bounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol

from ..core.errors import BadInput
from ..core.report import Report, explain
from ..core.units import format_duration, format_rate, rate_bps, size_bytes
from ..packet.meter import Arrival, Colour

__all__ = ["MeterDevice", "MeterReport", "Passage", "PoliceReport", "assert_metered", "assert_policed"]

_NS = 10**9
_SHOWN = 6


class MeterDevice(Protocol):
    """A real meter that takes a profile and a trace."""

    name: str

    def colours(self, profile: Any, trace: Iterable[Arrival]) -> tuple[Colour, ...]:
        """What it made of each packet."""


@dataclass(frozen=True)
class MeterReport(Report):
    """What a meter made of a trace, and what its profile says."""

    kind: ClassVar[str] = "meter"

    device: str
    profile: str
    trace: tuple[Arrival, ...]
    got: tuple[Colour, ...]
    wanted: tuple[Colour, ...]

    @property
    def ok(self) -> bool:
        """Whether each packet got the right colour."""
        return self.got == self.wanted

    @property
    def first(self) -> int:
        """The place of the first packet with another colour; -1 where there is none."""
        pairs = zip(self.got, self.wanted, strict=True)
        return next((place for place, (got, wanted) in enumerate(pairs) if got != wanted), -1)

    def explain(self) -> str:
        """The first packet with another colour, and those before it."""
        if self.ok:
            return f"{self.device} marks all {len(self.trace)} packets as {self.profile} says"
        wrong = sum(got != wanted for got, wanted in zip(self.got, self.wanted, strict=True))
        start = max(0, self.first - _SHOWN)
        lines = [
            f"{place}: {self.trace[place].at_ns / 1e6:g} ms, {self.trace[place].size_bytes} bytes: "
            f"{self.got[place]}" + ("" if place < self.first else f", wanted {self.wanted[place]}")
            for place in range(start, self.first + 1)
        ]
        rows = [
            ("measured", f"{wrong} of {len(self.trace)} packets have another colour"),
            ("wanted", self.profile),
            ("packets", "\n".join(lines)),
            ("next", "compare rate and burst with what was configured, and the bytes that the device counts"),
        ]
        return explain(f"{self.device} marks packet {self.first} {self.got[self.first]}", rows)


def assert_metered(device: MeterDevice, profile: Any, trace: Iterable[Arrival]) -> MeterReport:
    """Check that a meter marks each packet of a trace exactly as its profile says.

    Args:
        device: the meter, in virtual time: `packet.meter_ovs.OvsMeterDevice`.
        profile: what it is told, and the model of it: `packet.meter.OvsMeter`, `SrTcm`, `TrTcm2698`, `TrTcm4115`.
        trace: the packets.

    Raises:
        CheckFailed: a packet got another colour.
        BadInput: an empty trace proves nothing.
    """
    __tracebackhide__ = True
    packets = tuple(trace)
    if not packets:
        raise BadInput("an empty trace proves nothing; give at least one packet")
    wanted = profile.colours(packets)
    report = MeterReport(device.name, str(profile), packets, device.colours(profile, packets), wanted)
    report.demand()
    return report


@dataclass(frozen=True)
class Passage:
    """A packet that was sent to a policer in real time, and whether it came through."""

    at_ns: int
    """When it was sent."""
    size_bytes: int
    passed: bool


@dataclass(frozen=True)
class PoliceReport(Report):
    """What a policer let through in real time, and the bounds that its rate and burst give."""

    kind: ClassVar[str] = "police"

    rate_bps: int
    burst_bytes: int
    clock_error_s: float
    offered_bytes: int
    passed_bytes: int
    duration_s: float
    excess_bytes: int
    """The most that passed in any interval beyond burst and rate; negative where it stayed below."""
    least_bytes: int
    """What must have passed."""

    @property
    def ok(self) -> bool:
        """Whether no interval has too much, and the whole not too little."""
        return self.excess_bytes <= 0 and self.passed_bytes >= self.least_bytes

    def explain(self) -> str:
        """How much passed, and how much may and must."""
        if self.excess_bytes > 0:
            verdict = f"the policer lets {self.excess_bytes} bytes too much through"
        elif not self.ok:
            verdict = f"the policer drops {self.least_bytes - self.passed_bytes} bytes too much"
        else:
            verdict = "the policer keeps to its rate and burst"
        passed = f"{self.passed_bytes} of {self.offered_bytes} bytes passed in {format_duration(self.duration_s)}"
        bound = f"burst {self.burst_bytes} bytes + {format_rate(self.rate_bps)} in every interval"
        slack = f", with a clock error of {format_duration(self.clock_error_s)}"
        return explain(
            verdict, [("measured", passed), ("wanted", f"at most {bound}{slack}\nat least {self.least_bytes} bytes")]
        )


def assert_policed(
    passages: Sequence[Passage], *, rate: str | float, burst: str | int, clock_error_s: float = 0.001
) -> PoliceReport:
    """Check a policer in real time: never more than burst + rate · time in any interval, and no less than it owes.

    The bounds follow from the rate, the burst and how well the times are known; no percentage is allowed for.

    Args:
        passages: what was sent, in order of time, and whether it passed.
        rate: the policer's rate.
        burst: its burst in bytes.
        clock_error_s: how far the time at which a packet was sent may be from when the policer saw it.

    Raises:
        CheckFailed: too much passed in some interval, or too little in all.
        BadInput: nothing was sent, or more than fits could not have been noticed.
    """
    __tracebackhide__ = True
    if not passages:
        raise BadInput("nothing was sent, which proves nothing")
    bps, limit = int(rate_bps(rate)), size_bytes(burst)
    slack = int(2 * clock_error_s * bps / 8)
    span_ns = passages[-1].at_ns - passages[0].at_ns
    offered = sum(item.size_bytes for item in passages)
    owed = limit + span_ns * bps // (8 * _NS)
    if offered <= owed + slack:
        raise BadInput(f"{offered} bytes were sent, but the policer may let {owed} through: send more, or faster")
    largest = max(item.size_bytes for item in passages)
    gap_ns = max((b.at_ns - a.at_ns for a, b in pairwise(passages)), default=0)
    least = owed - slack - 2 * largest - gap_ns * bps // (8 * _NS)
    report = PoliceReport(
        rate_bps=bps,
        burst_bytes=limit,
        clock_error_s=clock_error_s,
        offered_bytes=offered,
        passed_bytes=sum(item.size_bytes for item in passages if item.passed),
        duration_s=span_ns / _NS,
        excess_bytes=_most(passages, bps) - limit - slack,
        least_bytes=max(0, least),
    )
    report.demand()
    return report


def _most(passages: Sequence[Passage], bps: int) -> int:
    """The most that passed in any interval beyond what the rate brought in it: a bucket that drains at the rate."""
    level = most = 0
    before_ns = passages[0].at_ns
    for item in passages:
        if item.passed:
            level = max(0, level - (item.at_ns - before_ns) * bps // (8 * _NS)) + item.size_bytes
            before_ns = item.at_ns
            most = max(most, level)
    return most
