"""`ping`: send echo requests from one node to another and measure, without judging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..core.node import Node
from ..core.report import Report
from .answer import Answer
from .arguments import check_count, check_hop_limit, check_size, seconds
from .probe_icmp import echo
from .rtt import RttStatistics
from .target import Family, Target, choose_ends

__all__ = ["PingReport", "figures", "ping", "summary"]


@dataclass(frozen=True)
class PingReport(Report):
    """What became of a series of echo requests; times in seconds."""

    kind: ClassVar[str] = "ping"

    source: str
    destination: str
    address: str
    size: int
    """Bytes of payload in each request."""
    answers: tuple[Answer, ...]
    """One for each request, in the order they were sent."""
    duplicates: int
    """Replies beyond the first to the same request."""
    elapsed_s: float

    @property
    def ok(self) -> bool:
        """Whether every request was answered."""
        return self.received == self.sent

    @property
    def sent(self) -> int:
        """Requests sent."""
        return len(self.answers)

    @property
    def received(self) -> int:
        """Requests that were answered."""
        return sum(answer.replied for answer in self.answers)

    @property
    def loss(self) -> float:
        """The fraction of requests without a reply, 0 to 1."""
        return 1 - self.received / self.sent

    @property
    def rtts_s(self) -> tuple[float | None, ...]:
        """The round-trip time of each request in seconds, None where no reply came."""
        return tuple(answer.rtt_s if answer.replied else None for answer in self.answers)

    @property
    def rtt(self) -> RttStatistics | None:
        """Minimum, average, maximum and deviation of the round-trip times; None when no reply came."""
        return RttStatistics.of([rtt for rtt in self.rtts_s if rtt is not None])

    @property
    def errors(self) -> tuple[Answer, ...]:
        """The answers that are ICMP errors or refusals by the sender's own kernel."""
        return tuple(answer for answer in self.answers if answer.negative)

    def __str__(self) -> str:
        counts = [f"{_counted(self.sent, 'packet')} sent", f"{self.received} received"]
        if self.duplicates:
            counts.append(_counted(self.duplicates, "duplicate"))
        if self.errors:
            counts.append(_counted(len(self.errors), "error"))
        where = f" ({self.address})" if self.address != self.destination else ""
        lines = [f"ping {self.source} -> {self.destination}{where}, {self.size} bytes of payload"]
        lines.append(", ".join([*counts, f"{100 * self.loss:.3g}% lost, {1000 * self.elapsed_s:.1f} ms"]))
        lines += [str(self.rtt)] if self.rtt else []
        return "\n".join([*lines, *summary(self.errors)])

    def explain(self) -> str:
        """The figures as ping programs give them."""
        return str(self)

    def to_dict(self) -> dict[str, object]:
        """The report in JSON types, with the figures worked out."""
        return {**super().to_dict(), **figures(self.answers)}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def summary(errors: Sequence[Answer]) -> list[str]:
    """Different answers, each once, with how often it came."""
    texts = [str(error) for error in errors]
    return [f"{texts.count(text)} x {text}" for text in dict.fromkeys(texts)]


def figures(answers: Sequence[Answer]) -> dict[str, object]:
    """What counts in a series of answers, in JSON types."""
    statistics = RttStatistics.of([answer.rtt_s for answer in answers if answer.replied and answer.rtt_s is not None])
    received = sum(answer.replied for answer in answers)
    rtt = None if statistics is None else {name: getattr(statistics, name) for name in statistics.__dataclass_fields__}
    return {"sent": len(answers), "received": received, "loss": 1 - received / len(answers), "rtt": rtt}


def ping(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    count: int = 4,
    interval: str | float = "10 ms",
    within: str | float = "1 s",
    size: int = 56,
    family: Family | None = None,
    ttl: int | None = None,
) -> PingReport:
    """Ping `b` from `a` and report loss and round-trip times; nothing is judged (`assert_reachable` does).

    The requests are ICMP echo requests (RFC 792, RFC 4443) from a raw socket in `a`; no ping program is needed.
    Answers carry the kernel's time stamp, so that a busy machine does not make the network look slow.

    Args:
        a: the node to ping from, or the node and the address to ping from.
        b: a node, an IP address, or a node and one of its addresses.
        count: how many requests, 1 to 65535.
        interval: the time from one request to the next; 0 sends them back to back.
        within: how long to wait for answers after the last request.
        size: bytes of payload in each request, 0 to 65507.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.
        ttl: the TTL (hop limit) of the requests; the kernel's own when not given.

    Raises:
        BadInput: an argument that cannot be used.
    """
    ends = choose_ends(a, b, family)
    result = ends.source.call(
        echo,
        str(ends.address),
        count=check_count(count),
        interval_s=seconds("interval", interval, zero=True),
        within_s=seconds("within", within),
        size=check_size(size),
        hop_limits=None if ttl is None else [check_hop_limit("ttl", ttl)] * count,
        source=ends.bind_to,
    )
    return PingReport(
        source=ends.source.name,
        destination=ends.destination_name,
        address=str(ends.address),
        size=size,
        answers=result.answers,
        duplicates=result.duplicates,
        elapsed_s=result.elapsed_s,
    )
