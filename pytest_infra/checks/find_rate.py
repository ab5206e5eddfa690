"""`find_rate`, `assert_rate`: the highest rate at which no more than a given part of the packets is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..core.emulation import demand_real_time
from ..core.errors import BadInput, InfraError, reason
from ..core.node import Node
from ..core.report import explain
from ..core.units import format_duration, format_rate, fraction, rate_bps
from .arguments import seconds
from .flow import header_bytes
from .generator import run_udp
from .obstacles import impaired, obstacles, remedy
from .quiet import measuring
from .rate_search import Goal, Search, Trial, conditional_throughput, search
from .target import Ends, Family, Target, choose_ends
from .verdict import Measured, Verdict

__all__ = ["RateReport", "assert_rate", "find_rate"]

_ETHERNET_BYTES = 14
_LEAST_OFFERED = 0.99
_GRACE = 0.02  # of a trial's time
_TOO_LITTLE = "the generator offered too little"
_LOOK = "look where packets are dropped: nstat, ip -s link"
_LEAST_SIZE, _LARGEST_SIZE = 1, 65507


@dataclass(frozen=True)
class RateReport(Measured):
    """The bounds of the highest rate; rates are of layer 2: frames without preamble and check sequence."""

    kind: ClassVar[str] = "rate"

    source: str
    destination: str
    address: str
    loss: float
    """The part of the packets that may be lost."""
    size: int
    """Bytes of payload of each datagram."""
    frame_bytes: int
    lower_pps: float
    """The highest rate that has been shown to do, packets a second; 0 where none did."""
    upper_pps: float | None
    """The lowest rate that has been shown to be too much; None where none was found."""
    conditional_pps: float
    """What got through at `lower_pps` in all but half of the trial time (RFC 9971, conditional throughput)."""
    least_pps: float
    most_pps: float
    """What got through in the worst and the best trial at `lower_pps`."""
    trials: int
    invalid: int
    """Trials in which the generator did not offer what was intended; they count for nothing."""
    generator_limit_pps: float | None
    """The rate that the generator could not offer."""
    flaws: tuple[str, ...] = ()
    """Why trials were invalid, each with its count."""
    there: int = 0
    """Trials at `lower_pps`."""
    grace_s: float = 0.0
    """What arrived later than this after a trial's time had been held by a queue, and counts as lost."""
    at_least_bps: float | None = None
    on_the_way: tuple[str, ...] = ()

    @property
    def lower_bps(self) -> float:
        """The lower bound in bits per second of layer 2."""
        return 8 * self.frame_bytes * self.lower_pps

    @property
    def upper_bps(self) -> float | None:
        """The upper bound in bits per second of layer 2."""
        return None if self.upper_pps is None else 8 * self.frame_bytes * self.upper_pps

    @property
    def verdict(self) -> Verdict:
        """Whether the lower bound is as high as was wanted, the upper bound is lower than that, or neither."""
        if self.at_least_bps is None or self.lower_bps >= self.at_least_bps:
            return "pass"
        return "fail" if self.upper_bps is not None and self.upper_bps <= self.at_least_bps else "inconclusive"

    def explain(self) -> str:
        """The bounds with their spread, and what was wanted."""
        low = format_rate(self.lower_bps)
        high = "no bound above" if self.upper_bps is None else f"below {format_rate(self.upper_bps)}"
        figures = f"{self.lower_pps:.0f} packets/s of {self.frame_bytes} bytes: {low} of L2, {high}"
        rows = [("measured", "\n".join([figures, *self._trials()])), ("wanted", self._wanted())]
        pair = f"{self.source} to {self.destination}"
        if self.verdict == "pass":
            return explain(f"{pair}: {low} of L2 at a loss of at most {self.loss:.2%}", rows)
        if self.verdict == "inconclusive":
            cause = (
                f"the generator could not offer {self.generator_limit_pps:.0f} packets/s"
                if self.generator_limit_pps is not None
                else "the bounds are not closer, or nothing higher was tried"
            )
            rows += [("cause", cause), ("next", "a quieter machine, larger packets (size=), or a higher at_most=")]
            return explain(f"{pair}: it cannot be told whether that rate is kept", rows)
        rows.append(("cause", "\n".join(self.on_the_way)))
        step = remedy(self.on_the_way) if self.on_the_way else _LOOK
        return explain(f"{pair}: only {low} of L2 at a loss of at most {self.loss:.2%}", [*rows, ("next", step)])

    def _trials(self) -> Iterator[str]:
        least, most = f"{self.least_pps:.0f}", f"{self.most_pps:.0f}"
        if self.there:
            trials = f"{self.there} trials" if self.there > 1 else "the trial"
            yield f"{least if least == most else f'{least} to {most}'} packets/s arrived in {trials} there"
        counted = f"{self.trials} trials" + (f", {self.invalid} invalid" if self.invalid else "")
        yield counted + (f": {'; '.join(self.flaws)}" if self.flaws else "")
        if self.grace_s:
            yield f"what a queue held for more than {format_duration(self.grace_s)} after a trial counts as lost"

    def _wanted(self) -> str:
        if self.at_least_bps is None:
            return ""
        return f"at least {format_rate(self.at_least_bps)} of L2 with at most {self.loss:.2%} lost"


def find_rate(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    loss: str | float = "0.5 %",
    at_most: str | float = "10 Gbit/s",
    size: int = 1400,
    trial: str | float = "500 ms",
    width: str | float = "5 %",
    family: Family | None = None,
) -> RateReport:
    """Search for the highest rate from `a` to `b`; nothing is judged.

    The search is that of RFC 9971 (MLRsearch) with one goal: bounds are decided by several trials, of which less than
    half may go wrong. A trial in which the generator offered less than 99 % of what was intended is invalid. What
    arrives more than 2 % of the trial's time (and twice the jitter of the lab's links) after it counts as lost: a queue
    held it, and has no room for as much in a longer trial.

    Args:
        a: the sending node.
        b: the receiving node, or one of its addresses.
        loss: the part of the packets that may be lost (the goal loss ratio); 0 is the throughput of RFC 2544.
        at_most: the highest rate that is tried, of layer 2.
        size: bytes of payload of each datagram.
        trial: how long one trial sends.
        width: how close the two bounds are to be.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.

    Raises:
        BadInput: an argument that cannot be used.
        InfraError: nothing can be sent.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not _LEAST_SIZE <= size <= _LARGEST_SIZE:
        raise BadInput(f"size {size!r} is not allowed; give {_LEAST_SIZE} to {_LARGEST_SIZE} bytes of payload")
    goal = Goal(fraction(loss), fraction(width), seconds("trial", trial))
    if not 0.001 <= goal.width <= 0.5:
        raise BadInput(f"width {width!r} is not allowed; give 0.1 % to 50 %")
    ends = choose_ends(a, b, family)
    if ends.destination is None:
        raise BadInput(f"nothing can receive at {ends.address}: it is the address of no node of the lab")
    frame = size + header_bytes("udp", ends.address.version) + _ETHERNET_BYTES
    most = rate_bps(at_most) / (8 * frame)
    least = max(10 / goal.duration_s, most / 1e5)
    if most <= least:
        raise BadInput(f"at_most {at_most!r} is too low: a trial would send fewer than 10 packets; lengthen trial=")
    with measuring():
        grace_s = _GRACE * goal.duration_s
        grace_s += 2 * sum(item.jitter_s for _, item in impaired(ends.source, ends.destination))
        state = search(lambda load: _trial(ends, load, size, goal, grace_s), goal, least, most)
    return _report(ends, state, size, frame, grace_s)


def _trial(ends: Ends, load: float, size: int, goal: Goal, grace_s: float) -> Trial:
    try:
        flow = run_udp(ends, streams=1, duration_s=goal.duration_s, size=size, per_s=load, grace_s=grace_s)
    except OSError as error:
        if isinstance(error, InfraError):
            raise
        what = f"{ends.source.name} cannot send to {ends.destination_name} ({ends.address})"
        raise InfraError(f"{what}: {reason(error)}; assert_reachable says why") from error
    offered = flow.offered_packets / goal.duration_s
    loss = min(1.0, (flow.lost + flow.late) / flow.offered_packets) if flow.offered_packets else 1.0
    flaw = ""
    if offered < _LEAST_OFFERED * load - 1 / goal.duration_s:
        flaw = _TOO_LITTLE
    elif flow.dropped:  # the generator's fault, not the network's
        flaw = "the receiver was too slow"
    return Trial(load, goal.duration_s, loss, not flaw, offered, flaw)


def _flaws(invalid: Sequence[Trial]) -> Iterator[str]:
    for flaw, count in Counter(trial.flaw for trial in invalid).most_common():
        worst = min((trial for trial in invalid if trial.flaw == flaw), key=lambda trial: trial.offered / trial.load)
        example = f" ({worst.offered:.0f} of {worst.load:.0f} packets/s at worst)" if flaw == _TOO_LITTLE else ""
        yield f"in {count} {flaw}{example}"


def _report(ends: Ends, state: Search, size: int, frame: int, grace_s: float) -> RateReport:
    lower = state.lower or 0.0
    there = state.trials.get(lower, [])
    through = [trial.load * (1 - trial.loss) for trial in there] or [0.0]
    return RateReport(
        source=ends.source.name,
        destination=ends.destination_name,
        address=str(ends.address),
        loss=state.goal.loss,
        size=size,
        frame_bytes=frame,
        lower_pps=lower,
        upper_pps=state.upper,
        conditional_pps=conditional_throughput(there, state.goal) if there else 0.0,
        least_pps=min(through),
        most_pps=max(through),
        trials=sum(map(len, state.trials.values())) + len(state.invalid),
        invalid=len(state.invalid),
        generator_limit_pps=state.generator_limit,
        flaws=tuple(_flaws(state.invalid)),
        there=len(there),
        grace_s=grace_s,
        on_the_way=tuple(obstacles(ends.source, ends.destination)),
    )


def assert_rate(a: Node | tuple[Node, Any], b: Target, *, at_least: str | float, **options: Any) -> RateReport:
    """Check the highest rate at which no more than a given part of the packets is lost.

    Args:
        a: the sending node.
        b: the receiving node.
        at_least: the rate, of layer 2.
        options: what `find_rate` takes: loss, at_most, size, trial, width, family.

    Raises:
        CheckFailed: packets are lost at less than that rate.
        Inconclusive: neither was shown: the generator, or the machine, is the limit.
        BadInput: an argument that cannot be used.
    """
    __tracebackhide__ = True
    demand_real_time("the rate", a, b)
    wanted_bps = rate_bps(at_least)
    options.setdefault("at_most", 1.25 * wanted_bps)
    report = replace(find_rate(a, b, **options), at_least_bps=wanted_bps)
    report.demand()
    return report
