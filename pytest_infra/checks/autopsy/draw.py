"""The path of a packet as one line of text, with a mark at the place where something is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from .finding import Finding, spot
from .hop import Hop, planned_wires

__all__ = ["draw"]


def draw(hops: Sequence[Hop], finding: Finding | None) -> str:
    """The ports that the packet passes, in order: ``a:eth0 -> sw1:sw1-p1 -> sw1:sw1-p2 DOWN -> b:eth0``.

    Where it is not known how the packet goes on, the rest is what the lab planned.
    """
    if not hops:
        return ""
    places = _places(hops) + _rest(hops[-1])
    if finding is not None and finding.mark and (at := _place_of(finding, places)) is not None:
        places[at] += f" {finding.mark}"
    return " -> ".join(places)


def _places(hops: Sequence[Hop]) -> list[str]:
    places: list[str] = []
    for hop in hops:
        if hop.wire is not None:
            places += [spot(port) for port in hop.wire.ports]
        elif hop.port is not None:
            places.append(spot(hop.port))
        elif not places or places[-1].split(":")[0] != hop.node.name:
            places.append(hop.node.name)
    return places


def _rest(last: Hop) -> list[str]:
    """From the end of the known way to the target, if it is not there yet."""
    if last.target is None:
        return []
    if last.far is None or last.far.node in (*last.passed, last.node):
        return [f"... {last.target.name}"]
    return [
        spot(port) for wire in planned_wires(last.far.node, last.target, last.address.version) for port in wire.ports
    ]


def _place_of(finding: Finding, places: Sequence[str]) -> int | None:
    """Where the mark goes: at the port, else where the path first comes to the node."""
    if finding.port in places:
        return len(places) - 1 - places[::-1].index(finding.port)
    return next((i for i, place in enumerate(places) if place.split(":")[0] == finding.node), None)
