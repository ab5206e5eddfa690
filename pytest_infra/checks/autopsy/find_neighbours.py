"""The neighbour table: does the node know, and rightly, to which MAC address the frame has to go."""

from __future__ import annotations

from ...core.node import Neighbour, NodePort
from .find_filters import filtered, return_path
from .finding import Finding, HopFinder, spot
from .hop import Hop

__all__ = ["NEIGHBOUR"]

_UNRESOLVED = ("INCOMPLETE", "FAILED")
_IGNORE_ALL = "8"
_ASKING = ("ARP request", "ARP reply", "neighbour solicitation", "neighbour advertisement")


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
    if entry is None or entry.state == "NOARP":
        return _without_arp(hop, hop.port)
    if entry.state in _UNRESOLVED:
        seen = _without_arp(hop, hop.far) or _filtered(hop) or _ignored(hop)
        return seen or return_path(hop) or _unresolved(hop, entry)  # that filter looks at ARP requests, too
    return _wrong(hop, entry)


def _unresolved(hop: Hop, entry: Neighbour) -> Finding:
    assert hop.port is not None
    name, protocol = hop.node.name, "ARP" if hop.next_hop.version == 4 else "neighbour solicitations"
    here = spot(hop.port)
    return Finding(
        "neighbour-unresolved",
        name,
        f"{name} got no answer to its {protocol} for {hop.next_hop} on {here} ({entry.state}){_owner(hop)}",
        f"see what drops {protocol} between {_ends(hop)}: switch flows, packet filters, arp_ignore",
        mark="NO NEIGHBOUR",
        port=here,
    )


def _wrong(hop: Hop, entry: Neighbour) -> Finding | None:
    assert hop.port is not None
    name, right = hop.node.name, _macs(hop)
    if not right or not entry.mac or entry.mac.lower() in right:
        return None
    return Finding(
        "neighbour-wrong",
        name,
        f"{name} sends frames for {hop.next_hop} to {entry.mac} ({entry.state}), "
        f"but {_ends(hop, near=False)} has {right[0]}",
        f"correct the entry: ip neighbour replace {hop.next_hop} lladdr {right[0]} dev {hop.port.name}, in {name}",
        mark="WRONG NEIGHBOUR",
        port=spot(hop.port),
    )


def _without_arp(hop: Hop, port: NodePort | None) -> Finding | None:
    """Whether an interface neither asks nor answers."""
    interface = hop.case.view(port.node).interface(port) if port is not None else None
    if port is None or interface is None or interface.arp or interface.kind != "veth":
        return None
    return Finding(
        "no-arp",
        port.node.name,
        f"{spot(port)} neither asks for neighbours nor answers for itself (IFF_NOARP, netdevice(7))",
        f"ip link set dev {port.name} arp on, in {port.node.name}",
        mark="NO ARP",
        port=spot(port),
    )


def _filtered(hop: Hop) -> Finding | None:
    """The rule at either end, or of a bridge between, that was seen to drop the question or the answer."""
    places = {port.node.name for port in (hop.port, hop.far, *(hop.wire.ports if hop.wire else ())) if port is not None}
    drops = hop.case.trace.besides if hop.case.trace is not None else ()
    found = (drop for drop in drops if drop.node in places and drop.what in _ASKING)
    return next((filtered(drop, f"the {drop.what}") for drop in found), None)


def _ignored(hop: Hop) -> Finding | None:
    """Whether the one who should answer was told not to answer any ARP (ip-sysctl)."""
    if hop.far is None or hop.next_hop.version != 4:
        return None
    view, node = hop.case.view(hop.far.node), hop.far.node.name
    for name in ("all", hop.far.name):
        setting = f"net/ipv4/conf/{name}/arp_ignore"
        if view.sysctl(setting) == _IGNORE_ALL:
            return Finding(
                "arp-ignored",
                node,
                f"{node} answers no ARP at all: {setting.replace('/', '.')} = {_IGNORE_ALL}",
                f'{node}.sysctl["{setting}"] = "0"',
                mark="ARP IGNORED",
                port=spot(hop.far),
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
