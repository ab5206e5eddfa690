"""An address that two nodes have: packets or answers go to the wrong one (RFC 5227)."""

from __future__ import annotations

from itertools import islice

from ...core.node import IPAddress, IPNetwork
from ..graph import same_address, wires_from
from .finding import Case, EndFinder, Finding, HopFinder, spot
from .hop import Hop, far_place
from .view import View

__all__ = ["DUPLICATE", "OWN_ADDRESS", "kept_by_route"]

_MOST_NODES_ASKED = 32


def _duplicate(hop: Hop) -> Finding | None:
    if hop.port is None or hop.far is None:
        return None
    return _two_on_the_wire(hop) or _kept(hop)


def _two_on_the_wire(hop: Hop) -> Finding | None:
    """Whether two nodes answer for the address that the frame is for."""
    assert hop.port is not None
    assert hop.far is not None
    view, far = hop.case.view, hop.far
    if not view(far.node).owns(hop.next_hop):
        return None
    others = [wire.far for wire in wires_from(hop.port) if wire.far.node is not far.node]
    for other in islice(others, _MOST_NODES_ASKED):
        if view(other.node).answers_for(hop.next_hop, other.name):
            return _both(
                spot(far), spot(other), hop.next_hop, f"{hop.node.name} may get the wrong one", view(other.node)
            )
    return None


def _kept(hop: Hop) -> Finding | None:
    """Whether a node short of the target has an address of the packet, and so does not pass it on."""
    view, far = hop.case.view, hop.far
    if hop.target is None or far is None:
        return None
    if far.node is hop.target:
        return _from_itself(hop)
    if view(far.node).owns(hop.address):
        if not view(hop.target).owns(hop.address):
            return _moved(hop, spot(far))
        effect = f"{far.node.name} keeps the packets for itself"
        return _both(hop.target.name, spot(far), hop.address, effect, view(far.node))
    if (local := view(far.node).local_route_to(hop.address)) is not None:
        return kept_by_route(far.node.name, hop.address, local)
    return _from_itself(hop)


def kept_by_route(name: str, address: IPAddress, network: IPNetwork) -> Finding:
    """The finding for a node that has a route of the kind local for an address of another node."""
    cause = f"{name} takes packets for {address} for its own: it has a route of the kind local to {network}"
    return Finding("route-to-itself", name, cause, f"ip route del local {network}, in {name}", mark="KEPT HERE")


def _from_itself(hop: Hop) -> Finding | None:
    """Whether the next node has the address that the packet comes from (RFC 1812, 5.3.7)."""
    sender, far = hop.passed[0] if hop.passed else hop.node, hop.far
    if far is None or hop.origin is None or far.node is sender or not hop.case.view(far.node).owns(hop.origin):
        return None
    effect = f"{far.node.name} drops packets that seem to come from itself"
    return _both(sender.name, spot(far), hop.origin, effect, hop.case.view(far.node))


def _moved(hop: Hop, where: str) -> Finding:
    assert hop.target is not None
    name = hop.target.name
    return Finding(
        "address-gone",
        name,
        f"{name} does not have the address {hop.address} any more: {where} has it",
        f"check the node that has it now, or give it back to {name}",
        mark="NOT HERE",
        port=where,
    )


def _own_address(case: Case) -> Finding | None:
    if not case.view(case.source).owns(case.address):
        return None
    effect = f"{case.source.name} keeps the packets for itself"
    return _both(case.name, case.source.name, case.address, effect, case.view(case.source))


def _both(one: str, other: str, address: IPAddress, effect: str, view: View) -> Finding:
    name = view.node.name
    has = next(item for item in view.addresses if same_address(item.ip.ip, address))
    return Finding(
        "duplicate-address",
        name,
        f"{one} and {other} both have the address {address} (RFC 5227): {effect}",
        f"take it away from one of them, such as: ip address del {has.ip} dev {has.interface}, in {name}",
        mark="DUPLICATE",
        port=other if ":" in other else "",
    )


def _elsewhere(case: Case) -> bool:
    return case.destination is not None and case.destination is not case.source


DUPLICATE = HopFinder("duplicate addresses", _duplicate, far_place)
"""Whether another node has the address that the frame or the packet is for, or that it comes from."""
OWN_ADDRESS = EndFinder("duplicate addresses", _own_address, applies=_elsewhere)
"""Whether the sender has the address that it sends to."""
