"""What the lab itself does to packets on a way, by its links and switches: for the cause of a verdict."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

__all__ = ["both_ways", "delay_s", "impaired", "lost_part", "meters_that_drop", "obstacles", "remedy"]


def obstacles(source: Any, destination: Any) -> list[str]:
    """What is in the way by the shortest way, in words: ``a:eth0 -> sw1:sw1-p1: rate 50 Mbit/s``.

    Impairments of links, ports that a switch shapes, and meters that have dropped packets.
    """
    links = [f"{port} -> {port.peer}: {impairment}" for port, impairment in impaired(source, destination)]
    way = _way(source, destination)
    shaped = [(port, getattr(port.node, "shaped", {}).get(port)) for port in way]
    meters = [text for node in dict.fromkeys(port.node for port in way) for text in meters_that_drop(node)]
    return [*links, *(f"{port.node.name} shapes {port}: {rates}" for port, rates in shaped if rates), *meters]


def meters_that_drop(node: Any) -> list[str]:
    """The meters of a switch that have dropped packets, in words."""
    if not getattr(node, "metered", {}):
        return []
    return [
        f"meter {meter.number} of {node.name} ({node.metered.get(meter.number, 'unknown')}) "
        f"has dropped {meter.dropped_packets} of {meter.packets} packets"
        for meter in node.meters
        if meter.dropped_packets
    ]


def remedy(on_the_way: Sequence[str]) -> str:
    """How to take away what `obstacles` told."""
    if any(" -> " in text for text in on_the_way):
        return "change what the link does: link.impair(…), link.clear()"
    return "change what the switch does: switch.qos(…), switch.meter(…)"


def impaired(source: Any, destination: Any) -> list[tuple[Any, Any]]:
    """The ports on the shortest way whose frames the lab impairs, each with its `net.impairment.Impairment`."""
    links = [(port, getattr(port, "link", None)) for port in _way(source, destination)]
    found = [(port, getattr(link, "impairments", {}).get(port)) for port, link in links]
    return [(port, impairment) for port, impairment in found if impairment]


def both_ways(source: Any, destination: Any) -> list[tuple[Any, Any]]:
    """As `impaired`, on the way there and on the way back."""
    return impaired(source, destination) + impaired(destination, source)


def delay_s(ways: list[tuple[Any, Any]]) -> float:
    """The longest that a packet is delayed on all of them together, seconds."""
    return float(sum(item.delay_s + item.jitter_s for _, item in ways))


def lost_part(ways: list[tuple[Any, Any]]) -> float:
    """The part of the packets that does not come through all of them, 0 to 1."""
    whole: float = 1.0
    for _, item in ways:
        whole *= (1 - item.loss) * (1 - item.corrupt)
    return 1 - whole


def _way(source: Any, destination: Any) -> list[Any]:
    """The ports by which packets leave each node and switch on the shortest way."""
    queue: deque[tuple[Any, tuple[Any, ...]]] = deque([(source, ())])
    seen = {id(source)}
    while queue:
        node, way = queue.popleft()
        if node is destination:
            return list(way)
        for port in node.ports:
            if id(port.peer.node) not in seen:
                seen.add(id(port.peer.node))
                queue.append((port.peer.node, (*way, port)))
    return []
