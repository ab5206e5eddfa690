"""`measure_throughput`, `assert_throughput`: how much gets from one node to another, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ..core.emulation import demand_real_time
from ..core.errors import BadInput
from ..core.node import Node
from ..core.report import explain
from ..core.units import format_duration, format_rate, rate_bps
from .arguments import seconds
from .compare import CompareReport, compare
from .flow import Flow, cpu_times, header_bytes
from .generator import run_tcp, run_udp
from .iperf3 import find_iperf3, run_iperf3
from .obstacles import obstacles, remedy
from .quiet import measuring
from .target import Ends, Family, Target, choose_ends
from .verdict import Measured, Verdict

__all__ = ["Layer", "ThroughputReport", "assert_throughput", "measure_throughput"]

Layer = Literal["payload", "L3", "L2"]
"""Which bytes a rate counts: the payload of TCP or UDP, IP packets, or frames without preamble and check sequence."""

_HELD_BACK = 0.1
_TRIES = 3
_SIZE = 1400
_MOST_STREAMS = 64
_LONGEST_S = 600.0
_LARGEST_DATAGRAM = 65507
_IPERF3_LEAST_S = 1.0


@dataclass(frozen=True)
class ThroughputReport(Measured):
    """What got through."""

    kind: ClassVar[str] = "throughput"

    source: str
    destination: str
    address: str
    protocol: str
    streams: int
    generator: str
    """What made the traffic: ``iperf 3.12``, or ``built-in``."""
    flow: Flow
    payload_bps: float
    l3_bps: float
    l2_bps: float
    """Frames from the MAC addresses to the payload."""
    loss: float
    """The fraction of the datagrams that did not arrive, with UDP."""
    machine_busy: float
    """The fraction of the machine's CPU time that was used by anybody."""
    machine_stolen: float
    """The fraction that its host did not give it."""
    layer: Layer = "payload"
    at_least_bps: float | None = None
    at_most_bps: float | None = None
    on_the_way: tuple[str, ...] = ()
    """What the lab's links do to it."""
    comparison: CompareReport | None = None

    @property
    def rate_bps(self) -> float:
        """The rate of the layer that is judged."""
        return {"payload": self.payload_bps, "L3": self.l3_bps, "L2": self.l2_bps}[self.layer]

    @property
    def retransmits(self) -> int:
        """TCP segments that were sent again."""
        return self.flow.retransmits

    @property
    def cpu_per_packet_s(self) -> float:
        """CPU time of sender and receiver for each packet, the kernel's work for them included."""
        return self.flow.cpu_per_packet_s

    @property
    def verdict(self) -> Verdict:
        """Whether the rate is within its bounds; a low one proves nothing where the ends set the pace."""
        if self.comparison is not None:
            return self.comparison.verdict
        if self.at_most_bps is not None and self.rate_bps > self.at_most_bps:
            return "fail"
        if self.at_least_bps is not None and self.rate_bps < self.at_least_bps:
            return "inconclusive" if self.flow.held_back > _HELD_BACK else "fail"
        return "inconclusive" if self.at_most_bps is not None and self._nothing_proven else "pass"

    @property
    def _nothing_proven(self) -> bool:
        """Whether the network may let more through than it was seen to."""
        return self.flow.held_back > _HELD_BACK or not self.flow.payload_bytes

    def explain(self) -> str:
        """The rate, at every layer, what was wanted, and what may be the reason."""
        if self.comparison is not None:
            return self.comparison.explain()
        pair = f"{self.source} to {self.destination}"
        verdict = {
            "pass": "",
            "fail": f" is too {self._direction}",
            "inconclusive": f" is too {self._direction}, but the network may not be why"
            if self._too_low
            else ", but it cannot be told whether the network lets no more through",
        }[self.verdict]
        verdict = f"{pair}: {format_rate(self.rate_bps)} of {self.layer}{verdict}"
        rows = [("measured", self._measured()), ("wanted", self._wanted())]
        if self.verdict != "pass":
            rows += [("cause", "\n".join(self._causes())), ("next", self._next())]
        return explain(verdict, rows)

    @property
    def _too_low(self) -> bool:
        return self.at_least_bps is not None and self.rate_bps < self.at_least_bps

    @property
    def _direction(self) -> str:
        return "much" if self.at_most_bps is not None and self.rate_bps > self.at_most_bps else "little"

    def _measured(self) -> str:
        rates = f"{format_rate(self.payload_bps)} payload, {format_rate(self.l3_bps)} L3, {format_rate(self.l2_bps)} L2"
        how = f"{self.protocol}, {self.streams} stream{'' if self.streams == 1 else 's'}, {self.generator}"
        lines = [rates, f"in {format_duration(self.flow.duration_s)} by {how}"]
        if self.protocol == "tcp":
            lines.append(f"{self.retransmits} of {self.flow.packets} segments sent again")
        else:
            lines.append(f"{self.flow.lost} of {self.flow.offered_packets} datagrams lost")
        lines.append(
            f"CPU {format_duration(self.cpu_per_packet_s)} a packet; machine {self.machine_busy:.0%} busy, "
            f"{self.machine_stolen:.0%} stolen; the ends set the pace {self.flow.held_back:.0%} of the time"
        )
        return "\n".join(lines)

    def _wanted(self) -> str:
        bounds = [("at least", self.at_least_bps), ("at most", self.at_most_bps)]
        words = [f"{word} {format_rate(bound)}" for word, bound in bounds if bound is not None]
        return f"{' and '.join(words)} of {self.layer}" if words else ""

    def _causes(self) -> Iterator[str]:
        if self.verdict == "inconclusive" and not self.flow.payload_bytes:
            yield "nothing arrived: it is no limit that was seen"
            yield from self.on_the_way
            return
        if self.verdict == "inconclusive":
            share = f"{self.flow.held_back:.0%} of the time"
            yield f"sender or receiver, and not the network, set the pace {share}: the machine was too busy"
            return
        if self._direction == "much" and not any("rate " in text for text in self.on_the_way):
            yield "no link on the way has a rate"
        yield from self.on_the_way
        if self.retransmits > self.flow.packets / 1000:
            yield "packets are lost on the way: segments had to be sent again"
        if self.flow.lost:
            yield "packets are lost on the way"
        if self.flow.dropped:
            yield f"the receiver was too slow for {self.flow.dropped} datagrams"

    def _next(self) -> str:
        if self.verdict == "inconclusive" and not self.flow.payload_bytes:
            return "assert_reachable says why nothing arrives"
        if self.verdict == "inconclusive":
            return "measure on a quieter machine, or compare with a baseline: relative_to="
        if self._direction == "much":
            return "give a link of the way a rate: link.impair(rate=…)"
        if self.on_the_way:
            return remedy(self.on_the_way)
        return "look where packets wait or are lost: tc -s qdisc, ip -s link, nstat"


@dataclass(frozen=True)
class _Load:
    """How traffic is made."""

    protocol: str
    streams: int
    duration_s: float
    size: int
    rate_bps: float
    generator: str


def _load(
    protocol: str, streams: int, duration: str | float, size: int, rate: str | float | None, generator: str
) -> _Load:
    if protocol not in ("tcp", "udp"):
        raise BadInput(f"protocol {protocol!r} is not known; allowed are 'tcp' and 'udp'")
    if isinstance(streams, bool) or not isinstance(streams, int) or not 1 <= streams <= _MOST_STREAMS:
        raise BadInput(f"streams {streams!r} is not allowed; give a whole number from 1 to {_MOST_STREAMS}")
    if generator not in ("auto", "iperf3", "built-in"):
        raise BadInput(f"generator {generator!r} is not known; allowed are 'auto', 'iperf3' and 'built-in'")
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _LARGEST_DATAGRAM:
        raise BadInput(f"size {size!r} is not allowed; give 1 to {_LARGEST_DATAGRAM} bytes of payload")
    if rate is not None and protocol == "tcp":
        raise BadInput("rate is what UDP offers; TCP sends what it can: leave it out, or give protocol='udp'")
    duration_s = seconds("duration", duration)
    if duration_s > _LONGEST_S:
        raise BadInput(f"duration {duration!r} is not allowed; at most {format_duration(_LONGEST_S)} is")
    return _Load(protocol, streams, duration_s, size, 0.0 if rate is None else rate_bps(rate), generator)


def measure_throughput(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    protocol: Literal["tcp", "udp"] = "tcp",
    streams: int = 1,
    duration: str | float = "1 s",
    size: int = _SIZE,
    rate: str | float | None = None,
    family: Family | None = None,
    generator: Literal["auto", "iperf3", "built-in"] = "auto",
) -> ThroughputReport:
    """Send from `a` to `b` and report the rate at each layer, losses, CPU time; nothing is judged.

    One measurement at a time runs on the machine, over all test processes (`core.lock`).

    Args:
        a: the sending node, or the node and the address to send from.
        b: the receiving node, or one of its addresses.
        protocol: ``"tcp"`` or ``"udp"``.
        streams: how many connections or flows at once.
        duration: for how long.
        size: bytes of payload of each datagram, with UDP.
        rate: payload offered, with UDP; as much as can be sent by default.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.
        generator: ``"iperf3"``; ``"built-in"``, which needs nothing in the nodes; or ``"auto"``: iperf3 where both
            nodes have it and the measurement is at least a second long.

    Raises:
        BadInput: an argument that cannot be used.
        InfraError: the generator could not measure: no connection, for instance.
    """
    load = _load(protocol, streams, duration, size, rate, generator)
    ends = choose_ends(a, b, family)
    if ends.destination is None:
        raise BadInput(f"nothing can receive at {ends.address}: it is the address of no node of the lab")
    with measuring():
        version = _version(ends, load)
        before = cpu_times()
        flow = _run(ends, load, bool(version))
        spent = {name: value - before[name] for name, value in cpu_times().items()}
    return _report(ends, load, version or "built-in", flow, spent)


def _version(ends: Ends, load: _Load) -> str:
    assert ends.destination is not None
    if load.generator == "built-in" or (load.generator == "auto" and load.duration_s < _IPERF3_LEAST_S):
        return ""
    version = find_iperf3(ends.source, ends.destination)
    if load.generator == "iperf3" and not version:
        from ..core.programs import PROGRAMS

        PROGRAMS["iperf3"].demand()
        raise BadInput(f"{ends.source.name} or {ends.destination.name} has no iperf3; use generator='built-in'")
    return version


def _run(ends: Ends, load: _Load, with_iperf3: bool) -> Flow:
    from ..core.errors import InfraError, reason

    if with_iperf3:
        return run_iperf3(
            ends,
            protocol=load.protocol,
            streams=load.streams,
            duration_s=load.duration_s,
            size=load.size,
            rate_bps=load.rate_bps,
        )
    try:
        if load.protocol == "tcp":
            return run_tcp(ends, streams=load.streams, duration_s=load.duration_s)
        per_s = load.rate_bps / (8 * load.size)
        return run_udp(ends, streams=load.streams, duration_s=load.duration_s, size=load.size, per_s=per_s)
    except OSError as error:
        if isinstance(error, InfraError):
            raise
        what = f"{ends.source.name} has no connection to {ends.destination_name} ({ends.address})"
        raise InfraError(f"{what}: {reason(error)}; assert_reachable says why") from error


def _report(ends: Ends, load: _Load, generator: str, flow: Flow, spent: dict[str, int]) -> ThroughputReport:
    header = header_bytes(load.protocol, ends.address.version)
    return ThroughputReport(
        source=ends.source.name,
        destination=ends.destination_name,
        address=str(ends.address),
        protocol=load.protocol,
        streams=load.streams,
        generator=generator,
        flow=flow,
        payload_bps=flow.payload_bps,
        l3_bps=flow.layer_bps("L3", header),
        l2_bps=flow.layer_bps("L2", header),
        loss=flow.lost / flow.offered_packets if flow.offered_packets else 0.0,
        machine_busy=spent["busy"] / spent["all"] if spent["all"] else 0.0,
        machine_stolen=spent["stolen"] / spent["all"] if spent["all"] else 0.0,
        on_the_way=tuple(obstacles(ends.source, ends.destination)),
    )


def assert_throughput(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    at_least: str | float | None = None,
    at_most: str | float | None = None,
    relative_to: tuple[Any, Any] | Callable[[], Any] | None = None,
    layer: Layer = "payload",
    **load: Any,
) -> ThroughputReport:
    """Check how much gets from `a` to `b`.

    A rate that is too low on a busy machine proves nothing: it is measured up to three times, and is inconclusive when
    the generator had to wait for a CPU each time. Where no rate can be promised, compare with another pair of nodes,
    measured in turns: ``assert_throughput(a, b, relative_to=(c, d), at_least=0.9)``.

    Args:
        a: the sending node.
        b: the receiving node.
        at_least: the least rate, or with `relative_to` the least ratio to the other one.
        at_most: the greatest rate, or ratio.
        relative_to: another pair of nodes, or a function that measures.
        layer: what the bounds count: ``"payload"``, ``"L3"`` or ``"L2"``.
        load: what `measure_throughput` takes: protocol, streams, duration, size, rate, family, generator.

    Raises:
        CheckFailed: too little, or too much.
        Inconclusive: the machine is too busy to tell; or with `at_most`, nothing arrived.
        BadInput: an argument that cannot be used; no bound; UDP that offers no more than `at_most`.
    """
    __tracebackhide__ = True
    demand_real_time("throughput", a, b)
    if at_least is None and at_most is None:
        raise BadInput("at_least or at_most is wanted; measure_throughput measures without judging")
    if layer not in ("payload", "L3", "L2"):
        raise BadInput(f"layer {layer!r} is not known; allowed are 'payload', 'L3' and 'L2'")
    if relative_to is not None:
        report = _relative(a, b, relative_to, layer, at_least, at_most, load)
    else:
        low = None if at_least is None else rate_bps(at_least)
        high = None if at_most is None else rate_bps(at_most)
        _demand_enough(load, layer, high)
        for _ in range(_TRIES):
            measured = measure_throughput(a, b, **load)
            report = replace(measured, layer=layer, at_least_bps=low, at_most_bps=high)
            if report.verdict != "inconclusive":
                break
            if load.get("generator", "auto") == "auto":
                load["generator"] = "built-in"  # which knows who sets the pace
    report.demand()
    return report


def _demand_enough(load: dict[str, Any], layer: Layer, at_most_bps: float | None) -> None:
    """Refuse to offer so little that the network need not hold anything back."""
    if at_most_bps is None or load.get("rate") is None or load.get("protocol") != "udp":
        return
    size = load.get("size", _SIZE)
    whole = _load("udp", 1, 1.0, size, load["rate"], "auto")
    header = header_bytes("udp", 6 if load.get("family") == "ipv6" else 4)
    one = Flow(payload_bytes=size, duration_s=8 * size / whole.rate_bps, packets=1)
    if (offered := one.layer_bps(layer, header)) <= at_most_bps:
        what = f"rate {load['rate']!r} offers {format_rate(offered)} of {layer}"
        raise BadInput(
            f"{what}, not more than at_most, {format_rate(at_most_bps)}: whatever the network does, it passes"
        )


def _relative(
    a: Any, b: Any, other: Any, layer: Layer, at_least: Any, at_most: Any, load: dict[str, Any]
) -> ThroughputReport:
    for bound in (at_least, at_most):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float)):
            raise BadInput(f"with relative_to a bound is a ratio, such as 0.9; got {bound!r}")
    load = {"duration": "300 ms", "generator": "built-in", **load}
    changed: list[ThroughputReport] = []

    def measure() -> ThroughputReport:
        changed.append(replace(measure_throughput(a, b, **load), layer=layer))
        return changed[-1]

    def base() -> ThroughputReport:
        report: ThroughputReport = other() if callable(other) else measure_throughput(*other, **load)
        return replace(report, layer=layer)

    comparison = compare(base, measure, metric="rate_bps", at_least=at_least, at_most=at_most)
    return replace(changed[-1], comparison=comparison)
