"""`assert_latency`, `assert_jitter`: how long packets take, and by how much that changes.

A test's own machine takes time as well: it may not let a program run for milliseconds. So where a bound is exceeded,
the same series is sent over the loopback of the sending node. What that takes is the machine's share: only what remains
beyond it is a failure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from statistics import fmean
from typing import Any, ClassVar

from ..core.emulation import demand_real_time
from ..core.errors import BadInput
from ..core.node import Node
from ..core.report import explain
from ..core.units import format_duration
from .arguments import check_count, seconds
from .obstacles import obstacles, remedy
from .ping import ping
from .quiet import measuring
from .resample import quantile
from .stream import Stream, send_back_home, send_stream
from .target import Ends, Family, Target, choose_ends
from .verdict import Measured, Verdict

__all__ = ["LatencyReport", "assert_jitter", "assert_latency", "measure_latency"]

_SIZE = 64
_LEAST_PAIRS = 10
"""Of fewer changes of the delay their mean says nothing."""


@dataclass(frozen=True)
class LatencyReport(Measured):
    """The delays of a series of packets, in seconds."""

    kind: ClassVar[str] = "latency"

    source: str
    destination: str
    address: str
    one_way: bool
    """Whether the delays are of one way, or of a round trip."""
    sent: int
    delays_s: tuple[float, ...]
    """Of those that arrived, in the order they were sent."""
    variations_s: tuple[float, ...]
    """How much the delay changed from each packet to the next (RFC 3393)."""
    bounds_s: tuple[tuple[str, float], ...] = ()
    """What was wanted at most: ``p50``, ``p99``, ``jitter``."""
    least_s: tuple[tuple[str, float], ...] = ()
    """What was wanted at least."""
    machine_s: tuple[tuple[str, float], ...] = ()
    """The same of the loopback, where it was asked."""
    on_the_way: tuple[str, ...] = ()

    def figure_s(self, name: str) -> float:
        """One figure: ``p50``, ``p99`` … of the delays, or ``jitter``, the mean of the variations.

        The delay of a packet that did not arrive is infinite (RFC 2681, section 2.6).
        """
        if name == "jitter":
            return fmean(self.variations_s) if self.variations_s else 0.0
        return quantile([*self.delays_s, *[inf] * self.lost], float(name[1:]) / 100)

    @property
    def lost(self) -> int:
        """How many did not arrive."""
        return self.sent - len(self.delays_s)

    @property
    def _too_few_pairs(self) -> bool:
        """Whether the jitter is wanted, and of too few pairs of packets both arrived."""
        wanted = any(name == "jitter" for name, _ in (*self.bounds_s, *self.least_s))
        return wanted and len(self.variations_s) < _LEAST_PAIRS

    @property
    def jitter_s(self) -> float:
        """The mean change of the delay from one packet to the next; what RTP smooths (RFC 3550, section 6.4.1)."""
        return self.figure_s("jitter")

    @property
    def exceeded(self) -> tuple[str, ...]:
        """The figures that are beyond their bounds."""
        above = [name for name, bound in self.bounds_s if self.figure_s(name) > bound]
        return (*above, *(name for name, bound in self.least_s if self.figure_s(name) < bound))

    @property
    def verdict(self) -> Verdict:
        """Whether the figures are within their bounds, also when the machine's share is taken off."""
        if not self.delays_s:
            return "fail"
        if self._too_few_pairs:
            return "inconclusive"
        if any(self.figure_s(name) < bound for name, bound in self.least_s):
            return "fail"
        machine = dict(self.machine_s)
        above = [name for name, bound in self.bounds_s if self.figure_s(name) > bound]
        if not above:
            return "pass"
        beyond = [name for name, bound in self.bounds_s if self.figure_s(name) - machine.get(name, 0.0) > bound]
        return "fail" if beyond else "inconclusive"

    def explain(self) -> str:
        """Quantiles and jitter, and the machine's share of them."""
        pair = f"{self.source} to {self.destination}"
        if not self.delays_s:
            rows = [("measured", f"none of {self.sent} packets arrived"), ("next", "assert_reachable says why")]
            return explain(f"{pair}: no packet arrives", rows)
        kind = "one way" if self.one_way else "round trip"
        rows = [("measured", self._measured()), ("wanted", self._wanted())]
        if self.verdict == "pass":
            return explain(f"{pair}: {kind} of {_duration(self.figure_s('p50'))} (median)", rows)
        if self._too_few_pairs:
            pairs = f"{len(self.variations_s)} times two packets in a row arrived, at least {_LEAST_PAIRS} are wanted"
            rows += [("cause", pairs), ("next", "send more packets: count=; assert_loss judges what is lost")]
            return explain(f"{pair}: the jitter cannot be told of so few packets", rows)
        names = ", ".join(self.exceeded)
        if self.verdict == "inconclusive":
            rows += [("cause", f"the machine alone: {self._machine()}"), ("next", "measure on a quieter machine")]
            return explain(f"{pair}: it cannot be told whether {names} would be in bounds on a quieter machine", rows)
        low = any(
            name in dict(self.least_s) and self.figure_s(name) < dict(self.least_s)[name] for name in self.exceeded
        )
        gone = [f"{self.lost} of {self.sent} packets were lost: each took forever"] if self.lost else []
        missing = [f"no link on the way has a {self._wish}"] if low and not self.on_the_way else []
        rows.append(("cause", "\n".join([*([] if low else gone), *missing, *self.on_the_way])))
        if self.machine_s:
            rows.append(("ruled out", f"the machine alone: {self._machine()}"))
        rows.append(("next", self._next(low)))
        return explain(f"{pair}: {names} of the {kind} is too {'low' if low else 'high'}", rows)

    @property
    def _wish(self) -> str:
        return "jitter" if any(name == "jitter" for name, _ in self.least_s) else "delay"

    def _next(self, low: bool) -> str:
        if self.on_the_way:
            return remedy(self.on_the_way)
        if low:
            return f"give a link of the way a {self._wish}: link.impair({self._wish}=…)"
        return "look where packets are lost: nstat, ip -s link" if self.lost else "look where packets wait: tc -s qdisc"

    def _measured(self) -> str:
        names = ["p50", "p90", "p99", "jitter"]
        figures = ", ".join(f"{name} {_duration(self.figure_s(name))}" for name in names)
        return f"{figures}\n{len(self.delays_s)} of {self.sent} packets arrived"

    def _wanted(self) -> str:
        words = [f"{name} at most {format_duration(bound)}" for name, bound in self.bounds_s]
        words += [f"{name} at least {format_duration(bound)}" for name, bound in self.least_s]
        return ", ".join(words)

    def _machine(self) -> str:
        return ", ".join(f"{name} {_duration(value)} over loopback" for name, value in self.machine_s)


def _duration(value_s: float) -> str:
    return "infinite" if value_s == inf else format_duration(value_s)


def measure_latency(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    one_way: bool = False,
    count: int = 100,
    interval: str | float = "2 ms",
    within: str | float = "1 s",
    family: Family | None = None,
) -> LatencyReport:
    """Measure how long packets take from `a` to `b`, and back; nothing is judged.

    Args:
        a: the sending node.
        b: the other node, or an address.
        one_way: whether to measure one way, with datagrams; else a round trip, with ICMP echo.
        count: how many packets.
        interval: the time from one to the next.
        within: how long to wait after the last one.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.

    Raises:
        BadInput: an argument that cannot be used.
        InfraError: nothing can be sent.
    """
    ends = choose_ends(a, b, family)
    interval_s, within_s = seconds("interval", interval, zero=True), seconds("within", within)
    check_count(count)
    with measuring():
        series = _one_way if one_way else _round_trip
        stream = series(ends, count, interval_s, within_s)
    return LatencyReport(
        source=ends.source.name,
        destination=ends.destination_name,
        address=str(ends.address),
        one_way=one_way,
        sent=count,
        delays_s=stream.arrived,
        variations_s=stream.variations_s,
        on_the_way=tuple(obstacles(ends.source, ends.destination)),
    )


def _one_way(ends: Ends, count: int, interval_s: float, within_s: float) -> Stream:
    if ends.destination is None:
        raise BadInput(f"one_way needs a node that receives; {ends.address} is the address of none of the lab")
    return send_stream(ends, count=count, interval_s=interval_s, size=_SIZE, within_s=within_s)


def _round_trip(ends: Ends, count: int, interval_s: float, within_s: float) -> Stream:
    source = (ends.source, ends.bind_to) if ends.bind_to else ends.source
    report = ping(source, str(ends.address), count=count, interval=interval_s, within=within_s)
    return Stream(report.rtts_s, ())


def _judged(report: LatencyReport, node: Node, count: int, interval_s: float) -> LatencyReport:
    """The report, with the machine's share where a bound is exceeded."""
    if not report.delays_s or not report.exceeded:
        return report
    with measuring():
        family = 6 if ":" in report.address else 4
        stream = send_back_home(node, count=count, interval_s=interval_s, size=_SIZE, family=family)
    loopback = replace(report, delays_s=stream.arrived, variations_s=stream.variations_s)
    ways = 1 if report.one_way else 2
    shares = [(name, ways * loopback.figure_s(name)) for name, _ in report.bounds_s]
    return replace(report, machine_s=tuple(shares))


def assert_latency(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    p50: str | float | None = None,
    p99: str | float | None = None,
    least: str | float | None = None,
    one_way: bool = False,
    count: int = 100,
    **options: Any,
) -> LatencyReport:
    """Check how long packets take. One that does not arrive takes longer than any bound (RFC 2681).

    Args:
        a: the sending node.
        b: the other node, or an address.
        p50: the most that half of the packets may take (the median).
        p99: the most that 99 of 100 may take.
        least: the least that half of them may take.
        one_way: whether of one way, or of a round trip.
        count: how many packets; for `p99` at least 100.
        options: what `measure_latency` takes: interval, within, family.

    Raises:
        CheckFailed: a figure is beyond its bound, also without the machine's share.
        Inconclusive: it is only within it without the machine's share.
        BadInput: an argument that cannot be used; no bound.
    """
    __tracebackhide__ = True
    demand_real_time("latency", a, b)
    asked = {name: value for name, value in (("p50", p50), ("p99", p99)) if value is not None}
    bounds = tuple((name, seconds(name, value)) for name, value in asked.items())
    low = () if least is None else (("p50", seconds("least", least)),)
    if not bounds and not low:
        raise BadInput("p50, p99 or least is wanted; measure_latency measures without judging")
    if p99 is not None and count < 100:
        raise BadInput(f"count {count!r} is too small for p99: of fewer than 100 packets it is the slowest one")
    report = measure_latency(a, b, one_way=one_way, count=count, **options)
    report = replace(report, bounds_s=bounds, least_s=low)
    report = _judged(report, choose_ends(a, b, options.get("family")).source, count, _interval_s(options))
    report.demand()
    return report


def _interval_s(options: dict[str, Any]) -> float:
    return seconds("interval", options.get("interval", "2 ms"), zero=True)


def assert_jitter(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    at_most: str | float | None = None,
    at_least: str | float | None = None,
    count: int = 100,
    **options: Any,
) -> LatencyReport:
    """Check by how much the delay of one way changes from one packet to the next, on average (RFC 3393, RFC 3550).

    Args:
        a: the sending node.
        b: the receiving node.
        at_most: the greatest mean change.
        at_least: the least.
        count: how many packets.
        options: what `measure_latency` takes: interval, within, family.

    Raises:
        CheckFailed: it is beyond a bound, also without the machine's share.
        Inconclusive: it is only within it without the machine's share; or fewer than 10 times two packets in a row
            arrived.
        BadInput: an argument that cannot be used; no bound.
    """
    __tracebackhide__ = True
    demand_real_time("jitter", a, b)
    if at_most is None and at_least is None:
        raise BadInput("at_most or at_least is wanted; measure_latency measures without judging")
    bounds = () if at_most is None else (("jitter", seconds("at_most", at_most)),)
    low = () if at_least is None else (("jitter", seconds("at_least", at_least)),)
    report = measure_latency(a, b, one_way=True, count=count, **options)
    report = replace(report, bounds_s=bounds, least_s=low)
    report = _judged(report, choose_ends(a, b, options.get("family")).source, count, _interval_s(options))
    report.demand()
    return report
