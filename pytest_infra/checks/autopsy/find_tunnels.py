"""Tunnels between switches: whether their packets have a way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...core.node import NodePort
from ..answer import Answer
from .find_filters import filtered
from .find_interfaces import signal
from .finding import Case, Finding, HopFinder, spot
from .hop import Hop

__all__ = ["TUNNEL"]


def _tunnels(hop: Hop) -> Iterator[tuple[NodePort, Any]]:
    """The tunnels that the frame goes through, each with the port by which it enters."""
    for into, out in zip(hop.wire.ports[:-1], hop.wire.ports[1:], strict=True) if hop.wire else ():
        link = getattr(into, "link", None)
        if getattr(link, "endpoints", ()) and out.peer is into:
            yield into, link


def _tunnel(hop: Hop) -> Finding | None:
    for into, tunnel in _tunnels(hop):
        over = getattr(tunnel, "over", None)
        finding = _dropped(hop.case, tunnel) or (_between(hop.case, *over) if over else _under(tunnel, into))
        if finding is not None:
            a, b = tunnel.endpoints
            told = f"the {tunnel.kind} tunnel {tunnel} has no way from {a} to {b}: {finding.cause}"
            return replace(finding, cause=told, mark="NO WAY FOR THE TUNNEL", port=spot(into))
    return None


def _dropped(case: Case, tunnel: Any) -> Finding | None:
    """The rule of nftables that was seen to drop a packet of such a tunnel."""
    names = {"vxlan": "VXLAN", "geneve": "Geneve", "gre": "GRE"}
    drops = case.trace.besides if case.trace is not None else ()
    wanted = f"{names.get(tunnel.kind, tunnel.kind)} packet"
    return next((filtered(drop, f"the {wanted}") for drop in drops if drop.what == wanted), None)


def _under(tunnel: Any, into: NodePort) -> Finding | None:
    """What is wrong on the way that the tunnel's packets take, from one host to the other."""
    from .examine import examine

    far = into.peer
    addresses = dict(zip(tunnel.ports, tunnel.endpoints, strict=True))
    source, destination = (port.node.host for port in (into, far))
    case = Case(source, destination, addresses[far], addresses[into], "icmp", None, Answer("silence"))
    finding = examine(case).finding
    return None if finding is not None and finding.kind == "echo-ignored" else finding


def _between(case: Case, start: Any, end: Any) -> Finding | None:
    """The wire without a signal that keeps one switch from the other; None where there is a way."""
    seen, queue, broken = {id(start)}, [start], None
    for switch in queue:
        if switch is end:
            return None
        for port in switch.ports:
            other = port.peer.node
            if not hasattr(other, "attach") or id(other) in seen:
                continue
            if finding := signal(case, port):
                broken = broken or finding
                continue
            seen.add(id(other))
            queue.append(other)
    return broken or Finding(
        "not-a-port",
        start.name,
        f"{start.name} and {end.name} are not linked with each other",
        f"link them: lab.link({start.name}, {end.name}, mtu=1600)",
    )


def _places(hop: Hop) -> Sequence[str]:
    return [str(tunnel) for _, tunnel in _tunnels(hop)]


TUNNEL = HopFinder("way of the tunnel", _tunnel, _places)
"""Whether the packets of the tunnels on the way have one themselves."""
