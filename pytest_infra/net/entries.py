"""What tells another process how to enter the nodes of a lab."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ..core.guard import Guard

__all__ = ["Enterable", "entries"]


class Enterable(Protocol):
    """A node or a switch."""

    name: str

    def namespaces(self) -> Mapping[str, int]:
        """The descriptors of its namespaces, by their names under /proc/PID/ns."""


def entries(owners: Iterable[Enterable], pid: int, guard: Guard | None) -> dict[str, Any]:
    """What `Lease.publish` takes: paths to the namespaces of each node.

    Args:
        owners: the nodes and switches.
        pid: the process that has their descriptors open.
        guard: the lab's, through whose first process those of the nodes are seen.
    """
    shared = {kind: f"/proc/{guard.pid}/ns/{kind}" for kind in ("pid", "mnt")} if guard else {}
    nodes = {}
    for owner in owners:
        inside = getattr(owner, "daemons_pid", 0)  # a switch whose daemons have a guard of their own
        around = {kind: f"/proc/{inside}/ns/{kind}" for kind in ("pid", "mnt")} if inside else shared
        own = {kind: f"/proc/{pid}/fd/{fd}" for kind, fd in owner.namespaces().items() if fd >= 0}
        nodes[owner.name] = {"namespaces": {**around, **own}}
    return {"nodes": nodes}
