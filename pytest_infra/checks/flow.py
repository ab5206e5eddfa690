"""`Flow`: what a traffic generator measured, whoever it was: bytes, packets, losses, CPU time, in one form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

__all__ = ["Flow", "cpu_times", "header_bytes", "merged"]

_ETHERNET_BYTES = 14
_IP_BYTES = {4: 20, 6: 40}
_TCP_BYTES, _TCP_TIMESTAMP_BYTES, _UDP_BYTES = 20, 12, 8


@dataclass(frozen=True)
class Flow:
    """A transfer from one node to another; of several streams, the sums."""

    payload_bytes: int
    """That arrived."""
    duration_s: float
    packets: int
    """That carried it: IP packets as they would be on a wire; in TCP with retransmissions."""
    offered_packets: int = 0
    """That were sent, with UDP."""
    retransmits: int = 0
    lost: int = 0
    """Packets that did not arrive, with UDP."""
    dropped: int = 0
    """Packets that arrived, but that the receiver was too slow to take, with UDP."""
    late: int = 0
    """Packets that arrived only when the time and a grace were over: a queue had held them. With UDP."""
    cpu_s: float = 0.0
    """CPU time of sender and receiver, the kernel's work for them included."""
    waited_s: float = 0.0
    """The longest that sender or receiver waited for a CPU."""
    held_back: float = 0.0
    """The fraction of the time in which sender or receiver, and not what is between them, set the pace."""
    mss: int = 0

    @property
    def payload_bps(self) -> float:
        """Payload in bits per second."""
        return 8 * self.payload_bytes / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def cpu_per_packet_s(self) -> float:
        """CPU time for each packet."""
        return self.cpu_s / self.packets if self.packets else 0.0

    def layer_bps(self, layer: str, header_bytes: int) -> float:
        """Bits per second with the headers of a layer: ``payload``, ``L3`` (IP packets) or ``L2`` (frames without FCS).

        Args:
            layer: which one.
            header_bytes: IP and transport header of one packet.
        """
        extra = {"payload": 0, "L3": header_bytes, "L2": header_bytes + _ETHERNET_BYTES}[layer]
        share = 1 + extra * self.packets / self.payload_bytes if self.payload_bytes else 1.0
        return self.payload_bps * share


def header_bytes(protocol: str, version: int, timestamps: bool = True) -> int:
    """Bytes of the IP and transport headers of a packet (RFC 791, RFC 8200, RFC 9293, RFC 7323, RFC 768)."""
    if protocol == "udp":
        return _IP_BYTES[version] + _UDP_BYTES
    return _IP_BYTES[version] + _TCP_BYTES + (_TCP_TIMESTAMP_BYTES if timestamps else 0)


def merged(flows: list[Flow]) -> Flow:
    """Several streams as one: sums, the longest times, the greatest fraction."""
    longest = ("duration_s", "waited_s", "held_back", "mss")
    values = {
        item.name: (max if item.name in longest else sum)(getattr(flow, item.name) for flow in flows)
        for item in fields(Flow)
    }
    return Flow(**values)


def cpu_times() -> Mapping[str, int]:
    """The machine's CPU time since it was started, in clock ticks: busy, all, and stolen by others (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    busy = user + nice + system + irq + softirq
    return {"busy": busy, "all": busy + idle + iowait + steal, "stolen": steal}
