"""Meters as exact models: srTCM (RFC 2697), trTCM (RFC 2698, RFC 4115) and Open vSwitch's drop meter.

All arithmetic is on whole numbers. The RFCs add one token at a time, so many times a second; how many have been
added until a time is a whole-number division, and no rounding error can build up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ..core.errors import BadInput
from ..core.units import rate_bps, size_bytes

__all__ = ["Arrival", "Colour", "OvsMeter", "Profile", "SrTcm", "TrTcm2698", "TrTcm4115"]

_BIT_NS = 8 * 10**9  # nanoseconds in which one bit per second brings one byte


class Colour(str, Enum):
    """How far a packet is within its profile."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"

    def __str__(self) -> str:
        return self.value


_SEVERITY = {Colour.GREEN: 0, Colour.YELLOW: 1, Colour.RED: 2}


@dataclass(frozen=True)
class Arrival:
    """A packet that a meter sees.

    Raises:
        BadInput: a time before the beginning, or no bytes.
    """

    at_ns: int
    """Nanoseconds since the meter was made, its buckets full."""
    size_bytes: int
    """What the profile counts: the RFCs count the IP packet, Open vSwitch the frame."""
    colour: Colour = Colour.GREEN
    """The colour that it has already, for a meter that is aware of it."""

    def __post_init__(self) -> None:
        if self.at_ns < 0 or self.size_bytes < 1:
            raise BadInput(f"{self}: a packet arrives at 0 ns or later and has at least one byte")


class Profile(Protocol):
    """What a meter was told; makes one, with full buckets, and says what it does to a sequence of packets."""

    def colours(self, trace: Iterable[Arrival]) -> tuple[Colour, ...]:
        """The colour of each packet.

        Raises:
            BadInput: a packet is earlier than the one before it.
        """


class _Buckets:
    """Tokens in two buckets, in bytes, and the time up to which they are known."""

    def __init__(self, committed: int, other: int) -> None:
        self.limits = committed, other
        self.tokens = [committed, other]
        self.at_ns = 0

    def pass_to(self, at_ns: int) -> int:
        """Move the time forward; the time before it is returned."""
        if at_ns < self.at_ns:
            raise BadInput(f"a packet at {at_ns} ns comes after one at {self.at_ns} ns; put them in order of time")
        before, self.at_ns = self.at_ns, at_ns
        return before

    def add(self, bucket: int, tokens: int) -> int:
        """Add tokens to a bucket, and return those that do not fit."""
        level = self.tokens[bucket] + tokens
        self.tokens[bucket] = min(level, self.limits[bucket])
        return level - self.tokens[bucket]


def _ticks(bps: float, before_ns: int, now_ns: int) -> int:
    """How many tokens of a byte come between two times at a rate in bits per second."""
    rate = int(bps)
    return now_ns * rate // _BIT_NS - before_ns * rate // _BIT_NS


def _check(name: str, bursts: dict[str, int], rates: dict[str, float], packet_bytes: int) -> None:
    for what, rate in rates.items():
        if rate != int(rate):
            raise BadInput(f"{name}: {what} is {rate} bit/s; a whole number of bits per second is wanted")
    if not any(bursts.values()):
        raise BadInput(f"{name}: {' and '.join(bursts)} are 0; at least one must be larger")
    for what, burst in bursts.items():
        if 0 < burst < packet_bytes:
            raise BadInput(
                f"{name}: {what} is {burst} bytes, less than a packet of {packet_bytes}, which could never pass; "
                f"give a larger {what}, or the size of the largest packet as packet_bytes"
            )


@dataclass(frozen=True)
class SrTcm:
    """A single rate three colour marker (RFC 2697).

    Args:
        cir: the committed information rate of IP packets: ``"1 Mbit/s"``.
        cbs: the committed burst size, bytes or ``"10 kB"``.
        ebs: the excess burst size.
        colour_aware: whether a packet's present colour counts.
        packet_bytes: the largest packet that will come.

    Raises:
        BadInput: a rate or size that is none, both bursts 0, or one that is smaller than a packet.
    """

    cir: str | float
    cbs: str | int
    ebs: str | int
    colour_aware: bool = False
    packet_bytes: int = 1500

    def __post_init__(self) -> None:
        bursts = {"cbs": size_bytes(self.cbs), "ebs": size_bytes(self.ebs)}
        _check("srTCM", bursts, {"cir": rate_bps(self.cir)}, self.packet_bytes)

    def colours(self, trace: Iterable[Arrival]) -> tuple[Colour, ...]:
        """The colour of each packet (RFC 2697, section 3).

        Raises:
            BadInput: a packet is earlier than the one before it.
        """
        cir, buckets = rate_bps(self.cir), _Buckets(size_bytes(self.cbs), size_bytes(self.ebs))
        return tuple(self._mark(buckets, cir, packet) for packet in trace)

    def _mark(self, buckets: _Buckets, cir: float, packet: Arrival) -> Colour:
        before = buckets.pass_to(packet.at_ns)
        buckets.add(1, buckets.add(0, _ticks(cir, before, packet.at_ns)))  # what the first cannot hold
        colour = packet.colour if self.colour_aware else Colour.GREEN
        for bucket, result in enumerate((Colour.GREEN, Colour.YELLOW)):
            if _SEVERITY[colour] <= bucket and buckets.tokens[bucket] >= packet.size_bytes:
                buckets.tokens[bucket] -= packet.size_bytes
                return result
        return Colour.RED


@dataclass(frozen=True)
class TrTcm2698:
    """A two rate three colour marker with a peak rate (RFC 2698): a packet within the committed rate uses both buckets.

    Args:
        cir: the committed information rate of IP packets.
        cbs: the committed burst size.
        pir: the peak information rate, at least the committed one.
        pbs: the peak burst size.
        colour_aware: whether a packet's present colour counts.
        packet_bytes: the largest packet that will come.

    Raises:
        BadInput: a rate or size that is none, a peak below the committed rate, or a burst smaller than a packet.
    """

    cir: str | float
    cbs: str | int
    pir: str | float
    pbs: str | int
    colour_aware: bool = False
    packet_bytes: int = 1500

    def __post_init__(self) -> None:
        bursts, rates = {"cbs": size_bytes(self.cbs), "pbs": size_bytes(self.pbs)}, {}
        rates = {"cir": rate_bps(self.cir), "pir": rate_bps(self.pir)}
        _check("trTCM (RFC 2698)", bursts, rates, self.packet_bytes)
        for what, burst in bursts.items():
            if burst == 0:
                raise BadInput(f"trTCM (RFC 2698): {what} is 0; both bursts must be larger")
        if rates["pir"] < rates["cir"]:
            raise BadInput(f"trTCM (RFC 2698): pir {self.pir} is below cir {self.cir}; it must be at least as high")

    def colours(self, trace: Iterable[Arrival]) -> tuple[Colour, ...]:
        """The colour of each packet (RFC 2698, section 3).

        Raises:
            BadInput: a packet is earlier than the one before it.
        """
        rates, buckets = (rate_bps(self.cir), rate_bps(self.pir)), _Buckets(size_bytes(self.cbs), size_bytes(self.pbs))
        return tuple(self._mark(buckets, rates, packet) for packet in trace)

    def _mark(self, buckets: _Buckets, rates: tuple[float, float], packet: Arrival) -> Colour:
        before = buckets.pass_to(packet.at_ns)
        for bucket, rate in enumerate(rates):
            buckets.add(bucket, _ticks(rate, before, packet.at_ns))
        colour, tokens = packet.colour if self.colour_aware else Colour.GREEN, buckets.tokens
        if colour is Colour.RED or tokens[1] < packet.size_bytes:
            return Colour.RED
        tokens[1] -= packet.size_bytes
        if colour is Colour.YELLOW or tokens[0] < packet.size_bytes:
            return Colour.YELLOW
        tokens[0] -= packet.size_bytes
        return Colour.GREEN


@dataclass(frozen=True)
class TrTcm4115:
    """A two rate three colour marker with an excess rate (RFC 4115): the two buckets know nothing of each other.

    The RFC asks for more tokens than the packet has bytes, not for as many.

    Args:
        cir: the committed information rate.
        cbs: the committed burst size.
        eir: the excess information rate.
        ebs: the excess burst size.
        colour_aware: whether a packet's present colour counts.
        packet_bytes: the largest packet that will come.

    Raises:
        BadInput: a rate or size that is none, or a burst smaller than a packet.
    """

    cir: str | float
    cbs: str | int
    eir: str | float
    ebs: str | int
    colour_aware: bool = False
    packet_bytes: int = 1500

    def __post_init__(self) -> None:
        bursts = {"cbs": size_bytes(self.cbs), "ebs": size_bytes(self.ebs)}
        rates = {"cir": rate_bps(self.cir), "eir": rate_bps(self.eir)}
        _check("trTCM (RFC 4115)", bursts, rates, self.packet_bytes)

    def colours(self, trace: Iterable[Arrival]) -> tuple[Colour, ...]:
        """The colour of each packet (RFC 4115, section 3).

        Raises:
            BadInput: a packet is earlier than the one before it.
        """
        rates, buckets = (rate_bps(self.cir), rate_bps(self.eir)), _Buckets(size_bytes(self.cbs), size_bytes(self.ebs))
        return tuple(self._mark(buckets, rates, packet) for packet in trace)

    def _mark(self, buckets: _Buckets, rates: tuple[float, float], packet: Arrival) -> Colour:
        before = buckets.pass_to(packet.at_ns)
        for bucket, rate in enumerate(rates):
            buckets.add(bucket, _ticks(rate, before, packet.at_ns))
        colour = packet.colour if self.colour_aware else Colour.GREEN
        for bucket, result in enumerate((Colour.GREEN, Colour.YELLOW)):
            if _SEVERITY[colour] <= bucket and buckets.tokens[bucket] > packet.size_bytes:
                buckets.tokens[bucket] -= packet.size_bytes
                return result
        return Colour.RED


@dataclass(frozen=True)
class OvsMeter:
    """Open vSwitch's drop meter in its userspace datapath: one bucket, filled once a millisecond (ovs-ofctl(8)).

    Green packets pass, red ones are dropped.

    Args:
        rate: packets a second (``unit="pktps"``), or kilobits a second of frames (``unit="kbps"``).
        burst: packets, or kilobits; 0 for as much as comes in a second.
        unit: ``"pktps"`` or ``"kbps"``.

    Raises:
        BadInput: a rate or burst that is no whole number, or another unit.
    """

    rate: int
    burst: int
    unit: str = "pktps"

    def __post_init__(self) -> None:
        if self.unit not in ("pktps", "kbps"):
            raise BadInput(f"meter: unit is {self.unit!r}; allowed are 'pktps' and 'kbps'")
        for what, number, least in (("rate", self.rate, 1), ("burst", self.burst, 0)):
            if not isinstance(number, int) or not least <= number < 2**32:
                raise BadInput(f"meter: {what} is {number!r}; allowed are whole numbers from {least} to {2**32 - 1}")

    @property
    def flow_arguments(self) -> str:
        """The meter as ``ovs-ofctl add-meter`` takes it, without its number."""
        flag, burst = (",burst", f",burst_size={self.burst}") if self.burst else ("", "")
        return f"{self.unit}{flag},stats,band=type=drop,rate={self.rate}{burst}"

    def colours(self, trace: Iterable[Arrival]) -> tuple[Colour, ...]:
        """The colour of each packet, when they come one by one.

        Raises:
            BadInput: a packet is earlier than the one before it.
        """
        limit = (self.burst or self.rate) * 1000
        bucket, clock, found = limit, _Buckets(0, 0), []
        for packet in trace:
            before = clock.pass_to(packet.at_ns)
            bucket = min(limit, bucket + (packet.at_ns // 10**6 - before // 10**6) * self.rate)
            volume = 1000 if self.unit == "pktps" else packet.size_bytes * 8
            passes = bucket >= volume
            bucket -= volume if passes else 0
            found.append(Colour.GREEN if passes else Colour.RED)
        return tuple(found)
