"""Source addresses that answers find no way back to: chosen wrongly, or put in by address translation (RFC 3022)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from ...core.node import IPAddress
from ..graph import nodes_of, same_address
from .finding import Case, Finding

__all__ = ["explain_return", "translated_source"]


def translated_source(case: Case) -> IPAddress | None:
    """The address that the packet had when it arrived, where that is another than it was sent from; else None."""
    arrived = case.trace.arrived_from if case.trace is not None else ""
    if not arrived or case.source_address is None or int(ip_address(arrived)) == int(case.source_address):
        return None
    return ip_address(arrived)


def explain_return(case: Case, finding: Finding, seen: IPAddress) -> Finding:
    """A cause on the way back, told with the address that the answer is for, where that is not a planned one.

    Args:
        case: the case.
        finding: what is wrong on the way back.
        seen: the address that the answer is for.
    """
    if translated_source(case) is not None:
        who = next((node for node in nodes_of(case.source) if case.view(node).owns(seen)), None)
        translator = f"{who.name} translates" if who is not None else "a node on the way translates"
        cause = f"{translator} {case.source_address} to {seen} (NAT), and the answer finds no way back to that: "
        return replace(finding, kind="nat-no-return", cause=cause + finding.cause)
    if any(same_address(ip.ip, seen) for port in case.source.ports for ip in port.addresses):
        return finding
    cause = f"{case.source.name} sends from {seen}, which the lab did not give it, and the answer finds no way back: "
    remedy = f"see why {case.source.name} chose that address (the src of a route?); {finding.next}"
    return replace(finding, kind="wrong-source", cause=cause + finding.cause, next=remedy)
