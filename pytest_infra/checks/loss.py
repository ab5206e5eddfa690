"""`assert_loss`: which part of the packets is lost, judged by the exact binomial distribution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.node import Node
from ..core.report import explain
from ..core.units import fraction
from ..packet.statistics import binomial_p
from .arguments import check_count, check_size, seconds
from .obstacles import obstacles, remedy
from .quiet import measuring
from .resample import clopper_pearson
from .stream import send_stream
from .target import Family, Target, choose_ends
from .verdict import Measured, Verdict

__all__ = ["LossReport", "assert_loss", "measure_loss"]

_ALPHA = 0.001
_LOOK = "look where packets are dropped: nstat, ip -s link"
_LEAST_SIZE = 20
_COUNT = 1000


@dataclass(frozen=True)
class LossReport(Measured):
    """What became of a series of datagrams, one way."""

    kind: ClassVar[str] = "loss"

    source: str
    destination: str
    address: str
    sent: int
    lost: int
    duplicates: int
    reordered: int
    """Datagrams that arrived after one that was sent later (RFC 4737)."""
    at_most: float | None = None
    expected: float | None = None
    on_the_way: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """The fraction that did not arrive (RFC 7680)."""
        return self.lost / self.sent

    @property
    def interval(self) -> tuple[float, float]:
        """Where the chance of losing a packet lies, with 99 % confidence (Clopper and Pearson)."""
        return clopper_pearson(self.lost, self.sent)

    @property
    def p(self) -> float:
        """How likely so unlikely a count is, if `expected` is the chance: the exact two-sided binomial test."""
        return 1.0 if self.expected is None else binomial_p(self.lost, self.sent, self.expected)

    @property
    def verdict(self) -> Verdict:
        """Whether the count is one that the bound or the expectation allows; wrong in at most 1 of 1000 cases."""
        if self.expected is not None and self.p < _ALPHA:
            return "fail"
        if self.at_most is None or self.loss <= self.at_most:
            return "pass"
        return "fail" if clopper_pearson(self.lost, self.sent, 1 - 2 * _ALPHA)[0] > self.at_most else "inconclusive"

    def explain(self) -> str:
        """The loss, where its chance lies, and what was wanted."""
        low, high = self.interval
        counts = f"{self.lost} of {self.sent} datagrams lost ({self.loss:.2%})"
        others = f"{self.duplicates} duplicates, {self.reordered} out of order"
        rows = [("measured", f"{counts}, so {low:.2%} to {high:.2%} with 99 % confidence\n{others}")]
        rows.append(("wanted", self._wanted()))
        pair = f"{self.source} to {self.destination}"
        if self.verdict == "pass":
            return explain(f"{pair}: {self.loss:.2%} lost", rows)
        if self.verdict == "inconclusive":
            rows.append(("next", f"send more than {self.sent} datagrams: count="))
            return explain(f"{pair}: it cannot be told whether at most {self.at_most:.2%} are lost", rows)
        rows.append(("cause", "\n".join(self.on_the_way)))
        step = remedy(self.on_the_way) if self.on_the_way else _LOOK
        return explain(f"{pair}: loses {self.loss:.2%} of the packets", [*rows, ("next", step)])

    def _wanted(self) -> str:
        if self.expected is not None:
            return f"{self.expected:.2%}; so unlikely a count has a chance of {self.p:.2g} (exact binomial test)"
        return "" if self.at_most is None else f"at most {self.at_most:.2%}"


def measure_loss(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    count: int = _COUNT,
    interval: str | float = "200 us",
    size: int = 64,
    within: str | float = "1 s",
    family: Family | None = None,
) -> LossReport:
    """Send numbered datagrams from `a` to `b`, and report how many do not arrive; nothing is judged.

    Args:
        a: the sending node.
        b: the receiving node, or one of its addresses.
        count: how many datagrams.
        interval: the time from one to the next.
        size: bytes of payload, at least 20.
        within: how long to wait after the last one.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.

    Raises:
        BadInput: an argument that cannot be used.
        InfraError: nothing can be sent.
    """
    ends = choose_ends(a, b, family)
    if ends.destination is None:
        raise BadInput(f"nothing can receive at {ends.address}: it is the address of no node of the lab")
    if check_size(size) < _LEAST_SIZE:
        raise BadInput(f"size {size!r} is not allowed; a numbered datagram has at least {_LEAST_SIZE} bytes of payload")
    interval_s, within_s = seconds("interval", interval, zero=True), seconds("within", within)
    with measuring():
        stream = send_stream(ends, count=check_count(count), interval_s=interval_s, size=size, within_s=within_s)
    return LossReport(
        source=ends.source.name,
        destination=ends.destination_name,
        address=str(ends.address),
        sent=stream.sent,
        lost=stream.lost,
        duplicates=stream.duplicates,
        reordered=stream.reordered,
        on_the_way=tuple(obstacles(ends.source, ends.destination)),
    )


def assert_loss(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    at_most: str | float | None = None,
    expected: str | float | None = None,
    **options: Any,
) -> LossReport:
    """Check which part of the packets is lost.

    Args:
        a: the sending node.
        b: the receiving node.
        at_most: the greatest part (``"1 %"`` or 0.01); 0 allows none.
        expected: the part that is to be lost: the count must be one that this chance can give.
        options: what `measure_loss` takes: count, interval, size, within, family.

    Raises:
        CheckFailed: more are lost, or another part; by mistake in at most 1 of 1000 cases.
        Inconclusive: more were lost than `at_most` of them, but so few that chance may have done it.
        BadInput: an argument that cannot be used; not exactly one of `at_most` and `expected`; a count so small that
            with `expected` no outcome could fail.
    """
    __tracebackhide__ = True
    if (at_most is None) == (expected is None):
        raise BadInput("one of at_most and expected is wanted; measure_loss measures without judging")
    most = None if at_most is None else fraction(at_most)
    wanted = None if expected is None else fraction(expected)
    count = check_count(options.get("count", _COUNT))
    if most is not None:
        _demand_that_all_lost_is_too_much(most, count)
    if wanted is not None:
        _demand_that_it_can_fail(wanted, count)
    report = replace(measure_loss(a, b, **options), at_most=most, expected=wanted)
    report.demand()
    return report


def _demand_that_it_can_fail(expected: float, count: int) -> None:
    """Refuse a series of which neither none nor all lost would be too unlikely."""
    if min(binomial_p(lost, count, expected) for lost in (0, count)) >= _ALPHA:
        why = f"whether none or all of so few are lost, chance may have done it at an expected loss of {expected:.2%}"
        raise BadInput(f"count {count!r} is too small: {why}; send more")


def _demand_that_all_lost_is_too_much(most: float, count: int) -> None:
    """Refuse a series of which even all lost would not show that more than `most` is lost."""
    if most < 1 and clopper_pearson(count, count, 1 - 2 * _ALPHA)[0] <= most:
        why = f"even if all of so few are lost, that does not show a loss above {most:.2%}"
        raise BadInput(f"count {count!r} is too small: {why}; send more")
