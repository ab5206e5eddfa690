"""Forwarding: does the next node pass on packets that are not for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .finding import Finding, HopFinder, spot
from .hop import Hop, far_place

__all__ = ["FORWARDING", "not_a_router"]

_ALL = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_ONE = {4: "net/ipv4/conf/{}/forwarding", 6: "net/ipv6/conf/{}/forwarding"}


def not_a_router(hop: Hop) -> Finding | None:
    """Whether the next node is a host, which does not forward, where the way needs a router."""
    far = hop.far
    if far is None or not _must_forward(hop) or getattr(far.node, "forwards", True):
        return None
    view, version = hop.case.view(far.node), hop.address.version
    return Finding(
        "not-a-router",
        far.node.name,
        f"{far.node.name} is a host, where the way needs a router: it does not forward IPv{version} "
        f"({_ALL[version]} = {view.sysctl(_ALL[version])}){_declared(far.node)}",
        f'declare it as a router: lab.router("{far.node.name}")',
        mark="NOT A ROUTER",
        port=spot(far),
    )


def _must_forward(hop: Hop) -> bool:
    """Whether the packet is not for the next node itself, and its interface there does not forward."""
    far = hop.far
    if far is None or far.node is hop.target:
        return False
    view, version = hop.case.view(far.node), hop.address.version
    decides = _ALL[6] if version == 6 else _ONE[4].format(far.name)
    return not view.owns(hop.address) and view.sysctl(decides) == "0"


def _forwarding(hop: Hop) -> Finding | None:
    """IPv4: the interface's own setting decides; that for all is the likelier cause and is named first (ip-sysctl).

    IPv6: only the setting for all decides; that of an interface is about router advertisements.
    """
    far = hop.far
    if far is None or not _must_forward(hop):
        return None
    if finding := not_a_router(hop):
        return finding
    view, version = hop.case.view(far.node), hop.address.version
    name = _ALL[version] if view.sysctl(_ALL[version]) == "0" else _ONE[version].format(far.name)
    return Finding(
        "forwarding-off",
        far.node.name,
        f"{far.node.name} does not forward IPv{version}: {name} = 0",
        f'turn it on: {far.node.name}.sysctl["{name}"] = "1"',
        mark="NOT FORWARDED",
        port=spot(far),
    )


def _declared(node: Any) -> str:
    line = getattr(node, "declared_at", "")
    return f" (declared at {line})" if line else ""


def _places(hop: Hop) -> Sequence[str]:
    return () if hop.far is None or hop.far.node is hop.target else far_place(hop)


FORWARDING = HopFinder("forwarding", _forwarding, _places)
"""Whether the next node forwards, where the packet is not for itself."""
