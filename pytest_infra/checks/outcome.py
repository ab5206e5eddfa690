"""`Outcome`: what following a probe along its way has shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .rule_trace import RuleDrop

__all__ = ["Outcome", "Status"]

Status = Literal["answered", "lost", "down", "delivered", "unproven"]
"""``answered``: the probe has its answer. ``lost``: no answer will come any more. ``down``: an interface on the way is
down. ``delivered``: it arrived at a server that may answer when it likes. ``unproven``: nothing is sure."""


@dataclass(frozen=True)
class Outcome:
    """Where a probe, or its answer, was lost; or why that is not known."""

    status: Status
    what: Literal["request", "reply"] = "request"
    """What was lost."""
    at: str = ""
    """Where it was seen last: a node that did not send it on, or the ``node:port`` by which it left."""
    before: str = ""
    """The ``node:port`` at which it did not arrive; empty when it did not leave the node `at`."""
    why: str = ""
    """Which interface is down, or why nothing is sure."""
    rules: tuple[RuleDrop, ...] = ()
    """The firewall rules that dropped it, or its answer."""
    besides: tuple[RuleDrop, ...] = ()
    """The firewall rules that dropped what it needs besides: what asks for a neighbour, or a tunnel's packets."""
    reasons: tuple[str, ...] = ()
    """The kernel's own reasons for what it dropped."""
    arrived_from: str = ""
    """The source address with which it arrived at the destination; empty when it did not."""
    no_reasons: str = ""
    """Why the kernel's reasons could not be read; empty where they could."""
    blind: tuple[str, ...] = ()
    """What could not be looked at, and why."""

    @property
    def place(self) -> str:
        """The place in words: a node, or ``node:port -> node:port``."""
        return f"{self.at} -> {self.before}" if self.before else self.at
