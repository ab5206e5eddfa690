"""`traceroute` and `assert_path`: by which routers the packets go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, ClassVar, Literal

from ..core.errors import BadInput
from ..core.node import Node
from ..core.report import Report, explain
from .answer import Answer
from .arguments import check_count, check_hop_limit, seconds
from .autopsy import Autopsy, Finding, View
from .causes import autopsy_of
from .graph import find_node, node_having
from .probe_icmp import echo
from .request import check_request
from .retrace import retrace
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
    kind: Literal["router", "destination", "error", "silence"]
    """``error``: the trace ended here with something else than an answer, which `words` tells."""
    words: str = ""

    @property
    def name(self) -> str:
        """The node's name, else the address, else ``*``."""
        return self.node or (self.addresses[0] if self.addresses else "*")

    def __str__(self) -> str:
        times = "  ".join("*" if rtt is None else f"{1000 * rtt:.3f} ms" for rtt in self.rtts_s)
        who = ", ".join(self.addresses) or "no answer"
        return "  ".join(filter(None, [f"{self.ttl:2d}", self.node, f"({who})", times, self.words]))


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
        there = self.names[at] if at < len(self.hops) else "nothing: the path is shorter"
        difference = f"hop {at + 1} is {there}, not {self.wanted[at]}"
        return f"{self.source} does not take that path to {self.destination}: {difference}"


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

    ICMP echo requests are sent with rising TTL (hop limit), 16 hops at once, so that a path of ten hops costs about
    one round trip. A router that does not answer costs `within`.

    Args:
        a: the node to trace from, or the node and the address to send from.
        b: a node, an IP address, or a node and one of its addresses.
        max_hops: the highest TTL, 1 to 255.
        probes: how many packets for each hop, 1 to 10.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.
        within: how long to wait for answers after the last packet of a batch.

    Raises:
        BadInput: an argument that cannot be used.
    """
    check_hop_limit("max_hops", max_hops)
    if check_count(probes) > _MAX_PROBES:
        raise BadInput(f"probes {probes} is not allowed; give a whole number from 1 to {_MAX_PROBES}")
    within_s = seconds("within", within)
    return _trace(choose_ends(a, b, family), max_hops, probes, within_s)


def _trace(ends: Ends, max_hops: int, probes: int, within_s: float) -> PathReport:
    hops: list[PathHop] = []
    elapsed_s, heard = 0.0, True
    while heard and len(hops) < max_hops and not any(_ends_trace(hop) for hop in hops):
        ttls = range(len(hops) + 1, min(len(hops) + _BATCH, max_hops) + 1)
        result = ends.source.call(
            echo,
            str(ends.address),
            count=len(ttls) * probes,
            within_s=within_s,
            size=_SIZE,
            hop_limits=[ttl for ttl in ttls for _ in range(probes)],
            source=ends.bind_to,
            settled=partial(_settled, probes),
        )
        elapsed_s += result.elapsed_s
        heard = any(answer.kind != "silence" for answer in result.answers)
        answers = [result.answers[start : start + probes] for start in range(0, len(result.answers), probes)]
        hops += [_hop(ttl, mine, ends) for ttl, mine in zip(ttls, answers, strict=True)]
    hops = _cut(hops)
    return PathReport(
        source=ends.source.name,
        destination=ends.destination_name,
        address=str(ends.address),
        hops=tuple(hops),
        reached=bool(hops) and hops[-1].kind == "destination",
        elapsed_s=elapsed_s,
    )


def _settled(probes: int, answers: Mapping[int, Answer], sent: int) -> bool:
    """Whether the hop that ended the trace is known, and all before it have answered."""
    last = min((number for number, answer in answers.items() if not _from_router(answer)), default=sent - 1)
    return all(number in answers for number in range(min(sent, (last // probes + 1) * probes)))


def _from_router(answer: Answer) -> bool:
    return answer.icmp is not None and answer.icmp.time_exceeded


def _hop(ttl: int, answers: Sequence[Answer], ends: Ends) -> PathHop:
    addresses = tuple(dict.fromkeys(answer.sender for answer in answers if answer.sender))
    node = node_having(ends.source, ip_address(addresses[0])) if addresses else None
    rtts_s = tuple(answer.rtt_s for answer in answers)
    name = node.name if node is not None else ""
    if any(answer.replied for answer in answers):
        return PathHop(ttl, addresses, name, rtts_s, "destination")
    refusals = [str(answer) for answer in answers if answer.negative and not _from_router(answer)]
    if refusals:
        return PathHop(ttl, addresses, name, rtts_s, "error", refusals[0])
    return PathHop(ttl, addresses, name, rtts_s, "router" if addresses else "silence")


def _ends_trace(hop: PathHop) -> bool:
    return hop.kind in ("destination", "error")


def _cut(hops: Sequence[PathHop]) -> list[PathHop]:
    """The hops up to the one that ended the trace; of a silent end, only its first hop."""
    end = next((number for number, hop in enumerate(hops) if _ends_trace(hop)), None)
    if end is None:
        heard = [number for number, hop in enumerate(hops) if hop.kind != "silence"]
        end = heard[-1] + 1 if heard else 0
    return list(hops[: end + 1])


def assert_path(
    a: Node | tuple[Node, Any],
    b: Target,
    hops: Sequence[Node | str | IPv4Address | IPv6Address],
    *,
    family: Family | None = None,
    within: str | float = "1 s",
) -> PathReport:
    """Check that packets from `a` go to `b` by exactly these hops.

    Args:
        a: the node to trace from, or the node and the address to send from.
        b: a node, an IP address, or a node and one of its addresses.
        hops: the whole way as a traceroute lists it: every router in order, and `b` at the end. Each is a node, the
            name of a node, or an address. Switches are no hops.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.
        within: how long to wait for answers.

    Returns:
        What was measured.

    Raises:
        CheckFailed: the path is another one, or does not reach `b`.
        BadInput: an argument that cannot be used, or `hops` does not end with `b`.
    """
    __tracebackhide__ = True
    within_s = seconds("within", within)
    ends = choose_ends(a, b, family)
    if isinstance(hops, str) or not isinstance(hops, Sequence):
        raise BadInput(f"hops is a list of nodes, names or addresses; got {hops!r}")
    wanted = [_wanted(hop, ends) for hop in hops]
    if not wanted or not _matches(wanted[-1], str(ends.address), ends.destination):
        raise BadInput(
            f"the wanted path has to end with {ends.destination_name}, as a traceroute does; add it to the end of hops"
        )
    max_hops = max(_BATCH, 2 * len(wanted))
    report = _judge(_trace(ends, min(max_hops, 255), 1, within_s), wanted, ends)
    report.demand()
    return report


def _wanted(hop: Any, ends: Ends) -> Node | str:
    """A wanted hop as a node, or as an address in text."""
    if isinstance(hop, IPv4Address | IPv6Address):
        return str(hop)
    if not isinstance(hop, str):
        if hasattr(hop, "run") and hasattr(hop, "name"):
            node: Node = hop
            return node
        raise BadInput(f"hop {hop!r} is not a node; give nodes, names of nodes, or IP addresses (switches are no hops)")
    if found := find_node(ends.source, hop):
        return found
    try:
        return str(ip_address(hop))
    except ValueError:
        raise BadInput(f"hop {hop!r} is neither an IP address nor a node of the lab of {ends.source.name}") from None


def _matches(wanted: Node | str, address: str, node: Node | None) -> bool:
    if isinstance(wanted, str):
        return wanted == address.partition("%")[0]
    return node is not None and wanted.name == node.name


def _judge(report: PathReport, wanted: Sequence[Node | str], ends: Ends) -> PathReport:
    names = tuple(hop if isinstance(hop, str) else hop.name for hop in wanted)
    pairs = zip(wanted, report.hops, strict=False)
    same = [
        bool(hop.addresses) and _matches(want, hop.addresses[0], find_node(ends.source, hop.node))
        for want, hop in pairs
    ]
    at = same.index(False) if False in same else len(same)
    if at == len(wanted) == len(report.hops):
        return replace(report, wanted=names, first_difference=None if report.reached else at)
    autopsy = _other_path(report, at, ends) if report.reached else _not_reached(ends)
    return replace(report, wanted=names, first_difference=at, autopsy=autopsy)


def _not_reached(ends: Ends) -> Autopsy:
    """Why the destination does not answer, with one more probe that is followed."""
    silence = Answer("silence")
    return autopsy_of(ends, silence, trace=retrace(ends, check_request("icmp", None, False, None, 1), silence))


def _other_path(report: PathReport, at: int, ends: Ends) -> Autopsy:
    """Why the path leaves the wanted one: the route at the last hop that is right."""
    before = ends.source if at == 0 else find_node(ends.source, report.hops[at - 1].node)
    route = None if before is None else View(before).route_to(ends.address)
    if before is None or route is None:
        return Autopsy()
    via = f" via {route.gateway}" if route.gateway is not None else ""
    cause = f"the route of {before.name} is {route.destination}{via} dev {route.interface}"
    return Autopsy(
        "", Finding("other-path", before.name, cause, f"correct the route to {ends.address} in {before.name}")
    )
