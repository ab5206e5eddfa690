"""Machine-wide holds on GPUs: one test has a GPU alone, or several share it within its memory.

Each GPU is as many things to hold as `SLICES`; who wants it alone holds all of them, and who shares it as many as its
part of the memory needs. The kernel frees a hold when its holder dies (see `core.lock`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack

from ..core.errors import WaitTimeout
from ..core.lock import exclusive
from ..core.wait import until
from .found import Found

__all__ = ["SLICES", "hold", "slices"]

SLICES = 16
"""How finely the memory of a GPU is shared out."""

_LOG = logging.getLogger("pytest_infra")


def slices(device: Found, memory_bytes: int, shared: bool) -> int:
    """How many of a GPU's slices a test holds."""
    if not shared:
        return SLICES
    return max(1, -(-memory_bytes * SLICES // max(1, device.memory_bytes)))


def hold(
    devices: Sequence[Found], count: int, memory_bytes: int, shared: bool, timeout_s: float, undo: ExitStack
) -> list[Found]:
    """Hold `count` of these devices, the first that are free, until `undo` is closed.

    Raises:
        WaitTimeout: not as many were free in time; the text says which process has one.
    """
    ordered = sorted(devices, key=lambda device: device.uuid)
    if found := _try(ordered, count, memory_bytes, shared, undo):
        return found
    _LOG.warning("waiting for %d of these GPUs: %s", count, ", ".join(device.name for device in ordered))
    if len(ordered) == count:  # in turn with others who wait
        for device in ordered:
            undo.enter_context(exclusive(_lock(device), slices(device, memory_bytes, shared), SLICES, timeout_s))
        return ordered
    return until(
        lambda: _try(ordered, count, memory_bytes, shared, undo),
        within_s=timeout_s,
        what=f"{count} of {len(ordered)} GPUs free on this machine",
        at_most_every_s=0.5,
        last_words=lambda: _holder(ordered),
    )


def _try(devices: Sequence[Found], count: int, memory_bytes: int, shared: bool, undo: ExitStack) -> list[Found]:
    """Hold as many as wanted, or none."""
    with ExitStack() as attempt:
        held: list[Found] = []
        for device in devices:
            if len(held) < count:
                try:
                    attempt.enter_context(exclusive(_lock(device), slices(device, memory_bytes, shared), SLICES, 0))
                except WaitTimeout:
                    continue
                held.append(device)
        if len(held) < count:
            return []
        undo.enter_context(attempt.pop_all())
    return held


def _holder(devices: Sequence[Found]) -> str:
    """Who has the first of them."""
    try:
        with exclusive(_lock(devices[0]), SLICES, SLICES, 0):
            return ""
    except WaitTimeout as error:
        return str(error)


def _lock(device: Found) -> str:
    return f"gpu-{device.uuid}"
