"""What Open vSwitch decides besides its flows: spanning trees and bonds (ovs-vswitchd.conf.db(5))."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...core.node import NodePort
from .finding import Finding, HopFinder, spot
from .hop import Hop

__all__ = ["BOND", "TREE"]

_ANOTHER_WAY = ("Alternate", "Backup")  # roles of ports that are shut because there is another way (IEEE 802.1D-2004)


def _ports(hop: Hop) -> Iterator[NodePort]:
    """The ports of bridges of Open vSwitch that a frame passes."""
    for port in hop.wire.switch_ports if hop.wire else ():
        if hasattr(port.node, "spanning_tree") and hasattr(port.node, "bond"):
            yield port


def _shut(hop: Hop) -> Finding | None:
    for port in _ports(hop):
        switch: Any = port.node
        tree = switch.settings.spanning_tree
        state = switch.spanning_tree.get(_row_name(port)) if tree else None
        if state is None or state.state == "Forwarding" or state.role in _ANOTHER_WAY:
            continue
        return Finding(
            "port-blocked",
            switch.name,
            f"{spot(port)} is in the state {state.state} (role {state.role}): the spanning tree of {switch.name} "
            f"({tree.upper()}) passes no frames there yet, or not any more",
            f"wait until it has settled: assert_converged(lab, within=); {switch.name}.spanning_tree tells its state",
            mark=state.state.upper(),
            port=spot(port),
        )
    return None


def _bond(hop: Hop) -> Finding | None:
    for port in _ports(hop):
        switch: Any = port.node
        bond = getattr(port, "bond", None)
        if bond is None or any((state := switch.bond(bond)).members.values()):
            continue
        name = bond.name_at(switch.name)
        up = bond.lacp and any(all(end.carrier for end in link.ports) for link in bond.links)
        why = "the other end does not answer by LACP (IEEE 802.1AX)" if up else "all are down"
        return Finding(
            "bond-down",
            switch.name,
            f"{name}, the bond of {', '.join(state.members)}, uses none of its links; {why}",
            f'compare both ends: {switch.name}.bond(bond), {switch.name}.appctl(["lacp/show"])',
            mark="BOND DOWN",
            port=spot(port),
        )
    return None


def _row_name(port: NodePort) -> str:
    bond = getattr(port, "bond", None)
    return port.name if bond is None else str(bond.name_at(port.node.name))


def _trees(hop: Hop) -> Sequence[str]:
    nodes: list[Any] = [port.node for port in _ports(hop)]
    return list(dict.fromkeys(node.name for node in nodes if node.settings.spanning_tree))


def _bonds(hop: Hop) -> Sequence[str]:
    return list(dict.fromkeys(port.node.name for port in _ports(hop) if getattr(port, "bond", None) is not None))


TREE = HopFinder("spanning tree", _shut, _trees)
"""Ports that a spanning tree protocol keeps shut."""
BOND = HopFinder("bonds", _bond, _bonds)
"""Bonds that use none of their links."""
