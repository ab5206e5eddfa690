"""Policy routing as data (ip-rule(8)): the rules that choose a routing table, and the route that they give a packet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from ..core.node import IPAddress, IPNetwork, Route
from .messages import dump_links, dump_routes, dump_rules
from .netlink import NetlinkSocket
from .replies import decode_rules, parse_names, parse_routes, parse_vrfs

__all__ = ["Policy", "PolicyRule", "longest_match", "read_policy"]

_OF_THE_KERNEL = (0, 32766, 32767)
_LOCAL, _MAIN = 255, 254
_KINDS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_NAMES = {253: "default", 254: "main", 255: "local"}
_INVERTED = 2
_SELECTORS: Mapping[str, str] = {
    "FRA_FWMARK": "fwmark",
    "FRA_OIFNAME": "oif",
    "FRA_TUN_ID": "tun_id",
    "FRA_UID_RANGE": "uidrange",
    "FRA_IP_PROTO": "ipproto",
    "FRA_SPORT_RANGE": "sport",
    "FRA_DPORT_RANGE": "dport",
}


@dataclass(frozen=True)
class PolicyRule:
    """One rule: which packets it is for, and what becomes of these."""

    priority: int
    version: int
    kind: str = "lookup"
    """``lookup``, ``goto``, ``nop``, ``blackhole``, ``unreachable``, ``prohibit``."""
    table: int = 0
    source: IPNetwork | None = None
    destination: IPNetwork | None = None
    arrives_by: str = ""
    """The interface that the packet came by; ``lo`` for those that begin here."""
    inverted: bool = False
    beyond: tuple[str, ...] = ()
    """What else it selects by, such as ``fwmark``: a packet's addresses and interface do not tell."""
    of_vrf: bool = False
    """Whether it leads to the table of the VRF of which the packet comes (vrf.rst of the kernel)."""
    goto: int = 0
    shortest: int = -1
    """Routes with a prefix of at most this length do not count (``suppress_prefixlength``)."""

    def takes(self, destination: IPAddress, source: IPAddress | None, arrives_by: str) -> bool:
        """Whether it is for a packet between these addresses; one with further selectors is for none."""
        if self.version != destination.version or self.beyond:
            return False
        matches = (
            (self.destination is None or destination in self.destination)
            and (self.source is None or (source is not None and source in self.source))
            and (not self.arrives_by or self.arrives_by == (arrives_by or "lo"))
        )
        return matches is not self.inverted

    def __str__(self) -> str:
        words = ["not" if self.inverted else "", f"from {self.source or 'all'}"]
        words += [f"to {self.destination}" if self.destination else ""]
        words += [f"iif {self.arrives_by}" if self.arrives_by else "", *self.beyond]
        table = "[l3mdev-table]" if self.of_vrf else _NAMES.get(self.table, self.table)
        then = f"{self.kind} {table}" if self.kind == "lookup" else self.kind
        then = f"goto {self.goto}" if self.kind == "goto" else then
        return f"{self.priority}: {' '.join(filter(None, [*words, then]))}"


@dataclass(frozen=True)
class Policy:
    """The rules of a node, those of the kernel among them, and its routes by table."""

    rules: Sequence[PolicyRule]
    tables: Mapping[int, Sequence[Route]]
    vrfs: Mapping[str, int] = field(default_factory=dict)
    """The tables of VRFs, by interface that is in one."""

    def rules_for(self, version: int) -> list[PolicyRule]:
        """The rules of one IP version that somebody added."""
        return [rule for rule in self.rules if rule.version == version and rule.priority not in _OF_THE_KERNEL]

    def choose(
        self, destination: IPAddress, source: IPAddress | None, arrives_by: str
    ) -> tuple[Route | None, PolicyRule | None]:
        """The route of a packet, and the rule that brought it there; None where none of them knows one."""
        skip_to = 0
        for rule in sorted(self.rules, key=lambda rule: rule.priority):
            if rule.priority < skip_to or not rule.takes(destination, source, arrives_by):
                continue
            if rule.kind == "goto":
                skip_to = rule.goto
            elif rule.kind not in ("lookup", "nop"):
                return Route(ip_network(f"{destination}"), "", kind=rule.kind), rule
            elif rule.kind == "lookup" and rule.table != _LOCAL:
                table = self.vrfs.get(arrives_by, 0) if rule.of_vrf else rule.table
                route = longest_match(self.tables.get(table, ()), destination)
                if route and route.kind != "throw" and route.destination.prefixlen > rule.shortest:
                    return route, rule
        return None, None


def longest_match(routes: Sequence[Route], address: IPAddress) -> Route | None:
    """The route that the longest prefix, then the lowest metric gives (RFC 1812 section 5.2.4.3)."""
    matching = [
        route for route in routes if route.destination.version == address.version and int(address) in _span(route)
    ]
    return min(matching, key=lambda route: (-route.destination.prefixlen, route.metric), default=None)


def _span(route: Route) -> range:
    first = int(route.destination.network_address)
    return range(first, first + route.destination.num_addresses)


def read_policy() -> Policy | None:
    """The policy of the calling thread's namespace; None where it has only the kernel's own rules."""
    with NetlinkSocket() as netlink:
        dumped = {version: netlink.dump(dump_rules(version), "list the rules") for version in (4, 6)}
        rules = [rule for version, replies in dumped.items() for rule in _parsed(version, decode_rules(replies))]
        if all(rule.priority in _OF_THE_KERNEL for rule in rules):
            return None
        links = list(netlink.dump(dump_links(), "list the interfaces"))
        names, vrfs = parse_names(links), parse_vrfs(links) if any(rule.of_vrf for rule in rules) else {}
        routes = [reply for version in (4, 6) for reply in netlink.dump(dump_routes(version), "list the routes")]
    tables = {_MAIN, *vrfs.values()} | {rule.table for rule in rules if rule.kind == "lookup" and rule.table != _LOCAL}
    return Policy(rules, {table: parse_routes(routes, names, table) for table in tables}, vrfs)


def _parsed(version: int, messages: Any) -> Iterator[PolicyRule]:
    for message in messages:
        shortest = message.get_attr("FRA_SUPPRESS_PREFIXLEN")
        yield PolicyRule(
            priority=message.get_attr("FRA_PRIORITY") or 0,
            version=version,
            kind=_KINDS.get(message["action"], str(message["action"])),
            table=message.get_attr("FRA_TABLE") or message["table"],
            source=_network(message.get_attr("FRA_SRC"), message["src_len"]),
            destination=_network(message.get_attr("FRA_DST"), message["dst_len"]),
            arrives_by=message.get_attr("FRA_IIFNAME") or "",
            inverted=bool(message["flags"] & _INVERTED),
            beyond=tuple(name for key, name in _SELECTORS.items() if message.get_attr(key))
            + (("tos",) if message["tos"] else ()),
            of_vrf=bool(message.get_attr("FRA_L3MDEV")),
            goto=message.get_attr("FRA_GOTO") or 0,
            shortest=-1 if shortest in (None, 0xFFFFFFFF) else shortest,
        )


def _network(address: str | None, bits: int) -> IPNetwork | None:
    return ip_network(f"{address}/{bits}") if address else None
