"""Boxes: sets of packets that are an interval in each of some fields, and exact arithmetic on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .fields import FIELDS, Interval

__all__ = ["Box", "contains", "covers", "intersection", "subtract", "witness"]

Box = Mapping[str, Interval]
"""Intervals by field; a field that is not named may have any value."""


def contains(box: Box, values: Mapping[str, int]) -> bool:
    """Whether a packet's values lie in the box; a field that the packet lacks counts as 0."""
    return all(low <= values.get(field, 0) <= high for field, (low, high) in box.items())


def intersection(one: Box, other: Box) -> Box | None:
    """What lies in both boxes; None where nothing does."""
    both = dict(one)
    for field, (low, high) in other.items():
        mine = both.get(field, FIELDS[field])
        if low > mine[1] or high < mine[0]:
            return None
        both[field] = max(low, mine[0]), min(high, mine[1])
    return both


def covers(outer: Box, inner: Box) -> bool:
    """Whether everything in `inner` lies in `outer`."""
    for field, (low, high) in outer.items():
        mine = inner.get(field, FIELDS[field])
        if mine[0] < low or mine[1] > high:
            return False
    return True


def subtract(box: Box, other: Box) -> Iterator[Box]:
    """Boxes that do not meet each other, and together are what of `box` is not in `other`."""
    if intersection(box, other) is None:
        yield box
        return
    rest = dict(box)
    for field, (low, high) in other.items():
        mine = rest.get(field, FIELDS[field])
        if mine[0] < low:
            yield {**rest, field: (mine[0], low - 1)}
        if mine[1] > high:
            yield {**rest, field: (high + 1, mine[1])}
        rest[field] = max(low, mine[0]), min(high, mine[1])


def witness(box: Box, taken: Sequence[Box]) -> Box | None:
    """A box within `box` that meets none of `taken`; None where they cover it together.

    Exact: it goes through what is left of the box, depth first, and stops at the first piece that nothing meets.
    """
    pending = [(box, 0)]
    while pending:
        piece, position = pending.pop()
        while position < len(taken) and intersection(piece, taken[position]) is None:
            position += 1
        if position == len(taken):
            return piece
        pending += [(left, position + 1) for left in subtract(piece, taken[position])]
    return None
