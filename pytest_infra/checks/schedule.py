"""`assert_link_shares`, `assert_priority`, `assert_shaped`: what a scheduler gives to each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..core.emulation import demand_real_time
from ..core.errors import BadInput
from ..core.report import Report, explain
from ..core.units import format_duration, format_rate, rate_bps, size_bytes

__all__ = [
    "Departure",
    "LinkSharesReport",
    "PriorityReport",
    "ShapeReport",
    "assert_link_shares",
    "assert_priority",
    "assert_shaped",
]

_NS = 10**9


@dataclass(frozen=True)
class Departure:
    """A frame that left a scheduler."""

    at_ns: int
    """When, by any clock that does not jump."""
    size_bytes: int
    """What the scheduler counts, such as the frame without its check sequence."""
    name: str
    """The class it belongs to."""


@dataclass(frozen=True)
class LinkSharesReport(Report):
    """The part of the bytes that each class got while all of them had something to send."""

    kind: ClassVar[str] = "link-shares"

    got: Mapping[str, float]
    wanted: Mapping[str, float]
    tolerance: float
    bytes: int

    @property
    def ok(self) -> bool:
        """Whether each share is within the tolerance."""
        return all(abs(self.got[name] - share) <= self.tolerance for name, share in self.wanted.items())

    def explain(self) -> str:
        """Each class with what it got and should have got."""
        lines = [f"{name}: {self.got[name]:.1%}, wanted {share:.1%}" for name, share in self.wanted.items()]
        worst = max(self.wanted, key=lambda name: abs(self.got[name] - self.wanted[name]))
        verdict = (
            f"{len(lines)} classes get their shares"
            if self.ok
            else (f"class {worst} gets {self.got[worst]:.1%} of the bytes instead of {self.wanted[worst]:.1%}")
        )
        return explain(
            verdict, [("measured", "\n".join(lines)), ("wanted", f"within {self.tolerance:.1%} of {self.bytes} bytes")]
        )


def assert_link_shares(
    departures: Sequence[Departure], shares: Mapping[str, float], *, tolerance: float = 0.05
) -> LinkSharesReport:
    """Check the shares of classes that all had something to send all the time (WRR, DRR, HTB).

    Args:
        departures: what left, while every class had more waiting.
        shares: the weight of each class: ``{"gold": 3, "silver": 1}``.
        tolerance: how far a share of the whole may be off, from 0 to 1.

    Raises:
        CheckFailed: a share is further off.
        BadInput: fewer than two classes, an unknown one, or so few frames that one of them is more than the tolerance.
    """
    __tracebackhide__ = True
    if len(shares) < 2 or any(weight <= 0 for weight in shares.values()):
        raise BadInput(f"shares are {dict(shares)}; at least two classes with weights above 0 are wanted")
    counts = dict.fromkeys(shares, 0)
    for item in departures:
        if item.name not in counts:
            raise BadInput(f"a frame of class {item.name!r} left; the classes are {', '.join(counts)}")
        counts[item.name] += item.size_bytes
    total = sum(counts.values())
    if total == 0 or max(item.size_bytes for item in departures) / total > tolerance / len(shares):
        raise BadInput(f"{len(departures)} frames are too few to tell shares within {tolerance:.1%}; measure longer")
    whole = sum(shares.values())
    got, wanted = {n: c / total for n, c in counts.items()}, {n: w / whole for n, w in shares.items()}
    report = LinkSharesReport(got, wanted, tolerance, total)
    report.demand()
    return report


@dataclass(frozen=True)
class PriorityReport(Report):
    """Frames of a lower class that left while a higher one was waiting."""

    kind: ClassVar[str] = "priority"

    order: tuple[str, ...]
    frames: int
    inversions: tuple[str, ...]
    allowed: int

    @property
    def ok(self) -> bool:
        """Whether there are no more than what may already have been on its way."""
        return len(self.inversions) <= self.allowed

    def explain(self) -> str:
        """The first frames that left too early."""
        order = " before ".join(self.order)
        if self.ok:
            return f"{self.frames} frames left by strict priority: {order}"
        measured = "\n".join([f"{len(self.inversions)} of {self.frames} frames left too early", *self.inversions[:5]])
        return explain("a lower class is served before a higher one", [("measured", measured), ("wanted", order)])


def assert_priority(departures: Sequence[Departure], order: Sequence[str], *, under_way: int = 0) -> PriorityReport:
    """Check strict priority over frames that were all queued before the first of them left.

    Args:
        departures: all frames, in the order in which they left.
        order: the classes, the highest first.
        under_way: how many frames the hardware or driver may have taken before the higher ones came.

    Raises:
        CheckFailed: a frame left while one of a higher class was waiting.
        BadInput: fewer than two classes in the order or among the frames, or an unknown one.
    """
    __tracebackhide__ = True
    rank = {name: place for place, name in enumerate(order)}
    if unknown := {item.name for item in departures} - set(rank):
        raise BadInput(f"frames of class {', '.join(sorted(unknown))} left; the order has {', '.join(order)}")
    if len({item.name for item in departures}) < 2:
        raise BadInput("frames of fewer than two classes prove nothing about their order")
    inversions, best = [], len(order)
    for place in range(len(departures) - 1, -1, -1):
        item = departures[place]
        if rank[item.name] > best:
            inversions.append(f"frame {place} of {item.name} left before one of {order[best]}")
        best = min(best, rank[item.name])
    report = PriorityReport(tuple(order), len(departures), tuple(reversed(inversions)), under_way)
    report.demand()
    return report


@dataclass(frozen=True)
class ShapeReport(Report):
    """The rate at which frames left, and the largest burst among them."""

    kind: ClassVar[str] = "shape"

    rate_bps: float
    """Over the whole, without the first frame; layer 2 where sizes are those of frames."""
    most_bps: int
    """With what one burst adds over the whole."""
    least_bps: int
    burst_bytes: int
    """The most that left at once beyond the wanted rate."""
    most_burst_bytes: int
    duration_s: float

    @property
    def ok(self) -> bool:
        """Whether rate and burst are within their bounds."""
        return self.least_bps <= self.rate_bps <= self.most_bps and self.burst_bytes <= self.most_burst_bytes

    def explain(self) -> str:
        """Rate and burst."""
        rate, burst = format_rate(self.rate_bps), f"bursts of {self.burst_bytes} bytes"
        wanted = (
            f"{format_rate(self.least_bps)} to {format_rate(self.most_bps)}, bursts of at most {self.most_burst_bytes}"
        )
        verdict = f"shaped to {rate}" if self.ok else f"not shaped as wanted: {rate}, {burst}"
        rows = [("measured", f"{rate} in {format_duration(self.duration_s)}, {burst}"), ("wanted", f"{wanted} bytes")]
        return explain(verdict, rows)


def assert_shaped(
    departures: Sequence[Departure], *, rate: str | float, burst: str | int, tolerance: float = 0.05
) -> ShapeReport:
    """Check that frames, more than enough of which were waiting, leave at a rate and without larger bursts.

    Args:
        departures: what left, in order.
        rate: the shaper's rate.
        burst: its burst in bytes, with what the clock's error adds.
        tolerance: how far the rate may be off, as a part of it.

    Raises:
        CheckFailed: another rate, or a larger burst.
        BadInput: fewer than two frames, or all at one time.
    """
    __tracebackhide__ = True
    span_ns = departures[-1].at_ns - departures[0].at_ns if departures else 0
    if span_ns <= 0:
        raise BadInput("frames at two times at least are wanted to tell a rate")
    demand_real_time("the rate of a shaper")
    bps, limit = rate_bps(rate), size_bytes(burst)
    level = most = 0.0
    before_ns = departures[0].at_ns
    for item in departures:
        level = max(0.0, level - (item.at_ns - before_ns) * bps / (8 * _NS)) + item.size_bytes
        before_ns, most = item.at_ns, max(most, level)
    got = sum(item.size_bytes for item in departures[1:]) * 8 * _NS / span_ns
    low, high = int(bps * (1 - tolerance)), int(bps * (1 + tolerance) + limit * 8 * _NS / span_ns)
    report = ShapeReport(got, high, low, int(most), limit, span_ns / _NS)
    report.demand()
    return report
