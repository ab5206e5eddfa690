"""Why routing daemons know no way: one that has ended, neighbours that are none, sessions that are not established."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from ...core.errors import InfraError
from ..graph import node_having, wires_from
from .finding import Finding, spot
from .hop import Hop

__all__ = ["without_session"]


@dataclass(frozen=True)
class _Protocol:
    daemon: str
    name: str
    versions: tuple[int, ...]
    missing: Callable[[Hop, _Protocol], str]
    """Which neighbour is not one, in words; empty where all are."""
    asked: str
    """The command of vtysh(1) that lists the neighbours."""
    compared: str
    """What must agree at both ends."""
    shows: str
    """The command that shows that."""
    source: str


def without_session(hop: Hop) -> Finding | None:
    """Why a router with daemons has no route; None where it has none of them, or they cannot be asked."""
    name, daemons = hop.node.name, getattr(hop.node, "started_daemons", {})
    mine = [one for one in _PROTOCOLS if one.daemon in daemons and hop.address.version in one.versions]
    none = f"{name} has no route to {hop.address}"
    for one in mine:
        if not daemons[one.daemon].running:
            remedy = f'see {name}.log("{one.daemon}"); {name}.restart_daemon("{one.daemon}") starts it again'
            return Finding("daemon-ended", name, f"{none}: its {one.daemon} has ended", remedy, mark="NO ROUTE")
    for one in mine:
        try:
            missing = one.missing(hop, one)
        except InfraError:
            return None
        if missing:
            remedy = f'compare {one.compared} at both ends: {name}.vtysh("{one.shows}", json=False)'
            return Finding("no-adjacency", name, f"{none}: {missing} ({one.source})", remedy, mark="NO ROUTE")
    if not mine:
        return None
    names = " and ".join(one.name for one in mine)
    remedy = "have a neighbour announce it, by a network statement or by redistribute connected"
    return Finding("no-route", name, f"{none}: nobody announces it by {names}", remedy, mark="NO ROUTE")


def _no_ospf_neighbour(hop: Hop, protocol: _Protocol) -> str:
    router: Any = hop.node
    found = list(_ospf_neighbours(router.vtysh(protocol.asked).get("neighbors", {})))
    for port in hop.node.ports:
        far = [wire.far for wire in wires_from(port) if protocol.daemon in getattr(wire.far.node, "daemons", ())]
        states = [state for interface, state in found if interface == port.name]
        if far and not any(state.startswith("Full") for state in states):
            known = f"its state is {states[0]}" if states else "it has not heard of it"
            who = " or ".join(end.node.name for end in far)
            return f"it is no {protocol.name} neighbour of {who} on {spot(port)}, {known}"
    return ""


def _ospf_neighbours(said: Any) -> Iterator[tuple[str, str]]:
    """The interface and the state of each: by the neighbour's identifier in OSPF, a plain list in OSPFv3."""
    entries = [item for items in said.values() for item in items] if isinstance(said, Mapping) else said
    for item in entries:
        interface = item.get("ifaceName") or item.get("interfaceName") or ""
        yield interface.partition(":")[0], item.get("nbrState") or item.get("state") or ""


def _no_bgp_session(hop: Hop, protocol: _Protocol) -> str:
    router: Any = hop.node
    family = router.vtysh(protocol.asked).get(f"ipv{hop.address.version}Unicast", {})
    for address, peer in family.get("peers", {}).items():
        if (state := peer.get("state")) != "Established":
            owner = node_having(hop.node, ip_address(address))
            who = f"{address} ({owner.name})" if owner is not None else address
            return f"its BGP session with {who} is not established, its state is {state}"
    return ""


_OSPF = "area, subnet, hello and dead interval, authentication and MTU"
_BGP = "AS numbers, addresses and policies"
_PROTOCOLS = (
    _Protocol(
        "ospfd", "OSPF", (4,), _no_ospf_neighbour, "show ip ospf neighbor", _OSPF, "show ip ospf interface", "RFC 2328"
    ),
    _Protocol(
        "ospf6d",
        "OSPFv3",
        (6,),
        _no_ospf_neighbour,
        "show ipv6 ospf6 neighbor",
        _OSPF,
        "show ipv6 ospf6 interface",
        "RFC 5340",
    ),
    _Protocol("bgpd", "BGP", (4, 6), _no_bgp_session, "show bgp summary", _BGP, "show bgp neighbors", "RFC 4271"),
)
