"""`traceroute` and `assert_path`: by which routers the packets go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.node import IPAddress, Node
from ..core.report import Report, explain
from ..core.units import format_duration
from .answer import Answer
from .arguments import check_count, check_hop_limit, seconds
from .autopsy import Autopsy
from .causes import autopsy_of, node_with
from .graph import find_node, nodes_of
from .probe_icmp import echo
from .target import Ends, Family, Target, choose_ends

__all__ = ["PathHop", "PathReport", "assert_path", "traceroute"]

_BATCH = 16
_SIZE = 32
_MAX_PROBES = 10


@dataclass(frozen=True)
class PathHop:
    """What answered to packets that were let live for `ttl` hops."""

    ttl: int
    addresses: tuple[str, ...]
    """Who answered; several where the packets went different ways, none where nobody answered."""
    node: str
    """The node of the lab that has the first of the addresses, else empty."""
    rtts_s: tuple[float | None, ...]
    """The round-trip time of each probe in seconds, None where no answer came."""
    errors: tuple[str, ...] = ()
    """Answers that ended the trace: unreachable, prohibited, a refusal by the sender's own kernel."""

    @property
    def name(self) -> str:
        """The node's name, else the address, else ``*``."""
        return self.node or (self.addresses[0] if self.addresses else "*")

    def __str__(self) -> str:
        times = "  ".join("*" if rtt is None else f"{1000 * rtt:.3f} ms" for rtt in self.rtts_s)
        who = ", ".join(self.addresses) or "no answer"
        return "  ".join(filter(None, [f"{self.ttl:2d}", self.node, f"({who})", times, *self.errors]))


@dataclass(frozen=True)
class PathReport(Report):
    """The way of packets from one node to another; times in seconds."""

    kind: ClassVar[str] = "path"

    source: str
    destination: str
    address: str
    hops: tuple[PathHop, ...]
    """The routers in order, and at last the destination where it was reached."""
    reached: bool
    """Whether the destination itself answered."""
    elapsed_s: float
    wanted: tuple[str, ...] | None = None
    """The hops that were asked for, as they were written; None when none were."""
    first_difference: int | None = None
    """The place of the first hop that is not as wanted, from 0."""
    autopsy: Autopsy | None = None

    @property
    def ok(self) -> bool:
        """Whether the destination was reached, by the hops that were asked for where any were."""
        return self.reached and self.first_difference is None

    @property
    def names(self) -> tuple[str, ...]:
        """Each hop by the name of its node, else its address, else ``*``."""
        return tuple(hop.name for hop in self.hops)

    def __str__(self) -> str:
        heading = f"path {self.source} -> {self.destination}"
        heading += f" ({self.address})" if self.address != self.destination else ""
        return "\n".join([heading, *map(str, self.hops), *([] if self.reached else ["    not reached"])])

    def explain(self) -> str:
        """The verdict, the path that was measured, the one that was wanted, and the cause."""
        measured = "\n".join([" -> ".join((self.source, *self.names)), *map(str, self.hops)])
        wanted = "" if self.wanted is None else " -> ".join((self.source, *self.wanted))
        rows = [("measured", measured), ("wanted", wanted)]
        return explain(self._verdict(), rows + (self.autopsy.rows() if self.autopsy else []))

    def _verdict(self) -> str:
        if self.ok:
            return f"{self.source} reaches {self.destination} in {len(self.hops)} hops"
        at = self.first_difference
        if self.wanted is None or at is None or at >= len(self.wanted) or not self.reached:
            return f"{self.source} does not reach {self.destination} ({self.address})"
        is_there = self.names[at] if at < len(self.hops) else "nothing: the path is shorter"
        return f"{self.source} does not take that path to {self.destination}: hop {at + 1} is {is_there}, not {self.wanted[at]}"


def traceroute(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    max_hops: int = 30,
    probes: int = 1,
    family: Family | None = None,
    within: str | float = "1 s",
) -> PathReport:
    """Find out by which routers packets from `a` go to `b`; nothing is judged (`assert_path` does).

    ICMP echo requests are sent with rising TTL (hop limit), many at once, so that a path of ten hops costs about one
    round trip. A router that does not answer costs `within`.

    Args:
        a: the node to trace from, or the node and the address to send from.
        b: a node, an IP address, or a node and one of its addresses.
        max_hops: the highest TTL, 1 to 255.
        probes: how many packets for each hop, 1 to 10.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.
        within: how long to wait for answers after the last packet of a batch of 16 hops.

    Raises:
        BadInput: an argument that cannot be used.
    """
    check_hop_limit("max_hops", max_hops)
    if check_count(probes) > _MAX_PROBES:
        raise BadInput(f"probes {probes} is not allowed; give a whole number from 1 to {_MAX_PROBES}")
    within_s = seconds("within", within)
    ends = choose_ends(a, b, family)
    hops: list[PathHop] = []
    elapsed_s = 0.0
    while len(hops) < max_hops and not _ended(hops, ends):
        ttls = range(len(hops) + 1, min(len(hops) + _BATCH, max_hops) + 1)
        result = ends.source.call(
            echo,
            str(ends.address),
            count=len(ttls) * probes,
            within_s=within_s,
            size=_SIZE,
            hop_limits=[ttl for ttl in ttls for _ in range(probes)],
            source=ends.bind_to,
            settled=_settled,
        )
        elapsed_s += result.elapsed_s
        answers = [result.answers[start : start + probes] for start in range(0, len(result.answers), probes)]
        hops += [_hop(ttl, mine, ends) for ttl, mine in zip(ttls, answers, strict=True)]
    hops = _cut(hops, ends)
    return PathReport(
        source=ends.source.name,
        destination=ends.destination_name,
        address=str(ends.address),
        hops=tuple(hops),
        reached=bool(hops) and _is_end(hops[-1], ends),
        elapsed_s=elapsed_s,
    )
