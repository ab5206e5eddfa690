"""What an autopsy is made of: findings, the finders that make them, and the case they look into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...core.node import IPAddress, Node, NodePort
from ..answer import Answer
from ..outcome import Outcome
from .view import View

if TYPE_CHECKING:
    from .hop import Hop

__all__ = ["Case", "EndFinder", "Finding", "HopFinder", "planned", "spot"]


@dataclass(frozen=True)
class Finding:
    """A cause: what is wrong, where, and what to do about it."""

    kind: str
    """A short name that stays the same between versions: ``interface-down``, ``no-route`` …"""
    node: str
    """The node or switch at which it is wrong."""
    cause: str
    next: str
    mark: str = ""
    """What the path shows at the place: ``DOWN``, ``NO ROUTE`` …"""
    port: str = ""
    """The port at which the path shows it, as ``node:interface``; empty for the node itself."""


@dataclass
class Case:
    """One failed check, as the finders see it."""

    source: Node
    destination: Node | None
    address: IPAddress
    source_address: IPAddress | None
    """The address that the packets came from; None when the sender has none for this."""
    protocol: str
    port: int | None
    answer: Answer
    """The answer that made the check fail."""
    served: bool = False
    """Whether the check itself listened at the destination, so that there is no server to look for."""
    trace: Outcome | None = None
    """How far a second probe came; None when none was sent."""
    packet_bytes: int = 0
    """The size of the IP packets; 0 for small ones."""
    dont_fragment: bool = False
    """Whether nobody may fragment them."""
    within_s: float = 0.0
    """How long an answer was waited for; 0 where that is not known."""
    translated_for: Node | None = None
    """Whose packet it is, where `source` only translates its destination; the answer goes back to that node."""
    _views: dict[int, View] = field(default_factory=dict)

    def view(self, node: Any) -> View:
        """The kernel state of a node or switch, read once."""
        return self._views.setdefault(id(node), View(node))

    @property
    def sender(self) -> Node:
        """Who began, and gets the answer."""
        return self.translated_for or self.source

    @property
    def name(self) -> str:
        """The destination as people call it."""
        return self.destination.name if self.destination is not None else str(self.address)


def _own_place(hop: Hop) -> Sequence[str]:
    return (hop.node.name,)


@dataclass(frozen=True)
class HopFinder:
    """Looks for one kind of cause at one hop of the path."""

    subject: str
    """What it looks at, as *ruled out* names it."""
    find: Callable[[Hop], Finding | None]
    places: Callable[[Hop], Sequence[str]] = _own_place
    """The nodes and switches at which it looks; none where there is nothing to look at."""


def _always(_: Case) -> bool:
    return True


@dataclass(frozen=True)
class EndFinder:
    """Looks for one kind of cause at the destination, once the path is known to be sound."""

    subject: str
    find: Callable[[Case], Finding | None]
    applies: Callable[[Case], bool] = _always
    """Whether there is anything to look at in this case; else it is not named among what was ruled out."""


def spot(port: NodePort) -> str:
    """A port as people write it: ``node:interface``."""
    return f"{port.node.name}:{port.name}"


def planned(port: NodePort) -> str:
    """Where the test declared a port, in brackets."""
    return f" (declared at {port.declared_at})" if port.declared_at else ""
