"""Routes to virtual addresses: to a router that translates one, and where it is translated to its first server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from ..core.node import IPAddress, IPNetwork
from .plan import Hop, Segment, plan_routes, routable

__all__ = ["Virtual", "plan_all_routes"]


@dataclass(frozen=True)
class Virtual:
    """An address that no port has, which some nodes translate to that of a server."""

    address: IPAddress
    nodes: Sequence[Any]
    """Those that translate it."""
    servers: Sequence[IPAddress]
    """What it is translated to; none yet where nobody stands behind it."""


def plan_all_routes(segments: Sequence[Segment], virtual: Iterable[Virtual]) -> dict[Any, dict[IPNetwork, Hop]]:
    """The routes to all subnets and virtual addresses.

    Nodes that do not translate an address have a route to the nearest router that does. Those that do have one
    because the kernel translates only what it has a way for; it is that to the first server.
    """
    addresses = {ip_network(one.address): one for one in virtual}
    found = plan_routes(segments, {network: one.nodes for network, one in addresses.items()})
    for network, one in addresses.items():
        for node in one.nodes:
            if node.forwards and not node.auto_routes:
                continue  # its routing daemons know better
            table = found.get(node, {})
            if _has_way(table, one.address):
                continue
            if hop := _first_hop(node, table, [*one.servers, *_neighbours(node, segments, one.address.version)]):
                found[node] = {**table, network: hop}
    return found


def _has_way(table: dict[IPNetwork, Hop], address: IPAddress) -> bool:
    return any(address in network for network in table)


def _first_hop(node: Any, table: dict[IPNetwork, Hop], addresses: Iterable[IPAddress]) -> Hop | None:
    """How a node reaches the first of some addresses that it can reach."""
    own = [(ip.network, port) for port in node.ports for ip in routable(port)]
    mine = {ip.ip for port in node.ports for ip in routable(port)}
    for address in addresses:
        if address in mine:
            continue
        if near := next((port for network, port in own if address in network), None):
            return Hop(address, near)
        if far := max((network for network in table if address in network), key=lambda n: n.prefixlen, default=None):
            return table[far]
    return None


def _neighbours(node: Any, segments: Iterable[Segment], version: int) -> Iterator[IPAddress]:
    for segment in segments:
        if any(port.node is node for port in segment.ports):
            yield from (ip.ip for port in segment.ports for ip in routable(port) if ip.version == version)
