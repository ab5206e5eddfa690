"""`assert_flow_affinity`, `assert_flow_order`, `assert_spread`: what a load balancer owes to flows and to workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..core.errors import BadInput
from ..core.report import Report, explain
from ..packet.statistics import chi_square_p

__all__ = [
    "NOBODY",
    "AffinityReport",
    "Delivery",
    "OrderReport",
    "SpreadReport",
    "assert_flow_affinity",
    "assert_flow_order",
    "assert_spread",
]

NOBODY = "nobody"
"""The worker of a packet that did not arrive, or of a connection that got no answer."""
_SHOWN = 5


@dataclass(frozen=True)
class Delivery:
    """A packet that a worker got."""

    flow: Hashable
    """What makes packets belong together: the five-tuple, or any name."""
    number: int
    """The packet's place among those that were sent."""
    worker: str


@dataclass(frozen=True)
class AffinityReport(Report):
    """Which workers got the packets of each flow."""

    kind: ClassVar[str] = "affinity"

    flows: int
    packets: int
    torn: Mapping[str, Mapping[str, int]]
    """The flows that went to more than one worker, with how many packets each got."""

    @property
    def ok(self) -> bool:
        """Whether each flow has one worker."""
        return not self.torn

    def explain(self) -> str:
        """The flows that were torn."""
        if self.ok:
            return f"each of {self.flows} flows ({self.packets} packets) has one worker"
        lines = [f"{flow}: {', '.join(f'{n} to {w}' for w, n in parts.items())}" for flow, parts in self.torn.items()]
        more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        rows = [("measured", "\n".join(lines[:_SHOWN] + more)), ("wanted", "all packets of a flow to one worker")]
        return explain(f"{len(self.torn)} of {self.flows} flows are torn between workers", rows)


@dataclass(frozen=True)
class OrderReport(Report):
    """Whether packets of a flow overtook each other."""

    kind: ClassVar[str] = "order"

    flows: int
    packets: int
    overtaken: tuple[str, ...]
    """Flow, and the packet that came after a later one."""

    @property
    def ok(self) -> bool:
        """Whether none did."""
        return not self.overtaken

    def explain(self) -> str:
        """The packets that were overtaken."""
        if self.ok:
            return f"the packets of each of {self.flows} flows came in order ({self.packets} packets)"
        rows = [("measured", "\n".join(self.overtaken[:_SHOWN])), ("wanted", "each flow in the order it was sent")]
        return explain(f"{len(self.overtaken)} of {self.packets} packets were overtaken within their flow", rows)


@dataclass(frozen=True)
class SpreadReport(Report):
    """How many flows each worker got."""

    kind: ClassVar[str] = "spread"

    workers: Mapping[str, int]
    shares: Mapping[str, float]
    p: float
    """How likely a spread at least as uneven is, if the shares hold."""
    alpha: float
    idle: tuple[str, ...]
    """Workers that got nothing."""
    lost: int = 0
    """Flows that reached no worker."""

    @property
    def ok(self) -> bool:
        """Whether the spread can be chance, no worker is idle, and no flow was lost."""
        return self.p >= self.alpha and not self.idle and not self.lost

    def explain(self) -> str:
        """What each worker got and should have got."""
        total, whole = sum(self.workers.values()), sum(self.shares.values())
        lines = [
            f"{name}: {count} flows, wanted about {total * self.shares[name] / whole:.0f}"
            for name, count in self.workers.items()
        ]
        verdict = f"{total} flows are spread over {len(self.workers)} workers as wanted"
        if self.lost:
            verdict = f"{self.lost} of {total + self.lost} flows reached no worker"
        elif self.idle:
            verdict = f"the flows are spread unevenly: {', '.join(self.idle)} got none"
        elif not self.ok:
            verdict = "the flows are spread unevenly over the workers"
        tail = f"chi-square test: p {self.p:.2g}, alpha {self.alpha:g}"
        return explain(verdict, [("measured", "\n".join(lines)), ("test", tail)])


def _by_flow(deliveries: Iterable[Delivery]) -> dict[Hashable, list[Delivery]]:
    flows: dict[Hashable, list[Delivery]] = {}
    for delivery in deliveries:
        flows.setdefault(delivery.flow, []).append(delivery)
    return flows


def assert_flow_affinity(deliveries: Sequence[Delivery]) -> AffinityReport:
    """Check that all packets of a flow went to one worker.

    Raises:
        CheckFailed: a flow went to more than one.
        BadInput: no flow has two packets, which would prove nothing.
    """
    __tracebackhide__ = True
    flows = _by_flow(deliveries)
    if not any(len(items) > 1 for items in flows.values()):
        raise BadInput("no flow has two packets, which proves nothing; send several of each")
    split = {str(flow): dict(Counter(item.worker for item in items)) for flow, items in flows.items()}
    report = AffinityReport(len(flows), len(deliveries), {f: parts for f, parts in split.items() if len(parts) > 1})
    report.demand()
    return report


def assert_flow_order(deliveries: Sequence[Delivery]) -> OrderReport:
    """Check that no packet overtook another one of its flow at the same worker.

    Args:
        deliveries: in the order in which they arrived.

    Raises:
        CheckFailed: one did.
        BadInput: no flow has two packets, which would prove nothing.
    """
    __tracebackhide__ = True
    flows = _by_flow(deliveries)
    if not any(len(items) > 1 for items in flows.values()):
        raise BadInput("no flow has two packets, which proves nothing; send several of each")
    overtaken = []
    for flow, items in flows.items():
        last: dict[str, int] = {}
        for item in items:
            if item.number < last.get(item.worker, -1):
                overtaken.append(f"{flow}: packet {item.number} came after {last[item.worker]}, at {item.worker}")
            last[item.worker] = max(item.number, last.get(item.worker, -1))
    report = OrderReport(len(flows), len(deliveries), tuple(overtaken))
    report.demand()
    return report


def assert_spread(
    deliveries: Sequence[Delivery], workers: Mapping[str, float] | Sequence[str], *, alpha: float = 1e-6
) -> SpreadReport:
    """Check that flows are spread over workers in the wanted shares, as far as chance allows.

    Args:
        deliveries: the packets that came; each flow counts once, at the worker of its first packet.
        workers: their names, or names with the share of each.
        alpha: the chance of a false alarm.

    Raises:
        CheckFailed: the spread is too uneven for chance, or a worker got nothing.
        BadInput: fewer than two workers, a delivery to another one, or fewer than 5 flows expected at a worker.
    """
    __tracebackhide__ = True
    shares = dict(workers) if isinstance(workers, Mapping) else dict.fromkeys(workers, 1.0)
    if len(shares) < 2 or any(share <= 0 for share in shares.values()):
        raise BadInput(f"workers are {shares}; at least two with a share above 0 are wanted")
    counts, lost = dict.fromkeys(shares, 0), 0
    for flow, items in _by_flow(deliveries).items():
        if items[0].worker == NOBODY:
            lost += 1
            continue
        if items[0].worker not in counts:
            raise BadInput(f"flow {flow} went to {items[0].worker!r}; the workers are {', '.join(counts)}")
        counts[items[0].worker] += 1
    total = sum(counts.values())
    if (total + lost) * min(shares.values()) / sum(shares.values()) < 5:
        raise BadInput(f"{total + lost} flows are too few for {len(shares)} workers: each must expect at least 5")
    p = chi_square_p(list(counts.values()), [shares[name] for name in counts]) if total else 0.0
    report = SpreadReport(counts, shares, p, alpha, tuple(name for name in counts if not counts[name]), lost)
    report.demand()
    return report
