"""Addresses and routes, worked out from the whole lab before anything is made: pure functions over ports and links."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from itertools import islice
from math import inf
from typing import Any

from ..core.errors import BadInput
from ..core.naming import SubnetPool
from ..core.node import IPAddress, IPInterface, IPNetwork
from .link import Link
from .port import SMALLEST_MTU_IPV6, Port
from .switch import Switch
from .vlan import UNTAGGED

__all__ = ["AddressPlan", "Hop", "Segment", "check_overlaps", "plan_routes", "routable", "segments_of"]

_EASY_SUBNETS = 256  # half of the pool where they are /24
_MOST_SINGLE_ROUTES = 32  # of a router, before those that go the same way are merged


@dataclass(eq=False)
class Segment:
    """What one frame can reach without a router: a wire, or the wires of switches that are linked with each other."""

    ports: list[Port] = field(default_factory=list)
    """The ports of hosts and routers on it, in the order of their links."""

    def networks(self) -> list[IPNetwork]:
        """The subnets in use on it, in the order of their first address; those of one link alone left out."""
        return list(dict.fromkeys(ip.network for port in self.ports for ip in routable(port)))


@dataclass(frozen=True)
class Hop:
    """The next hop of a route."""

    gateway: IPAddress
    port: Port
    """The port through which the gateway is reached."""


class _Groups:
    """Union-find: which things belong together."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, key: Hashable) -> Hashable:
        parent = self._parent.setdefault(key, key)
        while parent != self._parent[parent]:
            self._parent[parent] = parent = self._parent[self._parent[parent]]
        self._parent[key] = parent
        return parent

    def join(self, a: Hashable, b: Hashable) -> None:
        self._parent[self.find(a)] = self.find(b)


def segments_of(links: Iterable[Link]) -> list[Segment]:
    """The segments that the links make, in the order of their first link; each VLAN is one of its own.

    Hosts send frames without a tag. What a trunk carries is joined VLAN by VLAN.
    """
    groups = _Groups()
    links = list(links)
    named = [port.vlans.named() for link in links for port in link.ports if port.vlans is not None]
    tags = sorted({UNTAGGED}.union(*named))
    for link in links:
        for port in link.ports:
            if isinstance(port.node, Switch):
                _join(groups, link, port, tags)
                for other in port.node.joined:
                    for tag in tags:
                        groups.join((id(port.node), tag), (id(other), tag))
    found: dict[Hashable, Segment] = {}
    for link in links:
        segment = found.setdefault(groups.find((id(link), UNTAGGED)), Segment())
        segment.ports += [port for port in link.ports if not isinstance(port.node, Switch)]
    return list(found.values())


def _join(groups: _Groups, link: Link, port: Port, tags: Iterable[int]) -> None:
    """Join what is on the wire with the VLANs inside the switch."""
    for tag in tags:
        inside = tag if port.vlans is None else port.vlans.inside(tag)
        if inside is not None:
            groups.join((id(link), tag), (id(port.node), inside))


class AddressPlan:
    """The addresses of one lab: which are taken, and which come next.

    Args:
        seed: makes the IPv6 prefix of the lab.
        ipv6: whether ports get IPv6 addresses unasked; not where the kernel has no IPv6 (``ipv6.disable=1``).
    """

    def __init__(self, seed: bytes, *, ipv6: bool = True) -> None:
        self._ipv6 = ipv6
        self._pool = SubnetPool(seed)
        self._owner: dict[IPAddress, Port] = {}
        self._next: dict[IPNetwork, int] = {}
        self._made = 0

    def claim(self, *ports: Port) -> None:
        """Take the addresses that were asked for, all of them or none.

        Raises:
            BadInput: another port has one of them.
        """
        wanted = [(port, ip) for port in ports for ip in routable(port)]
        for port, ip in wanted:
            if owner := self._owner.get(ip.ip):
                raise BadInput(
                    f"address {ip.ip} for {port} is taken: {owner} has it (declared at {owner.declared_at}); "
                    "every address of a lab is given once"
                )
        for port, ip in wanted:
            self._owner[ip.ip] = port
            self._pool.reserve(ip.network)

    def number(self, segments: Sequence[Segment]) -> None:
        """Give addresses to the ports that have none: from the subnets in use on their segment, or new ones.

        Raises:
            BadInput: subnets of two segments overlap, or a subnet is full.
        """
        check_overlaps(segments)
        for segment in segments:
            waiting = [port for port in segment.ports if port.planned is None]
            if not waiting:
                continue
            networks = segment.networks() or self._new_networks(len(segment.ports))
            chosen = {network.version: network for network in reversed(networks)}
            for port in waiting:
                versions = [4, 6] if self._ipv6 and port.mtu >= SMALLEST_MTU_IPV6 else [4]
                port.planned = tuple(self._take(chosen[version], port) for version in versions if version in chosen)

    def new_ipv4(self, ports: int) -> IPv4Network:
        """A subnet that nobody else gets, as small as it can be for that many ports."""
        return self._pool.ipv4(32 - (ports + 1).bit_length())

    def _new_networks(self, ports: int) -> list[IPNetwork]:
        """The first subnets are of a length that people read easily, the others as small as they can be."""
        self._made += 1
        longest = 24 if self._made <= _EASY_SUBNETS else 30
        return [self._pool.ipv4(min(longest, 32 - (ports + 1).bit_length())), self._pool.ipv6()]

    def _take(self, network: IPNetwork, port: Port) -> Any:
        first = int(network.network_address)
        small = network.prefixlen >= network.max_prefixlen - 1
        number = self._next.get(network, 0 if small else 1)
        last = network.num_addresses - (0 if small or network.version == 6 else 1)
        make = type(network.network_address)
        while number < last and make(first + number) in self._owner:
            number += 1
        if number >= last:
            raise BadInput(
                f"subnet {network} has no address left for {port} (declared at {port.declared_at}); "
                "give the link one with ip=, or use a larger subnet"
            )
        self._next[network] = number + 1
        address = make(first + number)
        self._owner[address] = port
        return ip_interface((address, network.prefixlen))


def check_overlaps(segments: Sequence[Segment]) -> None:
    """Refuse a lab in which the same addresses are on two segments that are joined by a host or a router.

    Raises:
        BadInput: names both subnets and where they were declared.
    """
    groups = _Groups()
    for segment in segments:
        for port in segment.ports:
            groups.join(id(segment), id(port.node))
    spans = sorted(
        (
            groups.find(id(segment)),
            ip.version,
            int(ip.network[0]),
            int(ip.network[-1]),
            number,
            ip.network,
            port.declared_at,
            str(port),
        )
        for number, segment in enumerate(segments)
        for port in segment.ports
        for ip in routable(port)
    )
    last: tuple[Any, ...] | None = None
    for span in spans:
        if last is not None and span[:2] == last[:2] and span[2] <= last[3] and span[4] != last[4]:
            raise BadInput(
                f"subnet {span[5]} of {span[7]} (declared at {span[6]}) overlaps {last[5]} of {last[7]} "
                f"(declared at {last[6]}) on another link; give each link or switch a subnet of its own"
            )
        if last is None or span[:2] != last[:2] or span[3] > last[3]:
            last = span


def plan_routes(
    segments: Sequence[Segment], beside: Mapping[IPNetwork, Iterable[Any]] | None = None
) -> dict[Any, dict[IPNetwork, Hop]]:
    """The routes of every host and router to the subnets it has no port on, by way of the fewest routers.

    A host all of whose routes go by one gateway gets a default route instead. Where a router has many routes, those
    whose subnets are all of a larger one, and go by the same gateway, are one.

    Args:
        segments: of the whole lab.
        beside: further networks, which no port is on, with the nodes that take what is for them.
    """
    ways, next_to = _ways(segments), _next_to(segments)
    for network, nodes in (beside or {}).items():
        next_to.setdefault(network, {}).update(dict.fromkeys(nodes))
    if not ways:
        return {}
    networks = list(next_to)
    keys = [(net.version, net.prefixlen, int(net.network_address)) for net in networks]
    tables, reach = _spread(ways, next_to)
    found: dict[Any, dict[IPNetwork, Hop]] = {}
    for node, table in tables.items():
        many = len(table) > _MOST_SINGLE_ROUTES
        found[node] = _merged(table, keys) if many else {networks[number]: hop for number, hop in table.items()}
    for node, mine in ways.items():
        if not node.forwards:
            found[node] = _host_table(node, mine, networks, next_to, reach)
    return {node: table for node, table in found.items() if node.auto_routes and table}


def _merged(table: dict[int, Hop], keys: Sequence[tuple[int, int, int]]) -> dict[IPNetwork, Hop]:
    """The same routes, where both halves of a subnet that go by one hop are one route, again and again."""
    found = {keys[number]: hop for number, hop in table.items()}
    for key in sorted(found, key=lambda key: -key[1]):
        while key in found:
            version, length, first = key
            size = 1 << ((32 if version == 4 else 128) - length)
            other = (version, length, first ^ size)
            if not length or found.get(other) is not found[key]:
                break
            whole = (version, length - 1, first & ~size)
            if whole in found:
                break
            found[whole] = found.pop(key)
            del found[other]
            key = whole  # noqa: PLW2901 - the whole may be half of a larger one
    return {_network(*key): hop for key, hop in found.items()}


def _network(version: int, length: int, first: int) -> IPNetwork:
    return IPv4Network((first, length)) if version == 4 else IPv6Network((first, length))


def _ways(segments: Iterable[Segment]) -> dict[Any, list[tuple[Any, Hop]]]:
    """The routers next to each host and router, and the hop to each: an address in a subnet of one's own."""
    ways: dict[Any, list[tuple[Any, Hop]]] = {}
    for segment in segments:
        routers = [port for port in segment.ports if getattr(port.node, "forwards", False)]
        gateways = [(port.node, ip.ip) for port in routers for ip in routable(port)]
        for port in segment.ports if gateways else ():
            networks = [ip.network for ip in routable(port)]
            for router, gateway in gateways:
                if router is not port.node and any(gateway in network for network in networks):
                    ways.setdefault(port.node, []).append((router, Hop(gateway, port)))
    return ways


def _next_to(segments: Iterable[Segment]) -> dict[IPNetwork, dict[Any, None]]:
    """The hosts and routers that reach each subnet without a router."""
    found: dict[IPNetwork, dict[Any, None]] = {}
    for segment in segments:
        networks = segment.networks()
        for network in networks:
            wider = {one for one in networks if one.version == network.version and network.subnet_of(one)}  # type: ignore[arg-type]
            ports = [port for port in segment.ports if any(ip.network in wider for ip in routable(port))]
            found.setdefault(network, {}).update(dict.fromkeys(port.node for port in ports))
    return found


def _spread(
    ways: dict[Any, list[tuple[Any, Hop]]], next_to: dict[IPNetwork, dict[Any, None]]
) -> tuple[dict[Any, dict[int, Hop]], dict[Any, dict[int, int]]]:
    """The routers' routes, breadth first from each subnet, and how many routers away from it each of them is.

    Subnets are told by their place in `next_to`: a large lab has tens of thousands of routes.
    """
    routers = {node: number for number, node in enumerate(dict.fromkeys(_routers(ways, next_to)))}
    behind: dict[int, list[list[tuple[int, Hop]]]] = {version: [[] for _ in routers] for version in (4, 6)}
    for node, mine in ways.items():
        for router, hop in mine if node.forwards else ():
            behind[hop.gateway.version][routers[router]].append((routers[node], hop))
    tables: list[dict[int, Hop]] = [{} for _ in routers]
    reach: list[dict[int, int]] = [{} for _ in routers]
    for number, (network, nodes) in enumerate(next_to.items()):
        edges = behind[network.version]
        queue = deque(routers[node] for node in nodes if node.forwards)
        away = dict.fromkeys(queue, 0)
        while queue:
            router = queue.popleft()
            further = away[router] + 1
            for node, hop in edges[router]:
                if node not in away:
                    away[node] = further
                    tables[node][number] = hop
                    queue.append(node)
        for node, distance in away.items():
            reach[node][number] = distance
    names = list(routers)
    return {names[i]: table for i, table in enumerate(tables) if table}, dict(zip(names, reach, strict=True))


def _routers(ways: dict[Any, list[tuple[Any, Hop]]], next_to: dict[IPNetwork, dict[Any, None]]) -> Iterator[Any]:
    for mine in ways.values():
        yield from (router for router, _ in mine)
    for node in (*ways, *(node for nodes in next_to.values() for node in nodes)):
        if node.forwards:
            yield node


def _host_table(
    host: Any,
    ways: Iterable[tuple[Any, Hop]],
    networks: Sequence[IPNetwork],
    next_to: dict[IPNetwork, dict[Any, None]],
    reach: dict[Any, dict[int, int]],
) -> dict[IPNetwork, Hop]:
    table: dict[IPNetwork, Hop] = {}
    for version, everything in ((4, "0.0.0.0/0"), (6, "::/0")):
        mine = [(hop, reach[router]) for router, hop in ways if hop.gateway.version == version]
        beyond: Iterable[int] = (
            number
            for _, far in mine
            for number in far
            if networks[number].version == version and host not in next_to[networks[number]]
        )
        to_the_outside = bool(getattr(host, "uplink", ""))  # whose default route leads there
        if len(mine) == 1 and not to_the_outside:
            beyond = islice(beyond, 1)  # a default route it will be, however much lies there
        found = {
            networks[number]: min(mine, key=lambda way: way[1].get(number, inf))[0] for number in dict.fromkeys(beyond)
        }
        one_way = len(set(found.values())) == 1 and not to_the_outside
        table |= {ip_network(everything): next(iter(found.values()))} if one_way else found
    return table


def routable(port: Port) -> list[IPInterface]:
    """The addresses that are not of one link alone (RFC 3927, RFC 4291 section 2.5.6)."""
    return [ip for ip in port.planned or () if not ip.is_link_local]
