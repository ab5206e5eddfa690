"""`assert_metered`: a meter marks each packet exactly as its profile says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from ..core.errors import BadInput
from ..core.report import Report, explain
from ..packet.meter import Arrival, Colour

__all__ = ["MeterDevice", "MeterReport", "assert_metered"]

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
