"""What resources hand over so that it outlives this process (see `core.holder`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import InfraError

__all__ = ["CannotKeep", "Holdings"]


class CannotKeep(InfraError):
    """Something cannot outlive this process; the text says what and why."""


@dataclass
class Holdings:
    """What resources hand over."""

    descriptors: list[int] = field(default_factory=list)
    """As long as somebody has them, the kernel keeps what is behind them."""
    entries: list[int] = field(default_factory=list)
    """Numbers of entries of the lease."""
    taken: list[Callable[[], object]] = field(default_factory=list)
    """Called once somebody holds all of it: from then on, ending the resource here must not undo it."""
