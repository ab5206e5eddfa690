"""`measure_packet_rate`: how many packets a DPDK process moves, and what each costs in CPU time and in cycles."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.report import Report, explain
from ..core.units import duration_s, format_duration
from ..core.wait import until

__all__ = ["PacketRateReport", "measure_packet_rate"]

_LONGEST_S = 60.0
_CYCLES = re.compile(r"total cycles=(\d+) / total \w+ packets=(\d+)\) at (\d+) MHz", re.I)


@dataclass(frozen=True)
class PacketRateReport(Report):
    """What a DPDK process moved in a while: packets sent, whatever their size."""

    kind: ClassVar[str] = "packet-rate"

    node: str
    packets: int
    duration_s: float
    cpu_s: float
    """CPU time of all its threads; a thread that polls has all of its core's, whether packets come or not."""
    cycles: int | None = None
    """Cycles of the time stamp counter spent on bursts that had packets, as testpmd counts them."""
    clock_hz: int | None = None

    @property
    def packets_per_s(self) -> float:
        """Packets sent per second."""
        return self.packets / self.duration_s

    @property
    def cpu_per_packet_s(self) -> float:
        """CPU time for each packet sent, polling in vain included."""
        return self.cpu_s / self.packets if self.packets else float("inf")

    @property
    def cycles_per_packet(self) -> float | None:
        """Cycles for each packet, polling in vain not included; None where the application does not count them."""
        return self.cycles / self.packets if self.cycles and self.packets else None

    def explain(self) -> str:
        """The rate, and the price of a packet."""
        price = f"{format_duration(self.cpu_per_packet_s)} of CPU time each" if self.packets else "no packet"
        if self.cycles_per_packet is not None and self.clock_hz:
            price += f", {self.cycles_per_packet:.0f} cycles at {self.clock_hz / 1e9:.1f} GHz"
        measured = f"{self.packets} packets in {format_duration(self.duration_s)}"
        verdict = f"{self.node} moves {self.packets_per_s / 1e6:.3f} million packets per second"
        return explain(verdict, [("measured", f"{measured}\n{price}")])


def measure_packet_rate(node: Any, *, lasting: str | float = "200 ms") -> PacketRateReport:
    """Measure how many packets a DPDK process sends, and what each costs.

    A testpmd that does not forward is told to, for as long as it is measured; so two of them can be compared on the
    same core, in turns (`compare`).

    Args:
        node: a DPDK process, as ``lab.dpdk()`` makes it.
        lasting: for how long, at most a minute.

    Raises:
        BadInput: not a DPDK process, or a time that cannot be.
        TelemetryError: the process has ended.
    """
    wanted_s = duration_s(lasting)
    if not 0 < wanted_s <= _LONGEST_S:
        raise BadInput(f"lasting={lasting!r} is not allowed; more than 0 and at most a minute")
    if not hasattr(node, "process") or not hasattr(node, "statistics"):
        raise BadInput(f"{node!r} is no DPDK process; lab.dpdk() makes one")
    node.statistics()  # it is up
    has_console, was_forwarding = node.process.console is not None, node.forwarding
    if has_console and not was_forwarding:
        node.start_forwarding()
    try:
        return _measure(node, wanted_s, has_console)
    finally:
        if has_console and not was_forwarding and node.running:
            node.stop_forwarding()


def _measure(node: Any, wanted_s: float, has_console: bool) -> PacketRateReport:
    if has_console:
        node.console("clear fwd stats all")
    sent, cpu_s, began_s = node.statistics().sent, node.process.cpu_s(), time.monotonic()
    until(lambda: time.monotonic() - began_s >= wanted_s, within_s=wanted_s + 1, what="the time is over")
    sent_now, cpu_now_s, took_s = node.statistics().sent, node.process.cpu_s(), time.monotonic() - began_s
    counted = _CYCLES.search(node.console("show fwd stats all")) if has_console else None
    packets = sent_now - sent
    if counted is None or not int(counted[2]):
        return PacketRateReport(node.name, packets, took_s, cpu_now_s - cpu_s)
    cycles = round(int(counted[1]) / int(counted[2]) * packets)  # testpmd's own packets end at its own time
    return PacketRateReport(node.name, packets, took_s, cpu_now_s - cpu_s, cycles, int(counted[3]) * 10**6)
