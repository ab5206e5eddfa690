"""`Hop`: one step of a packet's way, from a node to the next one that handles it as an IP packet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ...core.node import IPAddress, Node, NodePort, Route
from ...net.policy import PolicyRule
from ..graph import Wire, same_address, wires_from
from .finding import Case
from .view import View

__all__ = ["Hop", "Pass", "far_place", "passes", "planned_wires", "walk"]

_MAX_HOPS = 64
_MAX_NEIGHBOURS_READ = 32


@dataclass(frozen=True, eq=False)
class Hop:
    """A packet for `address` at `node`: by which port it leaves, over which wire, to whom.

    What the node's kernel says goes before what the lab planned; the plan is what remains where the kernel's state
    has no answer.
    """

    case: Case
    node: Node
    target: Node | None
    """The node that the packet is for."""
    address: IPAddress
    origin: IPAddress | None = None
    """The address that the packet comes from; None where that is not known."""
    back: bool = False
    """Whether it is an answer, on its way back."""
    by: str = ""
    """The interface that the packet came by; "" where it begins."""
    passed: tuple[Node, ...] = ()
    """The nodes that the packet has come by, this one not included."""

    @property
    def view(self) -> View:
        """The kernel state of the node."""
        return self.case.view(self.node)

    @cached_property
    def arrived(self) -> bool:
        """Whether the packet is where it wanted to go."""
        return self.view.owns(self.address) or self.node is self.target

    @cached_property
    def plan(self) -> Wire | None:
        """The wire that the lab planned for it."""
        return _planned_wire(self.node, self.target, self.address.version)

    @cached_property
    def _chosen(self) -> tuple[Route | None, PolicyRule | None]:
        return self.view.chosen(self.address, self.origin, self.by)

    @property
    def route(self) -> Route | None:
        """The route that the kernel takes now."""
        return self._chosen[0]

    @property
    def rule(self) -> PolicyRule | None:
        """The rule of policy routing that chose it, where somebody added that."""
        return self._chosen[1]

    @property
    def undecided(self) -> bool:
        """Whether no route is known, and a rule of policy routing that selects by more than addresses may know one."""
        policy = self.view.policy
        rules = policy.rules_for(self.address.version) if policy is not None else []
        return self.route is None and any(rule.beyond for rule in rules)

    @cached_property
    def port(self) -> NodePort | None:
        """The port that it leaves by, or should."""
        plan = self.plan
        if self.route is None or self.route.kind != "unicast" or not self.route.interface:
            return plan.near if plan else None
        own = _own_subnet_bits(plan.near, self.address) if plan else 0
        if plan and self.route.interface != plan.near.name and self.route.destination.prefixlen < own:
            return plan.near  # the kernel has lost the route of its own subnet and takes one that is less exact
        return next((port for port in self.node.ports if port.name == self.route.interface), None)

    @cached_property
    def next_hop(self) -> IPAddress:
        """The address that the frame is for: the gateway's or the packet's own."""
        return self.route.gateway if self.route is not None and self.route.gateway is not None else self.address

    @cached_property
    def wire(self) -> Wire | None:
        """The wire from `port` to whoever has `next_hop`, or else to whoever was planned to have it."""
        if self.port is None:
            return None
        wires = wires_from(self.port, self._passable)
        meant = [wire for wire in wires if _has_planned(wire.far, self.next_hop)]
        if not meant:  # not by links between switches that are up
            wires = wires_from(self.port)
            meant = [wire for wire in wires if _has_planned(wire.far, self.next_hop)]
        others = [wire for wire in wires if wire not in meant][:_MAX_NEIGHBOURS_READ]
        for wire in (*meant, *others):
            if self.case.view(wire.far.node).owns(self.next_hop):
                return wire
        if meant:
            return meant[0]
        refused = self.route is None or self.route.kind != "unicast"
        return self.plan if refused and self.plan is not None and self.plan.near is self.port else None

    def _passable(self, port: NodePort) -> bool:
        """Whether a port of a switch has a signal now: there may be another way between two switches."""
        interface = self.case.view(port.node).interface(port)
        return interface is not None and interface.up and interface.carrier

    @property
    def far(self) -> NodePort | None:
        """The port that it arrives at."""
        return self.wire.far if self.wire else None


def far_place(hop: Hop) -> Sequence[str]:
    """The node at the other end of the hop, for finders that look there."""
    return () if hop.far is None else (hop.far.node.name,)


@dataclass(frozen=True)
class Pass:
    """A frame passes one switch."""

    switch: Any
    into: NodePort
    out: NodePort


def passes(wire: Wire | None) -> Iterator[Pass]:
    """The switches on a wire, in order."""
    ports = wire.switch_ports if wire is not None else ()
    for into, out in zip(ports[::2], ports[1::2], strict=True):
        yield Pass(into.node, into, out)


def walk(first: Hop) -> Iterator[Hop]:
    """The hops of a packet, from `first` on, for as long as it is known who gets it next.

    The node where it arrives is not a hop. The last hop of a loop is the one that leads back to a node passed before.
    """
    hop = first
    while len(hop.passed) < _MAX_HOPS and not hop.arrived:
        yield hop
        passed = (*hop.passed, hop.node)
        if hop.far is None or hop.far.node in passed:
            return
        hop = replace(hop, node=hop.far.node, by=hop.far.name, passed=passed)


def planned_wires(start: Node, target: Node | None, version: int) -> Iterator[Wire]:
    """The whole way from one node to the other as the lab planned it; nothing where there is none."""
    node, passed = start, 0
    while node is not target and (wire := _planned_wire(node, target, version)) and passed < _MAX_HOPS:
        yield wire
        node, passed = wire.far.node, passed + 1


def _planned_wire(start: Node, target: Node | None, version: int) -> Wire | None:
    """The first wire of the shortest way in the plan, by nodes that are meant to forward where that is possible."""
    if target is None:
        return None
    return _search(start, target, version, routers_only=True) or _search(start, target, version, routers_only=False)


def _search(start: Node, target: Node, version: int, *, routers_only: bool) -> Wire | None:
    seen = {id(start)}
    queue: deque[tuple[Node, Wire | None]] = deque([(start, None)])
    while queue:
        node, first = queue.popleft()
        for wire in (wire for port in node.ports for wire in wires_from(port)):
            far = wire.far.node
            if id(far) in seen or not _share_subnet(wire, version):
                continue
            if far is target:
                return first or wire
            seen.add(id(far))
            if getattr(far, "forwards", True) or (not routers_only and len(far.ports) > 1):
                queue.append((far, first or wire))
    return None


def _share_subnet(wire: Wire, version: int) -> bool:
    near = {ip.network for ip in wire.near.addresses if ip.version == version}
    return any(ip.network in near for ip in wire.far.addresses)


def _own_subnet_bits(port: NodePort, address: IPAddress) -> int:
    """The prefix length of the port's planned subnet that has the address; 0 for none."""
    networks = [ip.network for ip in port.addresses if ip.version == address.version]
    return max((network.prefixlen for network in networks if address in network), default=0)


def _has_planned(port: NodePort, address: IPAddress) -> bool:
    return any(same_address(ip.ip, address) for other in port.node.ports for ip in other.addresses)
