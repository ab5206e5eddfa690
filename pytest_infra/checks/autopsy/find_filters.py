"""What drops a packet on purpose: reverse path filters, and the rules that a second probe was seen to meet."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from ...core.node import IPAddress
from ...net.messages import get_route
from ...net.netlink import NetlinkError, NetlinkSocket
from ..graph import nodes_of
from ..rule_trace import RuleDrop
from .finding import Case, EndFinder, Finding, HopFinder, spot
from .hop import Hop, far_place, planned_wires, walk

__all__ = ["RETURN_PATH_FILTER", "RULES", "RULES_ON_THE_WAY", "dropped_on_the_way", "filtered", "return_path"]

_OF_FAULTS = "infra-"
_MODES = {1: "strict", 2: "loose"}


def return_path(hop: Hop) -> Finding | None:
    """Whether the next node drops the packet because it would not answer by that interface (RFC 3704)."""
    far, origin = hop.far, hop.origin
    if far is None or origin is None or origin.version != 4:
        return None
    view = hop.case.view(far.node)
    name, mode = _setting(hop)
    interface = view.interface(far)
    if not mode or interface is None:
        return None
    route = view.route_to(origin, hop.address)
    said = far.node.call(_kernel_says, hop.address, origin, interface.index)
    elsewhere = route is None or (mode == 1 and route.interface != far.name)
    if not (
        said == errno.EXDEV or (said == errno.EINVAL and elsewhere)
    ):  # Linux since 6.14 says EINVAL to all of these
        return None
    back = (
        "it has no route to" if route is None else f"its route to it ({route.destination}) leads by {route.interface}"
    )
    return Finding(
        "rp-filter",
        far.node.name,
        f"the reverse path filter of {far.node.name} drops packets from {origin} that arrive by {spot(far)}: "
        f"{back}{f' {origin}' if route is None else ''} ({name} = {mode}, {_MODES[min(mode, 2)]}, RFC 3704)",
        f'correct the route to {origin} in {far.node.name}, or set {far.node.name}.sysctl["{name}"] = "0"',
        mark="RP FILTER",
        port=spot(far),
    )


def _kernel_says(destination: IPAddress, source: IPAddress, arrives_by: int) -> int:
    """The error with which the kernel of the calling thread's namespace would drop such a packet; 0 for none."""
    with NetlinkSocket() as netlink:
        request = get_route(destination, source=source, arrives_by=arrives_by)
        try:
            netlink.request([(request, "ask what would become of a packet")])
        except NetlinkError as error:
            return error.errno or 0
    return 0


def _rules(case: Case) -> Finding | None:
    """The rule that dropped the second probe, or its answer: told by the kernel, not guessed."""
    assert case.trace is not None
    for drop in case.trace.rules:
        return filtered(drop, "the packet" if drop.what == "request" else f"the answer of {case.name}")
    return None


def filtered(drop: RuleDrop, what: str) -> Finding:
    """The finding for a rule that was seen to drop something."""
    remedy = f"change it: nft -a list chain {drop.family} {drop.table} {drop.chain}, in {drop.node}"
    if drop.handle:
        remedy = f"delete rule {drop.family} {drop.table} {drop.chain} handle {drop.handle}"
        remedy = f"allow {what} before it, or take it away: nft {remedy}, in {drop.node}"
    refused = "rejects" if "reject" in drop.rule else "drops"
    if drop.chain.startswith("refuse-") and drop.table.startswith("service-"):
        remedy = "give it back ends: set_backends, or see who took them away"
    elif drop.table.startswith(_OF_FAULTS):
        remedy = "it goes when the fault ends"
    cause = f"{_whose(drop)} of {drop.node} {refused} {what}: {drop}"
    mark = "REJECTED HERE" if refused == "rejects" else "DROPPED HERE"
    return Finding("filtered", drop.node, cause, remedy, mark=mark)


def _whose(drop: RuleDrop) -> str:
    """Who made the rule, where that was not the test: the tables of this project have names of their own."""
    if drop.table.startswith(_OF_FAULTS):
        return f"the fault {drop.table.removeprefix(_OF_FAULTS).rpartition('-')[0].replace('-', '_')}"
    if drop.chain.startswith("refuse-") and drop.table.startswith("service-"):
        return f"the service {drop.table.removeprefix('service-')} has no back end, so the firewall"
    return "the firewall"


def dropped_on_the_way(first: Hop) -> bool:
    """Whether a rule was seen to drop the probe where it should come by: at an end, a router or a bridge of its way.

    A router that takes the packet for its own is none of these.
    """
    case = first.case
    if not _traced(case):
        return False
    assert case.trace is not None
    way = [case.source, case.destination, *(hop.node for hop in walk(first))]
    wires = planned_wires(case.source, case.destination, case.address.version)
    way += [wire.far.node for wire in wires]
    way += [node for node in nodes_of(case.source) if getattr(node, "forwards", False)]
    name = case.trace.rules[0].node
    if any(port.node.name == name for wire in wires for port in wire.switch_ports):
        return True
    where = next((node for node in way if node is not None and node.name == name), None)
    ends = (case.source, case.destination)
    return where is not None and (where in ends or not case.view(where).owns(case.address))


def _on_the_way(case: Case) -> bool:
    return dropped_on_the_way(Hop(case, case.source, case.destination, case.address, case.source_address))


def _traced(case: Case) -> bool:
    return case.trace is not None and bool(case.trace.rules)


def _setting(hop: Hop) -> tuple[str, int]:
    """The setting that decides at the next node's interface, which is the greater of two (ip-sysctl)."""
    assert hop.far is not None
    view = hop.case.view(hop.far.node)
    names = ["net/ipv4/conf/all/rp_filter", f"net/ipv4/conf/{hop.far.name}/rp_filter"]
    return max(((name, int(view.sysctl(name) or 0)) for name in names), key=lambda item: item[1])


def _places(hop: Hop) -> Sequence[str]:
    if hop.far is None or hop.origin is None or hop.origin.version != 4:
        return ()
    return far_place(hop) if _setting(hop)[1] else ()


RETURN_PATH_FILTER = HopFinder("reverse path filter", return_path, _places)
"""Whether the next node takes a packet with such a source address on that interface."""
RULES_ON_THE_WAY = EndFinder("", _rules, applies=_on_the_way)
"""The rule of nftables that dropped it where it should come by."""
RULES = EndFinder("firewall rules", _rules, applies=_traced)
"""The rule of nftables that dropped it elsewhere: why it came there is asked first."""
