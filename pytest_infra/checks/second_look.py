"""A second look at a packet that went the wrong way: it is sent once more, and what moves is written down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..core.errors import InfraError
from ..core.evidence import Artifact
from ..net.frame import Frame
from ..net.pcapng import pcapng
from ..packet.classifier import Verdict
from ..packet.device import Judge
from ..packet.packet import Packet
from ..packet.probed import Probed
from ..packet.wire import encode
from .drop_reason import DropReasons

__all__ = ["SecondLook", "second_look"]

_PCAP = "packet.pcapng"
_PLENTY = 12  # lines of a trace


@dataclass(frozen=True)
class SecondLook:
    """What else there is to say about a packet and a device."""

    evidence: str
    """The device's own account of its verdict."""
    counters: str = ""
    """The rules whose counters moved when the packet was sent again."""
    kernel: str = ""
    """Why the kernel dropped it, in its own words."""
    reproduce: str = ""
    """One line that does it again."""
    frames: tuple[Frame, ...] = field(default=(), repr=False)

    def rows(self) -> list[tuple[str, str]]:
        """The rows for `core.report.explain`."""
        lines = self.evidence.strip().splitlines()
        more = [f"… {len(lines) - _PLENTY} more lines"] if len(lines) > _PLENTY else []
        return [
            ("counters", self.counters),
            ("kernel", self.kernel),
            ("trace", "\n".join(lines[:_PLENTY] + more)),
            ("reproduce", self.reproduce),
            ("pcap", f"{_PCAP}, with the evidence" if self.frames else ""),
        ]

    def artifacts(self) -> Iterator[Artifact]:
        """The frames that went in and came out, as a capture."""
        if self.frames:
            yield Artifact(_PCAP, pcapng(self.frames))


def second_look(device: Judge, packet: Packet, verdict: Verdict) -> SecondLook:
    """Look again, without raising: it must not hide the failure that it explains."""
    sent = _frame(packet.in_port, encode(packet), outgoing=True)
    reproduce = getattr(device, "reproduce", lambda one: f"{device.name}: classify_all([{one!r}])")(packet)
    if not isinstance(device, Probed):
        return SecondLook(verdict.evidence, reproduce=reproduce, frames=(sent,))
    try:
        with DropReasons() as dropped:
            again = device.send_again(packet)
            reasons = list(dict.fromkeys(dropped.stop()))
    except (InfraError, OSError) as error:
        return SecondLook(verdict.evidence, f"not seen: {error}", reproduce=reproduce, frames=(sent,))
    moved = ", ".join(f"{name!r} +{count}" for name, count in again.moved.items())
    counters = moved or ("none of any rule moved" if again.counts else "")
    kernel = f"dropped it: {', '.join(reasons)} (skb:kfree_skb)" if reasons else ""
    came = (_frame(port, data, outgoing=False) for port, data in again.fate.arrivals)
    return SecondLook(verdict.evidence, counters, kernel, reproduce, (sent, *came))


def _frame(port: str, data: bytes, *, outgoing: bool) -> Frame:
    return Frame(time.time_ns(), port or "device", outgoing, data, len(data))
