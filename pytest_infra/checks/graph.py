"""The lab as a graph, seen from one of its nodes: who hangs on the same wire, who was planned to have an address."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..core.node import IPAddress, Node, NodePort

__all__ = [
    "Wire",
    "connected",
    "find_node",
    "is_switch",
    "leads_to",
    "node_having",
    "nodes_of",
    "owner_of",
    "same_address",
    "wires_from",
]

_MOST_NODES_ASKED = 64


@dataclass(frozen=True)
class Wire:
    """The way of a frame from a port of one node to a port of another, without a router in between."""

    ports: tuple[NodePort, ...]
    """The port it leaves by, the ports of the switches in between (in and out), the port it arrives at."""

    @property
    def near(self) -> NodePort:
        """The port it leaves by."""
        return self.ports[0]

    @property
    def far(self) -> NodePort:
        """The port it arrives at."""
        return self.ports[-1]

    @property
    def switch_ports(self) -> tuple[NodePort, ...]:
        """The ports of switches in between."""
        return self.ports[1:-1]


def is_switch(node: Any) -> bool:
    """Whether it only forwards frames: it has ports, and nothing can run in it, or it says so."""
    return bool(getattr(node, "forwards_frames", not hasattr(node, "run")))


def wires_from(port: NodePort, usable: Callable[[NodePort], bool] = lambda _: True) -> list[Wire]:
    """The ways to every node port that a frame from `port` can reach, the shortest to each, nearest first.

    Args:
        port: where they begin.
        usable: whether a switch can send by a port of its, to another switch.
    """
    found: list[Wire] = []
    seen: set[int] = set()
    queue: deque[tuple[NodePort, ...]] = deque([(port, port.peer)])
    while queue:
        way = queue.popleft()
        node = way[-1].node
        if not is_switch(node):
            found.append(Wire(way))
        elif id(node) not in seen:
            seen.add(id(node))
            outs = [out for one in _as_one(node) for out in one.ports if out is not way[-1]]
            queue.extend((*way, out, out.peer) for out in outs if not is_switch(out.peer.node) or usable(out))
    return found


def _as_one(switch: Any) -> list[Any]:
    """A switch and those that it is joined with without a link in between."""
    found = [switch]
    for one in found:
        found += [other for other in getattr(one, "joined", ()) if other not in found]
    return found


def leads_to(out: NodePort, far: NodePort) -> bool:
    """Whether a frame that leaves a switch by `out` can reach the port `far` without coming back to that switch."""
    seen = {id(out.node)}
    queue: deque[NodePort] = deque([out.peer])
    while queue:
        port = queue.popleft()
        if port is far:
            return True
        if is_switch(port.node) and id(port.node) not in seen:
            seen.add(id(port.node))
            queue.extend(other.peer for other in port.node.ports if other is not port)
    return False


def nodes_of(start: Node) -> Iterator[Node]:
    """Every node of the lab that hangs together with `start`: itself first, then by distance; no switches."""
    seen = {id(start)}
    queue: deque[Any] = deque([start])
    while queue:
        node = queue.popleft()
        if not is_switch(node):
            yield node
        for other in (*(port.peer.node for port in node.ports), *getattr(node, "joined", ())):
            if id(other) not in seen:
                seen.add(id(other))
                queue.append(other)


def owner_of(start: Node, address: IPAddress) -> NodePort | None:
    """The port in the lab of `start` that was planned to have `address`."""
    for node in nodes_of(start):
        for port in node.ports:
            if any(same_address(ip.ip, address) for ip in port.addresses):
                return port
    return None


def connected(start: Node, target: Node) -> bool:
    """Whether links lead from one node to the other, by way of whatever nodes there are, as they were planned."""
    seen, waiting = {id(start)}, [start]
    while waiting:
        node = waiting.pop()
        if node is target:
            return True
        for wire in (wire for port in node.ports for wire in wires_from(port)):
            if id(wire.far.node) not in seen:
                seen.add(id(wire.far.node))
                waiting.append(wire.far.node)
    return False


def node_having(start: Node, address: IPAddress) -> Node | None:
    """The node in the lab of `start` that was planned to have `address`, else one of the nearest that has it now."""
    if port := owner_of(start, address):
        node: Node = port.node
        return node
    for node in islice(nodes_of(start), _MOST_NODES_ASKED):
        if any(same_address(item.ip.ip, address) for item in node.addresses):
            return node
    return None


def find_node(start: Node, name: str) -> Node | None:
    """The node of that name in the lab of `start`."""
    return next((node for node in nodes_of(start) if node.name == name), None)


def same_address(one: IPAddress, other: IPAddress) -> bool:
    """Whether two addresses are the same, whatever interface a link-local one names (RFC 4007)."""
    return one.version == other.version and int(one) == int(other)
