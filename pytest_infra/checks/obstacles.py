"""What the lab itself does to packets on a way: the impairments of its links, for the cause of a verdict."""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["impaired", "obstacles"]


def obstacles(source: Any, destination: Any) -> list[str]:
    """The impairments of the links on the shortest way, in words: ``a:eth0 -> sw1:sw1-p1: rate 50 Mbit/s``."""
    return [f"{port} -> {port.peer}: {impairment}" for port, impairment in impaired(source, destination)]


def impaired(source: Any, destination: Any) -> list[tuple[Any, Any]]:
    """The ports on the shortest way whose frames the lab impairs, each with its `net.impairment.Impairment`."""
    links = [(port, getattr(port, "link", None)) for port in _way(source, destination)]
    found = [(port, getattr(link, "impairments", {}).get(port)) for port, link in links]
    return [(port, impairment) for port, impairment in found if impairment]


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
