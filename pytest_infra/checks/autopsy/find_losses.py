"""What is left when all state is as it should be: where a second probe, followed on its way, was lost."""

from __future__ import annotations

from ..graph import find_node
from .finding import Case, EndFinder, Finding

__all__ = ["INTERMITTENT", "LOSS", "UDP_SILENCE"]


def _loss(case: Case) -> Finding | None:
    trace = case.trace
    if trace is None or trace.status != "lost":
        return None
    what = "the packet" if trace.what == "request" else f"the answer of {case.name}"
    node = trace.at.split(":")[0]
    if trace.before:
        cause = f"{what} left {trace.at} and did not arrive at {trace.before}: something in between drops it"
        remedy = "look at what is in between: the flows of a switch, tc filters and XDP programs of the ports"
        return Finding("dropped-between", node, cause, remedy, mark="NOT SEEN", port=trace.before)
    remedy = f"look at the rules in {node}: nft list ruleset"
    suspicion = f"a packet filter of {node} is suspected"
    if rules := _not_followed(case, node):
        suspicion += f", or its policy routing, of which '{rules[0]}' was not followed"
        remedy += f", and ip rule, ip route show table all in {node}"
    if trace.what == "reply" and node == case.name:
        cause = f"the packet was delivered to {node}, which sent no answer: {suspicion}"
        return Finding("filtered", node, cause, remedy, mark="NO ANSWER")
    if node == case.source.name:
        did = "did not leave" if trace.what == "request" else "arrived at"
        cause = f"{what} {did} {node}{'' if trace.what == 'request' else ', which did not take it'}"
    else:
        cause = f"{what} arrived at {node}, which did not take it or pass it on"
    return Finding("filtered", node, f"{cause}: {suspicion}", remedy, mark="DROPPED HERE")


def _not_followed(case: Case, name: str) -> list[str]:
    """The rules of policy routing of a node that select by more than addresses and interfaces."""
    node = find_node(case.source, name)
    policy = case.view(node).policy if node is not None else None
    return [str(rule) for rule in policy.rules_for(case.address.version) if rule.beyond] if policy is not None else []


def _intermittent(case: Case) -> Finding | None:
    if case.trace is None or case.trace.status != "answered":
        return None
    return Finding(
        "intermittent",
        case.name,
        "a second probe was answered: the first was lost on the way, or its answer came too late",
        "measure how often: ping(…, count=100); allow more time with within=",
    )


def _udp_silence(case: Case) -> Finding | None:
    if case.trace is not None and case.trace.status == "delivered":
        cause = f"a second datagram was delivered to {case.name}; the server on its UDP port {case.port} stays silent"
        return Finding("udp-silence", case.name, cause, "look at the log of the server", mark="SILENT")
    return Finding(
        "udp-silence",
        case.name,
        f"it cannot be told: the server on UDP port {case.port} of {case.name} may have stayed silent, "
        "or a firewall have dropped the datagram, which is not sent twice",
        "name a payload= that the server answers, or test only the network with serve=True",
        mark="SILENT",
    )


def _silent_udp_server(case: Case) -> bool:
    told = case.trace is not None and case.trace.status in ("lost", "answered")
    return case.protocol == "udp" and not case.served and case.answer.kind == "silence" and not told


UDP_SILENCE = EndFinder("", _udp_silence, applies=_silent_udp_server)
"""Whether silence proves nothing."""
LOSS = EndFinder("", _loss)
"""Where the second probe was lost."""
INTERMITTENT = EndFinder("", _intermittent)
"""Whether the second probe was answered."""
