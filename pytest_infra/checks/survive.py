"""`assert_survives`: a device neither forwards malformed frames nor dies of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar

from ..core.errors import BadInput
from ..core.report import Report, explain
from ..packet.packet import Packet
from ..packet.probe import SentinelLost
from ..packet.probed import Probed
from ..packet.spoilt import FAULTS, Malformed, spoil

__all__ = ["Leak", "SurviveReport", "assert_survives"]

_SOURCE = "02:00:00:00:0b:ad"  # so that what comes out is told from other traffic
_SHOWN = 4


@dataclass(frozen=True)
class Leak:
    """A malformed frame that came out of a device."""

    fault: str
    port: str
    frame: str
    """In hexadecimal."""


@dataclass(frozen=True)
class SurviveReport(Report):
    """What a device did with malformed frames."""

    kind: ClassVar[str] = "survive"

    device: str
    frames: int
    leaks: tuple[Leak, ...]
    died_of: str
    """The fault after which it forwarded nothing any more; empty where it lives."""
    last: str
    """The last frames that were sent, in hexadecimal."""

    @property
    def ok(self) -> bool:
        """Whether it lives and forwarded nothing."""
        return not self.leaks and not self.died_of

    def explain(self) -> str:
        """What it forwarded, or what it died of."""
        if self.died_of:
            rows = [("measured", f"no frame comes through any more after: {self.died_of}"), ("frame", self.last)]
            return explain(f"{self.device} stopped forwarding after a malformed frame", rows)
        if self.ok:
            return f"{self.device} forwarded none of {self.frames} malformed frames, and still forwards others"
        faults = dict.fromkeys(leak.fault for leak in self.leaks)
        rows = [
            ("measured", "\n".join(f"{leak.fault}: came out of {leak.port}" for leak in self.leaks[:_SHOWN])),
            ("wanted", f"nothing of {self.frames} malformed frames comes out"),
            ("frame", self.leaks[0].frame),
            ("next", "where that is right for the device, list the fault in may_forward"),
        ]
        return explain(f"{self.device} forwards malformed frames: {', '.join(faults)}", rows)


def assert_survives(
    device: Probed, packet: Packet, *, may_forward: Collection[str] = (), variants: int = 8
) -> SurviveReport:
    """Check that a device forwards no malformed frame, and still forwards others afterwards.

    Args:
        device: the device, asked by packets.
        packet: what it would forward if it were whole: IPv4 with UDP, without a VLAN tag.
        may_forward: the faults that this device need not look for, such as ``"bad IPv4 checksum"`` for a switch.
        variants: how many frames for each fault.

    Raises:
        CheckFailed: it forwarded one, or it forwards nothing any more.
        BadInput: an unknown fault, or a packet that it does not forward when it is whole.
    """
    __tracebackhide__ = True
    if unknown := set(may_forward) - set(FAULTS):
        raise BadInput(f"no fault {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    whole = replace(packet, eth_src=_SOURCE)
    if device.classify_all([whole])[0].dropped:
        raise BadInput(f"{device.name} drops {whole} although it is whole, so nothing would be proven")
    leaks: list[Leak] = []
    sent, died_of, last = 0, "", ""
    for fault in FAULTS:
        for item in dict.fromkeys(spoil(whole, fault, number) for number in range(variants)):
            sent += len(item.frames)
            try:
                found = _leaks(device, packet.in_port, item)
                leaks += [] if fault in may_forward else found
            except SentinelLost:
                died_of, last = fault, "\n".join(frame.hex() for frame in item.frames)
                break
        if died_of:
            break
    report = SurviveReport(device.name, sent, tuple(leaks), died_of, last)
    report.demand()
    return report


def _leaks(device: Probed, port: str, item: Malformed) -> list[Leak]:
    return [Leak(item.fault, out, frame.hex()) for out, frame in device.bench.send_raw(port, item.frames)]
