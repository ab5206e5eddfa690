"""`LabServices`: what the labs of a session share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .core.errors import Unavailable
from .core.lease import Lease
from .core.resource import Resource
from .net.namespace import Entrance

if TYPE_CHECKING:
    from .container.engine import Engine
    from .net.ovs_pool import OvsPool
    from .net.recorder import Recorder

__all__ = ["LabServices"]


def _no_engine() -> Engine:
    raise Unavailable("docker", "this lab has no container engine", "make it with Infra().lab()")


@dataclass(frozen=True)
class LabServices:
    """What the labs of a session share."""

    entrance: Entrance
    """Makes and enters network namespaces."""
    ovs_pool: OvsPool
    """The Open vSwitch instances."""
    lease: Lease
    """Tells others which labs are up."""
    engine: Callable[[], Engine] = _no_engine
    """Gives the container engine, started."""
    recorder: Recorder | None = None
    """Has the latest frames of every lab; None where nobody asked for it."""
    before_end: Callable[[Any, BaseException | None], object] = lambda _lab, _error: None
    """Called with a lab, and the error that it ends with, before it ends in order."""
    labs: set[Resource] = field(default_factory=set)
    """Those that are up."""
