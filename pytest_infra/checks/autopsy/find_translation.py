"""Address translation (RFC 3022): what stands behind a translated port, and sources that have no way back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from ...core.node import IPAddress, Node
from ..graph import node_having, nodes_of, same_address
from ..rule_trace import list_rules
from ..translation import translation_of
from .finding import Case, Finding
from .hop import Hop, walk

__all__ = ["Behind", "behind", "explain_behind", "explain_return", "translated_source"]


@dataclass(frozen=True)
class Behind:
    """Where a node sends what is for one of its ports."""

    node: Node
    rule: str
    case: Case
    """The same case from that node on."""


def behind(case: Case, passed: Sequence[Node]) -> Behind | None:
    """The translation of the destination by the target itself, or where no node has the address by one on the way.

    Args:
        case: the case.
        passed: the nodes that the packet comes by.
    """
    if case.protocol == "icmp":
        return None
    for node in [case.destination] if case.destination is not None else passed:
        if found := translation_of(node, case.protocol, case.address, case.port or 0):
            target = node if found.own else node_having(case.source, found.address)
            further = replace(case, source=node, destination=target, address=found.address, port=found.port)
            return Behind(node, found.rule, replace(further, translated_for=case.sender))
    return None


def explain_behind(there: Behind, case: Case, finding: Finding | None) -> Finding:
    """A cause behind a translated port, told with the translation; also where all that was looked at is fine."""
    node, further = there.node.name, there.case
    what = f"{case.protocol.upper()} port {case.port} of {case.address}"
    told = f"{node} translates {what} to port {further.port} of {further.address} ({there.rule})"
    if finding is not None:
        return replace(finding, cause=f"{told}; {finding.cause}")
    if (back := _way_around(there, case)) is not None:
        by = f"by {', '.join(back)}, not by {node}" if back else f"directly, not by {node}"
        cause = f"{told}; {further.name} answers {by}, so nobody translates it back, and {case.sender.name} ignores it"
        remedy = f"have the answers come by {node}: by a route of {further.name}, or masquerade there what it passes on"
        return Finding("nat-bypassed", further.name, cause, remedy, mark="ANSWERS ELSEWHERE")
    return Finding(
        "translated",
        node,
        f"{told}; the way there is as it should be, and what becomes of the packet there is not followed",
        f"check that part by itself: assert_reachable({node}, {further.name}, "
        f'protocol="{case.protocol}", port={further.port})',
        mark="TRANSLATED",
    )


def _way_around(there: Behind, case: Case) -> list[str] | None:
    """The routers by which the answer goes where it does not pass who translated the request; None where it does."""
    server, address = there.case.destination, case.source_address
    if server is None or server is there.node or address is None or case.sender is there.node:
        return None
    hops = list(walk(Hop(there.case, server, case.sender, address, there.case.address, back=True)))
    passed = [hop.far.node for hop in hops if hop.far is not None]
    if not passed or passed[-1] is not case.sender or there.node in passed:
        return None
    return [node.name for node in passed[:-1]]


def translated_source(case: Case) -> IPAddress | None:
    """The address that the packet had when it arrived, where that is another than it was sent from; else None."""
    arrived = case.trace.arrived_from if case.trace is not None else ""
    if not arrived or case.source_address is None or int(ip_address(arrived)) == int(case.source_address):
        return None
    return ip_address(arrived)


def _who_writes(case: Case, seen: IPAddress) -> Node | None:
    """The router whose rules name an address that no node has as a source that they write."""
    here = (node for node in nodes_of(case.source) if not getattr(node, "remote", False))
    routers = [node for node in here if getattr(node, "forwards", False)]
    rule = re.compile(rf"\bsnat(?: ip6?)? to {re.escape(str(seen))}\b")
    return next((node for node in routers if any(map(rule.search, node.call(list_rules)))), None)


def explain_return(case: Case, finding: Finding, seen: IPAddress) -> Finding:
    """A cause on the way back, told with the address that the answer is for, where that is not a planned one.

    Args:
        case: the case.
        finding: what is wrong on the way back.
        seen: the address that the answer is for.
    """
    if translated_source(case) is not None:
        who = next((node for node in nodes_of(case.source) if case.view(node).owns(seen)), _who_writes(case, seen))
        translator = f"{who.name} translates" if who is not None else "a node on the way translates"
        cause = f"{translator} {case.source_address} to {seen} (NAT), and the answer finds no way back to that: "
        return replace(finding, kind="nat-no-return", cause=cause + finding.cause)
    if any(same_address(ip.ip, seen) for port in case.sender.ports for ip in port.addresses):
        return replace(finding, kind="nat-no-return") if case.translated_for else finding
    cause = f"{case.source.name} sends from {seen}, which the lab did not give it, and the answer finds no way back: "
    remedy = f"see why {case.source.name} chose that address (the src of a route?); {finding.next}"
    return replace(finding, kind="wrong-source", cause=cause + finding.cause, next=remedy)
