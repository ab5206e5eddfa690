"""Addresses and routes, worked out from the whole lab before anything is made: pure functions over ports and links."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network
from typing import Any

from ..core.errors import BadInput
from ..core.naming import SubnetPool
from ..core.node import IPAddress, IPNetwork
from .link import Link
from .port import Port
from .switch import Switch

__all__ = ["AddressPlan", "Hop", "Segment", "check_overlaps", "plan_routes", "segments_of"]


@dataclass(eq=False)
class Segment:
    """What one frame can reach without a router: a wire, or the wires of switches that are linked with each other."""

    ports: list[Port] = field(default_factory=list)
    """The ports of hosts and routers on it, in the order of their links."""

    def networks(self) -> list[IPNetwork]:
        """The subnets in use on it, in the order of their first address."""
        return list(dict.fromkeys(ip.network for port in self.ports for ip in port.addresses))


@dataclass(frozen=True)
class Hop:
    """The next hop of a route."""

    gateway: IPAddress
    port: Port
    """The port through which the gateway is reached."""


class _Groups:
    """Union-find: which things belong together."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, key: int) -> int:
        parent = self._parent.setdefault(key, key)
        while parent != self._parent[parent]:
            self._parent[parent] = parent = self._parent[self._parent[parent]]
        self._parent[key] = parent
        return parent

    def join(self, a: int, b: int) -> None:
        self._parent[self.find(a)] = self.find(b)


def segments_of(links: Iterable[Link]) -> list[Segment]:
    """The segments that the links make, in the order of their first link."""
    groups = _Groups()
    links = list(links)
    for link in links:
        for port in link.ports:
            if isinstance(port.node, Switch):
                groups.join(id(link), id(port.node))
    found: dict[int, Segment] = {}
    for link in links:
        segment = found.setdefault(groups.find(id(link)), Segment())
        segment.ports += [port for port in link.ports if not isinstance(port.node, Switch)]
    return list(found.values())


class AddressPlan:
    """The addresses of one lab: which are taken, and which come next.

    Args:
        seed: makes the IPv6 prefix of the lab.
    """

    def __init__(self, seed: bytes) -> None:
        self._pool = SubnetPool(seed)
        self._owner: dict[IPAddress, Port] = {}
        self._next: dict[IPNetwork, int] = {}

    def claim(self, port: Port) -> None:
        """Take the addresses that were asked for.

        Raises:
            BadInput: another port has one of them.
        """
        for ip in port.addresses:
            if owner := self._owner.get(ip.ip):
                raise BadInput(
                    f"address {ip.ip} for {port} is taken: {owner} has it (declared at {owner.declared_at}); "
                    "every address of a lab is given once"
                )
        for ip in port.addresses:
            self._owner[ip.ip] = port
            self._pool.reserve(ip.network)

    def number(self, segments: Sequence[Segment]) -> None:
        """Give addresses to the ports that have none: from the subnets in use on their segment, or new ones.

        Raises:
            BadInput: subnets of two segments overlap, or a subnet is full.
        """
        check_overlaps(segments)
        for segment in segments:
            waiting = [port for port in segment.ports if port.wants_addresses]
            if not waiting:
                continue
            networks = segment.networks() or self._new_networks(len(segment.ports))
            chosen = {network.version: network for network in reversed(networks)}
            for port in waiting:
                port.addresses = tuple(self._take(chosen[version], port) for version in sorted(chosen))
                port.wants_addresses = False

    def _new_networks(self, ports: int) -> list[IPNetwork]:
        length = min(24, 32 - (ports + 1).bit_length())
        return [self._pool.ipv4(length), self._pool.ipv6()]

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
        for ip in port.addresses
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


def plan_routes(segments: Sequence[Segment]) -> dict[Any, dict[IPNetwork, Hop]]:
    """The routes of every host and router to the subnets it has no port on, by way of the fewest routers.

    A host all of whose routes go by one gateway gets a default route instead.
    """
    routes: dict[Any, dict[IPNetwork, Hop]] = {}
    segment_of = {id(port): segment for segment in segments for port in segment.ports}
    for version in (4, 6):
        for target in segments:
            networks = [network for network in target.networks() if network.version == version]
            if networks:
                _spread(target, networks, version, segment_of, routes)
    for node, table in routes.items():
        if not node.forwards:
            _use_default_route(table)
    return {node: table for node, table in routes.items() if node.auto_routes}


def _spread(
    target: Segment,
    networks: list[IPNetwork],
    version: int,
    segment_of: dict[int, Segment],
    routes: dict[Any, dict[IPNetwork, Hop]],
) -> None:
    """Breadth first from the target: each router passed on the way is the next hop of what lies behind it."""
    reached = {id(target)}
    connected = {id(port.node) for port in target.ports if _address(port, version)}
    queue = deque([target])
    while queue:
        near = queue.popleft()
        for entry in near.ports:
            router = entry.node
            if not getattr(router, "forwards", False) or not _address(entry, version):
                continue
            for port in router.ports:
                far = segment_of.get(id(port))
                gateway = _address(port, version)
                if far is None or gateway is None or id(far) in reached:
                    continue
                reached.add(id(far))
                queue.append(far)
                for other in far.ports:
                    if other.node is not router and id(other.node) not in connected and _address(other, version):
                        connected.add(id(other.node))
                        routes.setdefault(other.node, {}).update(dict.fromkeys(networks, Hop(gateway, other)))


def _address(port: Port, version: int) -> IPAddress | None:
    return next((ip.ip for ip in port.addresses if ip.version == version), None)


def _use_default_route(table: dict[IPNetwork, Hop]) -> None:
    for version, everything in ((4, "0.0.0.0/0"), (6, "::/0")):
        mine = {network: hop for network, hop in table.items() if network.version == version}
        if len(set(mine.values())) == 1:
            for network in mine:
                del table[network]
            table[ip_network(everything)] = next(iter(mine.values()))
