"""Checks of DPDK processes: what their ports moved, and what they lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

from ..core.errors import BadInput, InfraError, WaitTimeout
from ..core.report import Report, explain
from ..core.units import duration_s, format_duration
from ..core.wait import until
from ..dpdk.faults import SUBJECTS, Fault
from ..dpdk.telemetry import PortStatistics, Statistics

__all__ = ["DpdkProcessNode", "ForwardingReport", "assert_forwarded", "assert_no_drops", "measure_forwarding"]


@runtime_checkable
class DpdkProcessNode(Protocol):
    """A node that is a DPDK process."""

    name: str

    def statistics(self) -> Statistics:
        """The counters and states of all ports, now."""

    def faults(self, before: Statistics | None = None) -> list[Fault]:
        """What is wrong with it; counters count from `before`, or from the beginning."""


@dataclass(frozen=True)
class ForwardingReport(Report):
    """What the ports of a DPDK process moved between two looks."""

    kind: ClassVar[str] = "forwarding"

    node: str
    ports: tuple[PortStatistics, ...]
    """What came to each port's counters; empty where the process did not answer."""
    faults: tuple[Fault, ...] = ()
    wanted: str = ""
    least_sent: int = 0
    into: int | None = None
    no_loss: bool = False
    all_sent: bool = False
    waited_s: float = 0.0

    @property
    def received(self) -> int:
        """Packets received by all ports."""
        return sum(port.rx_packets for port in self.ports)

    @property
    def sent(self) -> int:
        """Packets sent by the port in question, or by all."""
        return sum(port.tx_packets for port in self.ports if self.into in (None, port.number))

    @property
    def lost(self) -> int:
        """Packets that ports say they lost."""
        return Statistics(self.ports).lost

    @property
    def kept(self) -> int:
        """Packets that were received and not sent, by any port."""
        return max(0, self.received - sum(port.tx_packets for port in self.ports))

    @property
    def ok(self) -> bool:
        """Whether enough was sent and, where wanted, nothing was lost or kept."""
        if not self.ports or (self.no_loss and self.lost) or (self.all_sent and self.kept):
            return False
        return self.sent >= self.least_sent

    def _verdict(self) -> str:
        if not self.ports:
            return f"{self.node} does not forward: its process does not answer"
        if self.no_loss and self.lost:
            return f"{self.node} lost {self.lost} packet{'s' * (self.lost != 1)}"
        if self.all_sent and self.kept:
            sent = self.received - self.kept
            return f"{self.node} received {self.received} packets and sent {sent}: {self.kept} are gone"
        where = "" if self.into is None else f" by port {self.into}"
        if self.sent >= self.least_sent:
            return f"{self.node} sent {self.sent} packets{where}"
        return f"{self.node} sent {self.sent} packets{where}, not {self.least_sent}"

    def _cause(self) -> tuple[str, str]:
        if self.faults:
            fault = self.faults[0]
            return fault.cause, fault.next
        if not self.received:
            return "nothing came to any of its ports", "look at who sends: addresses, carrier, a capture of its link"
        if not self.kept and self.into is None:
            return (
                "as many packets were sent as were received: fewer came than were wanted",
                "look at who sends: how many it sent, a capture of its link",
            )
        if self.sent < self.least_sent or self.all_sent:
            return (
                "the application took packets in and did not send them: that is its own decision",
                "look at what it does with them: a capture of its links, its own statistics",
            )
        return "", ""

    def explain(self) -> str:
        """The verdict, each port's counters, the cause."""
        cause, advice = ("", "") if self.ok else self._cause()
        kinds = [fault.kind for fault in self.faults]
        fine = [subject for kind, subject in SUBJECTS.items() if not any(name.startswith(kind) for name in kinds)]
        measured = [_line(port) for port in self.ports] or ["no counters"]
        rows = [
            ("measured", "\n".join(measured)),
            ("wanted", f"{self.wanted}, within {format_duration(self.waited_s)}" if self.waited_s else self.wanted),
            ("cause", cause),
            ("ruled out", "" if self.ok or not self.ports else ", ".join(fine)),
            ("next", advice),
        ]
        return explain(self._verdict(), rows)


def _line(port: PortStatistics) -> str:
    losses = {
        "missed": port.rx_missed, "receive errors": port.rx_errors, "send errors": port.tx_errors,
        "without buffer": port.rx_no_buffers,
    }  # fmt: skip
    told = [f"{count} {name}" for name, count in losses.items() if count]
    moved = f"received {port.rx_packets}, sent {port.tx_packets}"
    return f"port {port.number} ({port.device}): {', '.join([moved, *told])}"


def _look(node: DpdkProcessNode, since: Statistics | None) -> ForwardingReport:
    if not isinstance(node, DpdkProcessNode):
        raise BadInput(f"{node!r} is no DPDK process; lab.dpdk() makes one")
    try:
        now = node.statistics()
    except InfraError:
        return ForwardingReport(node.name, (), tuple(node.faults(since)))
    return ForwardingReport(node.name, (now.since(since) if since else now).ports, tuple(node.faults(since)))


def measure_forwarding(node: DpdkProcessNode, *, since: Statistics | None = None) -> ForwardingReport:
    """What the ports of a DPDK process have moved and lost.

    Args:
        node: the process.
        since: what ``node.statistics()`` was before; the beginning by default.
    """
    return _look(node, since)


def _settle(
    node: DpdkProcessNode, since: Statistics | None, within: str | float, wanted: str, **claims: object
) -> ForwardingReport:
    latest: list[ForwardingReport] = []
    within_s = duration_s(within)

    def look() -> bool:
        latest[:] = [replace(_look(node, since), wanted=wanted, waited_s=within_s, **claims)]  # type: ignore[arg-type]
        return latest[0].ok or not latest[0].ports

    with suppress(WaitTimeout):
        until(look, within_s=within_s, what="the packets are through")
    return latest[0]


def assert_forwarded(
    node: DpdkProcessNode,
    *,
    since: Statistics | None = None,
    at_least: int = 1,
    into: int | None = None,
    within: str | float = "1 s",
) -> ForwardingReport:
    """A DPDK process has sent at least so many packets.

    Args:
        node: the process.
        since: what ``node.statistics()`` was before; the beginning by default.
        at_least: how many.
        into: by which port; by all together by default.
        within: how long to wait for the last of them.

    Raises:
        CheckFailed: it has not.
        BadInput: no such port, or not a DPDK process.
    """
    __tracebackhide__ = True
    _check(node, into)
    where = "" if into is None else f" by port {into}"
    report = _settle(node, since, within, f"at least {at_least} sent{where}", least_sent=at_least, into=into)
    report.demand()
    return report


def assert_no_drops(
    node: DpdkProcessNode, *, since: Statistics | None = None, all_sent: bool = True, within: str | float = "1 s"
) -> ForwardingReport:
    """A DPDK process has lost nothing: no port counts a loss, and what was received was sent.

    Args:
        node: the process.
        since: what ``node.statistics()`` was before; the beginning by default.
        all_sent: whether all that was received must have been sent; not for an application that drops on purpose.
        within: how long to wait for the last of them.

    Raises:
        CheckFailed: it has lost some.
        BadInput: not a DPDK process.
    """
    __tracebackhide__ = True
    _check(node, None)
    wanted = "no loss" + (", and all that was received sent again" if all_sent else "")
    report = _settle(node, since, within, wanted, no_loss=True, all_sent=all_sent)
    report.demand()
    return report


def _check(node: DpdkProcessNode, into: int | None) -> None:
    if not isinstance(node, DpdkProcessNode):
        raise BadInput(f"{node!r} is no DPDK process; lab.dpdk() makes one")
    if into is None:
        return
    try:
        numbers: Sequence[int] = [port.number for port in node.statistics().ports]
    except InfraError:
        return  # the check itself says that it does not answer
    if into not in numbers:
        raise BadInput(f"{node.name} has no port {into}; it has {', '.join(map(str, numbers)) or 'none'}")
