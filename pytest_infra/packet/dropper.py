"""Droppers as pure models: tail drop, RED and WRED, as the chance that a packet is dropped at a queue depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..core.errors import BadInput

__all__ = ["DropCurve", "Red", "TailDrop", "Wred"]


class DropCurve(Protocol):
    """The chance of a drop at a queue depth."""

    def chance(self, depth: int) -> float:
        """From 0 to 1."""


@dataclass(frozen=True)
class TailDrop:
    """A queue that drops what does not fit.

    Raises:
        BadInput: no room at all.
    """

    limit: int
    """How many packets (or bytes) it holds."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise BadInput(f"tail drop: limit is {self.limit}; it must hold at least 1")

    def chance(self, depth: int) -> float:
        """1 where the queue is full, else 0."""
        return float(depth >= self.limit)


@dataclass(frozen=True)
class Red:
    """Random early detection (Floyd and Jacobson, 1993; RFC 2309): nothing below a depth, all above another one.

    Raises:
        BadInput: thresholds that are not in order, or a chance outside 0 to 1.
    """

    low: int
    """The average depth from which packets are dropped (minth)."""
    high: int
    """The average depth from which all are dropped (maxth)."""
    most: float
    """The chance just below `high` (maxp)."""

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise BadInput(f"RED: low is {self.low} and high {self.high}; wanted is 0 <= low < high")
        if not 0 < self.most <= 1:
            raise BadInput(f"RED: most is {self.most}; a chance above 0 and at most 1 is wanted")

    def chance(self, depth: int) -> float:
        """Rises evenly from 0 at `low` to `most` at `high`, and is 1 from there."""
        if depth < self.low:
            return 0.0
        if depth >= self.high:
            return 1.0
        return self.most * (depth - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Wred:
    """Weighted random early detection: a curve for each class or drop precedence.

    Raises:
        BadInput: no classes.
    """

    curves: Mapping[str, Red]

    def __post_init__(self) -> None:
        if not self.curves:
            raise BadInput("WRED: no classes; give a curve for each")

    def of(self, name: str) -> Red:
        """The curve of a class.

        Raises:
            BadInput: there is none of that name.
        """
        if name not in self.curves:
            raise BadInput(f"WRED: no class {name!r}; there are {', '.join(self.curves)}")
        return self.curves[name]
