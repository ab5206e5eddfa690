"""CPU cores for poll mode threads: each is one process's alone where that can be, and it is told where not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ..core.errors import BadInput, WaitTimeout
from ..core.lock import exclusive

__all__ = ["Cores", "check_cores", "lease_cores"]


@dataclass(frozen=True)
class Cores:
    """The CPUs of a process: that of its main thread first, then one for each worker."""

    cpus: tuple[int, ...]
    shared: tuple[str, ...] = ()
    """Which CPUs of workers others use too, and who."""


def check_cores(cores: int | Sequence[int] | str) -> int | tuple[int, ...]:
    """What was asked for: a number of workers, or the CPUs: that of the main thread first.

    Raises:
        BadInput: it is neither, or a CPU does not exist or is not allowed.
    """
    if cores == "auto":
        return 1
    allowed = sorted(os.sched_getaffinity(0))
    if isinstance(cores, bool | str) or not isinstance(cores, int | Sequence):
        raise BadInput(f"cores= is 'auto', a number of workers, or a list of CPUs; got {cores!r}")
    if isinstance(cores, int):
        if not 1 <= cores <= 64:
            raise BadInput(f"cores={cores} cannot be used: 1 to 64 workers can be asked for")
        return cores
    for cpu in cores:
        if isinstance(cpu, bool) or not isinstance(cpu, int) or cpu not in allowed:
            raise BadInput(f"there is no core {cpu!r} here; this process may use {', '.join(map(str, allowed))}")
    if len(cores) < 2:
        raise BadInput(f"cores={list(cores)} cannot be used: the main thread's core and one for each worker are wanted")
    return tuple(map(int, cores))


def lease_cores(wanted: int | tuple[int, ...], undo: ExitStack) -> Cores:
    """Take the cores of the workers, alone where nobody else has them; `undo` gives them back."""
    allowed = sorted(os.sched_getaffinity(0))
    if not isinstance(wanted, int):
        notes = [note for cpu in wanted[1:] if (note := _take(cpu, undo))]
        return Cores(wanted, tuple(notes))
    workers: list[int] = []
    refused: dict[int, str] = {}
    for cpu in reversed(allowed):  # the first one is everybody's
        if len(workers) < wanted:
            if note := _take(cpu, undo):
                refused[cpu] = note
            else:
                workers.append(cpu)
    taken = sorted(refused, reverse=True) or allowed[::-1]
    missing = wanted - len(workers)
    others = [taken[number % len(taken)] for number in range(missing)]
    notes = [refused.get(cpu, f"core {cpu}: several workers of this process") for cpu in dict.fromkeys(others)]
    return Cores((allowed[0], *workers, *others), tuple(notes))


def _take(cpu: int, undo: ExitStack) -> str:
    """Hold a CPU; a text where somebody else has it."""
    try:
        undo.enter_context(exclusive(f"core-{cpu}", timeout_s=0.001))
    except WaitTimeout as busy:
        return f"core {cpu}: {str(busy).rpartition('; ')[2]}"
    return ""
