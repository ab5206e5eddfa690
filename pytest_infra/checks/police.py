"""`assert_policed`: a policer keeps to its rate and burst in real time; `offer` sends it more than it may let pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ..core.errors import BadInput
from ..core.report import Report, explain
from ..core.units import duration_s, format_duration, format_rate, rate_bps, size_bytes
from ..packet.packet import Packet
from ..packet.probe import NONCE_BYTES, numbered
from ..packet.probed import Probed
from ..packet.wire import decode, encode

__all__ = ["Passage", "Passages", "PoliceReport", "assert_policed", "offer"]

_NS = 10**9
_ETHERNET = 14
_UNIT = 8 * _NS  # of a bucket's level: bytes, in bits and nanoseconds, so that nothing is rounded
_MOST = 8000  # frames of one offer: the captures hold as many


@dataclass(frozen=True)
class Passage:
    """A packet that was sent to a policer in real time, and whether it came through."""

    at_ns: int
    """When it was sent."""
    size_bytes: int
    passed: bool
    packet: Packet | None = None
    """The packet as it came out, where that is known."""


@dataclass(frozen=True)
class Passages:
    """What was offered to a policer, and how well the times are known."""

    items: tuple[Passage, ...]
    clock_error_s: float
    """The longest time between sending a packet and seeing it come out: the policer saw it in between."""

    def where(self, passed: Callable[[Packet], bool], beside: Passages | None = None) -> Passages:
        """The same with another meaning of passing: such as having got a colour.

        Args:
            passed: whether a packet that came out counts as passed.
            beside: what another bucket got first; what passed there was not offered to this one.
        """
        taken = [item.passed for item in beside.items] if beside else [False] * len(self.items)
        items = [
            replace(item, passed=item.packet is not None and passed(item.packet))
            for item, gone in zip(self.items, taken, strict=True)
            if not gone
        ]
        return replace(self, items=tuple(items))


def offer(
    device: Probed,
    packet: Packet | Sequence[Packet],
    *,
    rate: str | float,
    duration: str | float = "500 ms",
    size: int = 1000,
    header_bytes: int = _ETHERNET,
) -> Passages:
    """Send packets at a steady rate through a device that polices them, and see which come out.

    Args:
        device: the device, asked by packets.
        packet: what is sent, again and again; several in turn, all by one port.
        rate: how fast: more than the policer lets pass.
        duration: for how long.
        size: bytes of each frame, without its check sequence.
        header_bytes: how much of a frame the policer does not count: 14 for one that counts what Ethernet carries.

    Raises:
        BadInput: a frame that is too short for the packet, or too many frames.
        SentinelLost: the device does not deliver the sentinel.
    """
    packets = [packet] if isinstance(packet, Packet) else list(packet)
    for one in packets:
        if size < (least := _smallest(one)):
            raise BadInput(f"size is {size}; {one} has at least {least} bytes with a probe's number")
    whole = [replace(one, payload=bytes(size - _smallest(one))) for one in packets]
    gap_ns = int(size * 8 * _NS / rate_bps(rate))
    count = int(duration_s(duration) * _NS) // gap_ns
    if not 2 <= count <= _MOST:
        raise BadInput(f"{count} frames would be sent; from 2 to {_MOST} can be: change rate, duration or size")
    frames = [(place * gap_ns, numbered(whole[place % len(whole)], place)) for place in range(count)]
    device.start()
    timed = device.bench.send_paced(packets[0].in_port, frames)
    errors = [one.arrived_ns - one.sent_ns for one in timed if one.arrived_ns is not None]
    items = [
        Passage(one.sent_ns, size - header_bytes, one.frame is not None, decode(one.frame) if one.frame else None)
        for one in timed
    ]
    return Passages(tuple(items), max(errors, default=0) / _NS)


def _smallest(packet: Packet) -> int:
    return len(encode(replace(packet, payload=b""), bytes(60))) - 60 + NONCE_BYTES


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
    passages: Passages | Sequence[Passage],
    *,
    rate: str | float,
    burst: str | int,
    excess: tuple[str | float, str | int] | None = None,
    clock_error_s: float = 0.001,
    tick: str | float = 0,
) -> PoliceReport:
    """Check a policer in real time: never more than burst + rate · time in any interval, and no less than it owes.

    The policer's bucket must be full when it begins: leave it alone before, for as long as it takes to fill it. The
    bounds follow from the rate, the burst and how well the times are known; no percentage is allowed for.

    Args:
        passages: what `offer` returned; or what was sent, in order of time, and whether it passed.
        rate: the policer's rate.
        burst: its burst in bytes.
        excess: rate and burst of a second bucket, which gets what the first one does not let pass (RFC 4115, where
            green and yellow pass). One larger bucket would not do: what comes into the second one while it is full is
            lost, also while the first one pays.
        clock_error_s: how far the time at which a packet was sent may be from when the policer saw it; `offer` has
            measured it.
        tick: how coarse the policer's own clock is: ``"1 ms"`` for a meter of Open vSwitch's userspace datapath, which
            counts in milliseconds (lib/dpif-netdev.c). An interval may seem longer to it by as much.

    Raises:
        CheckFailed: too much passed in some interval, or too little in all.
        BadInput: nothing was sent, or more than fits could not have been noticed.
    """
    __tracebackhide__ = True
    if isinstance(passages, Passages):
        clock_error_s, passages = passages.clock_error_s, passages.items
    if not passages:
        raise BadInput("nothing was sent, which proves nothing")
    span_ns = passages[-1].at_ns - passages[0].at_ns
    uncertain_s = 2 * clock_error_s + duration_s(tick)
    buckets = [_Bucket(*pair, uncertain_s) for pair in ((rate, burst), *([excess] if excess else []))]
    bps, limit, slack = (sum(values) for values in zip(*((b.bps, b.limit, b.slack) for b in buckets), strict=True))
    offered = sum(item.size_bytes for item in passages)
    owed = limit + span_ns * bps // (8 * _NS)
    if offered <= owed + slack:
        raise BadInput(f"{offered} bytes were sent, but the policer may let {owed} through: send more, or faster")
    report = PoliceReport(
        rate_bps=bps,
        burst_bytes=limit,
        clock_error_s=clock_error_s,
        offered_bytes=offered,
        passed_bytes=sum(item.size_bytes for item in passages if item.passed),
        duration_s=span_ns / _NS,
        excess_bytes=_most(passages, bps) - limit - slack,
        least_bytes=max(0, _least(passages, buckets)),
    )
    report.demand()
    return report


class _Bucket:
    """An exact token bucket, and what an error of the clock may cost: that much each time it may have run over."""

    def __init__(self, rate: str | float, burst: str | int, uncertain_s: float) -> None:
        self.bps, self.limit = int(rate_bps(rate)), size_bytes(burst)
        self.slack = int(uncertain_s * self.bps / 8)
        self._level = self.limit * _UNIT
        self._overfull, self.overflows = True, 1

    def fill(self, gap_ns: int) -> None:
        self._level = min(self._level + gap_ns * self.bps, self.limit * _UNIT)
        if gap_ns and not self._overfull and self._level >= (self.limit - self.slack) * _UNIT:
            self._overfull = True
            self.overflows += 1

    def take(self, size_bytes: int) -> bool:
        if self._level < size_bytes * _UNIT:
            return False
        self._level -= size_bytes * _UNIT
        self._overfull = False
        return True


def _least(passages: Sequence[Passage], buckets: Sequence[_Bucket]) -> int:
    """What the buckets let pass at least, less what the clock's error can cost and a packet's rest in each."""
    passed, before_ns = 0, passages[0].at_ns
    for item in passages:
        for bucket in buckets:
            bucket.fill(item.at_ns - before_ns)
        before_ns = item.at_ns
        passed += item.size_bytes * any(bucket.take(item.size_bytes) for bucket in buckets)
    rests = (1 + len(buckets)) * max(item.size_bytes for item in passages)
    return passed - sum(bucket.overflows * bucket.slack for bucket in buckets) - rests


def _most(passages: Sequence[Passage], bps: int) -> int:
    """The most that passed in any interval beyond what the rate brought in it: a bucket that drains at the rate."""
    level = most = 0  # in bits and nanoseconds, so that nothing is rounded on the way
    before_ns = passages[0].at_ns
    for item in passages:
        if item.passed:
            level = max(0, level - (item.at_ns - before_ns) * bps) + item.size_bytes * 8 * _NS
            before_ns = item.at_ns
            most = max(most, level)
    return most // (8 * _NS)
