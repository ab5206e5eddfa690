"""Routes that are missing, refuse the packet, or lead astray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...core.node import Route
from ..graph import connected, nodes_of, wires_from
from .find_duplicates import kept_by_route
from .find_forwarding import not_a_router
from .find_routing import without_session
from .find_switching import vlan_on
from .finding import Finding, HopFinder, planned, spot
from .hop import Hop

__all__ = ["GATEWAY", "LOOP", "ROUTE"]

_REFUSALS = {
    "blackhole": "drops it without a word",
    "unreachable": "answers 'host unreachable'",
    "prohibit": "answers 'prohibited'",
    "throw": "says that there is no route",
}


def _route(hop: Hop) -> Finding | None:
    route = hop.route
    if hop.target is not hop.node and (finding := _for_itself(hop)):
        return finding
    if (route is None or route.gateway is not None) and (finding := _other_subnet(hop)):
        return finding
    if hop.undecided:
        return None
    if route is None:
        return not_a_router(hop) or _apart(hop) or without_session(hop) or _no_route(hop)
    if route.kind in _REFUSALS:
        return _refusal(hop, route)
    return None


def _no_route(hop: Hop) -> Finding:
    name = hop.node.name
    cause = f"{name} has no route to {hop.address}; {_destinations(hop)}"
    return Finding("no-route", name, cause, f"add one: ip route add {_missing(hop)}, in {name}", mark="NO ROUTE")


def _apart(hop: Hop) -> Finding | None:
    """Whether no links of the lab join the two at all."""
    if hop.target is None or hop.plan is not None or connected(hop.node, hop.target):
        return None
    a, b = hop.node.name, hop.target.name
    cause = f"{a} has no route to {hop.address}, and could have none: no links join {a} and {b}, by way of whomever"
    remedy = f"join them: lab.link({a}, …), or a lab.router() with a link to either side"
    return Finding("not-connected", a, cause, remedy, mark="NOT CONNECTED")


def _for_itself(hop: Hop) -> Finding | None:
    """Whether the node takes the packet for its own, by a route to its loopback or one of the kind local."""
    view, route, name = hop.view, hop.route, hop.node.name
    if (local := view.local_route_to(hop.address)) is not None:
        return kept_by_route(name, hop.address, local)
    if route is None or route.interface != "lo" or route.kind != "unicast" or view.owns(hop.address):
        return None
    cause = f"{name} takes packets for {hop.address} for its own: it has a route to {_destination(hop, route)} by lo"
    remedy = f"ip route del {route.destination} dev lo, in {name}"
    return Finding("route-to-itself", name, cause, remedy, mark="KEPT HERE")


def _refusal(hop: Hop, route: Route) -> Finding:
    name, rule = hop.node.name, hop.rule
    cause = f"{name} has a route of the kind {route.kind} to {_destination(hop, route)}"
    remedy = f"ip route del {route.kind} {route.destination}"
    if rule is not None and rule.kind == route.kind:
        cause = f"{name} has a rule of policy routing for it, '{rule}'"
        remedy = f"ip rule del priority {rule.priority}"
    elif rule is not None:
        remedy += f" table {rule.table}"
    return Finding(
        f"{route.kind}-route",
        name,
        f"{cause}: it {_REFUSALS[route.kind]}",
        f"remove it: {remedy}, in {name}",
        mark=f"{route.kind.upper()} ROUTE",
    )


def _other_subnet(hop: Hop) -> Finding | None:
    """Whether the target hangs on the same wire, where no router joins the subnets of the two ends."""
    if hop.target is None or hop.plan is not None or hop.passed:
        return None
    version = hop.address.version
    wires = [wire for port in hop.node.ports for wire in wires_from(port) if wire.far.node is hop.target]
    for wire in wires:
        if (apart := vlan_on(hop, wire)) is not None:
            cause = f"{apart.cause}; so the lab gave the two ends subnets of their own"
            return replace(apart, cause=cause, port=hop.node.name)  # the way ends there
        near, far = (
            ", ".join(str(ip) for ip in port.addresses if ip.version == version) for port in (wire.near, wire.far)
        )
        if near and far:
            where = "one switch" if wire.switch_ports else "one wire"
            return Finding(
                "other-subnet",
                hop.node.name,
                f"{spot(wire.near)} ({near}) and {spot(wire.far)} ({far}) are on {where}, but in different subnets, "
                f"and no router joins these{planned(wire.far)}",
                f"give both ends addresses of one subnet, or put a lab.router() with an address in each on {where}",
                mark="OTHER SUBNET",
                port=spot(wire.near),
            )
    return None


def _destinations(hop: Hop) -> str:
    policy = hop.view.policy
    if policy is not None and (added := policy.rules_for(hop.address.version)):
        return f"its rules of policy routing choose none: {', '.join(repr(str(rule)) for rule in added)}"
    mine = [str(route.destination) for route in hop.view.routes if route.destination.version == hop.address.version]
    return f"its routes lead to {', '.join(dict.fromkeys(mine))}" if mine else "it has no routes at all"


def _missing(hop: Hop) -> str:
    """The route that the plan of the lab asks for, as far as there is one."""
    plan, version = hop.plan, hop.address.version
    if plan is None:
        return f"{hop.address} via GATEWAY"
    if plan.far.node is hop.target:
        networks = [
            str(ip.network) for ip in plan.near.addresses if ip.version == version and hop.address in ip.network
        ]
        return f"{networks[0] if networks else hop.address} dev {plan.near.name}"
    gateways = [str(ip.ip) for ip in plan.far.addresses if ip.version == version]
    return f"{hop.address} via {gateways[0]}" if gateways else f"{hop.address} dev {plan.near.name}"


def _destination(hop: Hop, route: Route) -> str:
    """Where the route leads, and the table and the rule where that is not the main table."""
    rule = hop.rule
    return f"{route.destination}{f' in table {rule.table}, by the rule {str(rule)!r}' if rule is not None else ''}"


def _words(hop: Hop, route: Route) -> str:
    via = f" via {route.gateway}" if route.gateway is not None else ""
    by = f" table {hop.rule.table}, by the rule {str(hop.rule)!r}" if hop.rule is not None else ""
    return f"{route.destination}{via} dev {route.interface}{by}"


def _gateway(hop: Hop) -> Finding | None:
    """Whether anybody on the wire has the address that the route hands the packet to."""
    route = hop.route
    if route is None or hop.port is None or (hop.wire is not None and _somebody_has(hop)):
        return None
    if hop.wire is not None and route.gateway is None:
        return None  # the node that was planned to have it is there; what became of its address is another finder's
    name = hop.node.name
    owner = _owner_elsewhere(hop)
    if route.gateway is None:
        if hop.target is None:
            cause = f"no node of the lab has the address {hop.address}"
            return Finding("nobody", name, cause, "use the address of a node", mark="NOBODY", port=spot(hop.port))
        cause = f"{name} takes {hop.address} for a neighbour on {spot(hop.port)} (route {_words(hop, route)}), "
        cause += f"but {owner} has it, which is not on that wire" if owner else "but nobody there has it"
        return Finding(
            "not-on-link",
            name,
            cause,
            f"join the two wires, or check the prefix length of the addresses of {name}",
            "NOT HERE",
            spot(hop.port),
        )
    who = f"{owner} has it, which is not on that wire" if owner else "no node of the lab has that address"
    planned = hop.plan
    right = [str(ip.ip) for ip in planned.far.addresses if ip.version == hop.address.version] if planned else []
    hint = f"; the next node on the way is {spot(planned.far)} ({', '.join(right)})" if planned and right else ""
    return Finding(
        "wrong-gateway",
        name,
        f"{name} sends it to the gateway {route.gateway} (route {_words(hop, route)}), but {who}",
        f"correct the route to {route.destination} in {name}{hint}",
        mark="WRONG GATEWAY",
        port=spot(hop.port),
    )


def _somebody_has(hop: Hop) -> bool:
    """Whether the node at the end of the wire has the address now, or was planned to."""
    assert hop.far is not None
    if hop.case.view(hop.far.node).owns(hop.next_hop):
        return True
    return any(int(ip.ip) == int(hop.next_hop) for port in hop.far.node.ports for ip in port.addresses)


def _owner_elsewhere(hop: Hop) -> str:
    assert hop.port is not None
    here = {id(wire.far.node) for wire in wires_from(hop.port)}
    for node in nodes_of(hop.node):
        for port in node.ports:
            if id(node) not in here and any(int(ip.ip) == int(hop.next_hop) for ip in port.addresses):
                return spot(port)
    return ""


def _loop(hop: Hop) -> Finding | None:
    way = (*hop.passed, hop.node)
    if hop.far is None or hop.far.node not in way:
        return None
    names = " -> ".join(node.name for node in (*way[way.index(hop.far.node) :], hop.far.node))
    return Finding(
        "routing-loop",
        hop.node.name,
        f"the routes to {hop.address} lead in a circle: {names}{_by_rule(hop)}",
        f"correct the route to {hop.address} in {hop.node.name}",
        mark="LOOP",
        port=spot(hop.far),
    )


def _by_rule(hop: Hop) -> str:
    return f"; {hop.node.name} goes by {_words(hop, hop.route)}" if hop.rule is not None and hop.route else ""


def _decided(hop: Hop) -> Sequence[str]:
    """Nothing is ruled out of a route that is not known, or that leads by an interface which is not the lab's."""
    return () if hop.undecided or (hop.route is not None and hop.port is None) else (hop.node.name,)


ROUTE = HopFinder("route", _route, _decided)
"""The route that the kernel takes for the packet."""
GATEWAY = HopFinder("route", _gateway, _decided)
"""Whether the route leads to somebody."""
LOOP = HopFinder("route", _loop, _decided)
"""Whether the packet is back where it has been."""
