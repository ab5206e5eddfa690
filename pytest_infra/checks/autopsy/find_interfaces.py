"""Interfaces that are gone, down or without carrier: at both ends of a hop, and on the switches in between."""

from __future__ import annotations

from ...core.node import NodePort
from .finding import Case, Finding, HopFinder, planned, spot
from .hop import Hop, far_place

__all__ = ["CARRIER", "FAR_INTERFACE", "INTERFACE", "SWITCH_PORTS", "signal"]


def _down(case: Case, port: NodePort) -> Finding | None:
    """Whether an interface is gone or set down."""
    name = port.node.name
    interface = case.view(port.node).interface(port)
    if interface is None:
        there = ", ".join(sorted(case.view(port.node).interfaces)) or "none"
        return Finding(
            "interface-gone",
            name,
            f"{spot(port)} is gone{planned(port)}; the interfaces of {name} are {there}",
            f"see what deleted, renamed or moved {port.name} of {name}",
            mark="GONE",
            port=spot(port),
        )
    if not interface.up:
        return Finding(
            "interface-down",
            name,
            f"{spot(port)} is down{planned(port)}",
            f"set it up again: {_up_command(port)}",
            mark="DOWN",
            port=spot(port),
        )
    return None


def _up_command(port: NodePort) -> str:
    number = next((number for number, other in enumerate(port.node.ports) if other is port), None)
    return f"ip link set {port.name} up" if number is None else f"{port.node.name}.ports[{number}].up()"


def _no_carrier(case: Case, port: NodePort) -> Finding | None:
    """Whether an interface that is up hears nothing, and which end of its wire is to blame."""
    interface = case.view(port.node).interface(port)
    if interface is None or interface.carrier:
        return None
    peer = port.peer
    if other := _down(case, peer):
        return Finding(
            other.kind,
            other.node,
            f"{other.cause}, so {spot(port)} has no carrier",
            other.next,
            mark=other.mark,
            port=other.port,
        )
    return Finding(
        "no-carrier",
        port.node.name,
        f"{spot(port)} has no carrier{planned(port)}, though both ends of its wire are up",
        f"see what {spot(peer)} is connected to now",
        mark="NO CARRIER",
        port=spot(port),
    )


def signal(case: Case, port: NodePort) -> Finding | None:
    """Why there is no signal on the wire of a port; None where there is one."""
    return _down(case, port) or _no_carrier(case, port)


def _interface(hop: Hop) -> Finding | None:
    return _down(hop.case, hop.port) if hop.port is not None else None


def _carrier(hop: Hop) -> Finding | None:
    return _no_carrier(hop.case, hop.port) if hop.port is not None else None


def _far_interface(hop: Hop) -> Finding | None:
    if hop.far is None:
        return None
    return signal(hop.case, hop.far)


def _switch_ports(hop: Hop) -> Finding | None:
    for port in hop.wire.switch_ports if hop.wire else ():
        if finding := signal(hop.case, port) or _bridge(hop.case, port):
            return finding
    return None


def _bridge(case: Case, port: NodePort) -> Finding | None:
    """Whether a Linux bridge is down, or a port is no longer one of its ports."""
    switch = port.node
    bridge = case.view(switch).interfaces.get(switch.name)
    if bridge is None or bridge.kind != "bridge":
        return None
    if not bridge.up:
        return Finding(
            "bridge-down",
            switch.name,
            f"the bridge device {switch.name} is down, so it forwards nothing",
            f"set it up again: ip link set {switch.name} up, in the namespace of the bridge",
            mark="BRIDGE DOWN",
            port=spot(port),
        )
    interface = case.view(switch).interface(port)
    if interface is not None and interface.master != switch.name:
        instead = f"it is a port of {interface.master}" if interface.master else "it belongs to no bridge"
        return Finding(
            "not-a-port",
            switch.name,
            f"{spot(port)} is not a port of {switch.name} any more: {instead}",
            f"attach it again: ip link set {port.name} master {switch.name}, in the namespace of the bridge",
            mark="NOT A PORT",
            port=spot(port),
        )
    return None


def _switches(hop: Hop) -> list[str]:
    return list(dict.fromkeys(port.node.name for port in hop.wire.switch_ports)) if hop.wire else []


INTERFACE = HopFinder("interface", _interface)
"""The port that the packet leaves by."""
CARRIER = HopFinder("carrier", _carrier)
"""The wire at that port."""
SWITCH_PORTS = HopFinder("ports", _switch_ports, _switches)
"""The ports of the switches in between."""
FAR_INTERFACE = HopFinder("interface", _far_interface, far_place)
"""The port that it arrives at."""
