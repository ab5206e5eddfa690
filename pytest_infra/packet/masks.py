"""Intervals as the value and mask pairs that ternary matches take."""

from __future__ import annotations

from collections.abc import Iterator

from .fields import Interval

__all__ = ["masks"]


def masks(interval: Interval, bits: int) -> Iterator[tuple[int, int]]:
    """The fewest prefixes that are together the interval, as (value, mask) pairs, lowest first.

    A range of 16-bit ports takes at most 30 of them.
    """
    low, high = interval
    full = (1 << bits) - 1
    while low <= high:
        free = min((low & -low).bit_length() - 1 if low else bits, (high - low + 1).bit_length() - 1)
        yield low, full & ~((1 << free) - 1)
        low += 1 << free
