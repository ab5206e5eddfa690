"""The neighbour table: does the node know, and rightly, to which MAC address the frame has to go."""

from __future__ import annotations

from .finding import Finding, HopFinder, spot
from .hop import Hop

__all__ = ["NEIGHBOUR"]

_UNRESOLVED = ("INCOMPLETE", "FAILED")


def _neighbour(hop: Hop) -> Finding | None:
    if hop.port is None:
        return None
    entry = next(
        (
            item
            for item in hop.view.neighbours
            if item.interface == hop.port.name
            and item.ip.version == hop.next_hop.version
            and int(item.ip) == int(hop.next_hop)
        ),
        None,
    )
    if entry is None:
        return None
    name, protocol = hop.node.name, "ARP" if hop.next_hop.version == 4 else "neighbour solicitations"
    here = spot(hop.port)
    if entry.state in _UNRESOLVED:
        return Finding(
            "neighbour-unresolved",
            name,
            f"{name} got no answer to its {protocol} for {hop.next_hop} on {here} ({entry.state}){_owner(hop)}",
            f"see what drops {protocol} between {_ends(hop)}: switch flows, packet filters, arp_ignore",
            mark="NO NEIGHBOUR",
            port=here,
        )
    right = _macs(hop)
    if right and entry.mac and entry.mac.lower() not in right:
        return Finding(
            "neighbour-wrong",
            name,
            f"{name} sends frames for {hop.next_hop} to {entry.mac} ({entry.state}), "
            f"but {_ends(hop, near=False)} has {right[0]}",
            f"correct the entry: ip neighbour replace {hop.next_hop} lladdr {right[0]} dev {hop.port.name}, in {name}",
            mark="WRONG NEIGHBOUR",
            port=here,
        )
    return None


def _owner(hop: Hop) -> str:
    return f"; {spot(hop.far)} has that address, is up and has carrier" if hop.far is not None else ""


def _ends(hop: Hop, near: bool = True) -> str:
    assert hop.port is not None
    far = spot(hop.far) if hop.far is not None else str(hop.next_hop)
    return f"{spot(hop.port)} and {far}" if near else far


def _macs(hop: Hop) -> list[str]:
    """The MAC addresses of the node that has the next hop's address, first that of the port on this wire."""
    if hop.far is None:
        return []
    view = hop.case.view(hop.far.node)
    first = view.interface(hop.far)
    ordered = [first] if first is not None else []
    return [item.mac.lower() for item in (*ordered, *view.interfaces.values())]


NEIGHBOUR = HopFinder("neighbour", _neighbour)
"""The entry for the next hop in the neighbour table."""
