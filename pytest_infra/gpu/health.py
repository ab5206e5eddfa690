"""The health of a GPU, and what a test has left on it: pure functions of what NVML says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..core.units import format_size

__all__ = ["GpuProcess", "Health", "leftovers", "problems"]

_HOTTEST_C = 95.0


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU."""

    pid: int
    command: str
    memory_bytes: int | None = None
    """None where the driver does not say."""

    def __str__(self) -> str:
        memory = f", {format_size(self.memory_bytes)}" if self.memory_bytes else ""
        return f"process {self.pid} ({self.command or 'not known'}{memory})"


@dataclass(frozen=True)
class Health:
    """A GPU at one moment; None where its driver does not support the question."""

    used_bytes: int = 0
    processes: tuple[GpuProcess, ...] = ()
    temperature_c: float | None = None
    ecc_uncorrected: int | None = None
    """Uncorrected errors since the driver was loaded."""
    pages_pending: bool | None = None
    """Whether memory waits to be retired or remapped at the next reset."""
    slowed_by: tuple[str, ...] = ()
    """What holds its clocks back: ``HW thermal slowdown``, ``HW power brake`` …"""
    failures: tuple[str, ...] = ()
    """Questions that the driver could not answer although it supports them."""


def problems(health: Health, mine: frozenset[int] = frozenset()) -> list[str]:
    """Why a GPU cannot be trusted or is not free; empty where it can be used.

    Args:
        health: the GPU now.
        mine: ids of processes that may be there.
    """
    return list(_problems(health, mine))


def _problems(health: Health, mine: frozenset[int]) -> Iterator[str]:
    yield from health.failures
    if health.ecc_uncorrected:
        yield f"{health.ecc_uncorrected} uncorrected memory errors since the driver was loaded"
    if health.pages_pending:
        yield "memory waits to be retired at the next reset of the GPU"
    if health.temperature_c is not None and health.temperature_c > _HOTTEST_C:
        yield f"{health.temperature_c:g} °C, more than {_HOTTEST_C:g}"
    yield from (f"it is used by {process}" for process in health.processes if process.pid not in mine)


def leftovers(before: Health, after: Health, allowed_bytes: int, mine: frozenset[int] = frozenset()) -> list[str]:
    """What was not there before: processes that are not `mine`, memory beyond `allowed_bytes`, errors."""
    known = {process.pid for process in before.processes} | mine
    found = [str(process) for process in after.processes if process.pid not in known]
    grown = after.used_bytes - before.used_bytes
    if grown > allowed_bytes:
        found.append(f"{format_size(grown)} of its memory in use that were free before")
    errors = (after.ecc_uncorrected or 0) - (before.ecc_uncorrected or 0)
    if errors > 0:
        found.append(f"{errors} new uncorrected memory errors")
    return found
