"""`memory_pressure`: a process that holds most of the memory that a group may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..checks import workload
from ..checks.usage import measure_usage, name_of
from ..core.errors import BadInput, CommandFailed, StartFailed
from ..core.fault import noted
from ..core.process import Process
from ..core.units import format_size, size_bytes

__all__ = ["memory_pressure"]

_OWN = 6 << 20  # what the process needs for itself
_WITHIN_S = 60.0


@contextmanager
def memory_pressure(
    target: Any, *, leave: str | float | None = None, hold: str | float | None = None
) -> Iterator[Process]:
    """Take memory away from a group: a process in it holds so much that only `leave` is left.

    Args:
        target: a group with a limit on memory, or a node whose commands are in one.
        leave: about how much to leave to the others.
        hold: how much to take; one of the two is given.

    Raises:
        BadInput: both or neither is given, the group has no limit, or less is left already.
        StartFailed: the process was killed for want of memory before it held as much.
    """
    if (leave is None) == (hold is None):
        raise BadInput("give leave= (what the others keep) or hold= (what is taken), and not both")
    size = size_bytes(hold) if hold is not None else _all_but(target, size_bytes(leave or 0))
    process = target.spawn(workload.touch(size, hold=True))
    try:
        try:
            process.wait_for("touched", within_s=_WITHIN_S)
        except CommandFailed as error:
            why = f"{name_of(target)} has no {format_size(size)} to be taken: the process ended before it held them"
            raise StartFailed(why) from error
        with noted(f"memory_pressure {format_size(size)} in {name_of(target)}", [target]):
            yield process
    finally:
        process.close()


def _all_but(target: Any, leave: int) -> int:
    usage = measure_usage(target)
    if usage.memory_max_bytes is None or usage.memory_bytes is None:
        raise BadInput(f"{usage.target} has no limit on memory, so nothing can be left of it; give hold=")
    size = usage.memory_max_bytes - usage.memory_bytes - leave - _OWN
    if size < 1:
        raise BadInput(
            f"{usage.target} uses {format_size(usage.memory_bytes)} of {format_size(usage.memory_max_bytes)}: nothing "
            f"can be taken that leaves {format_size(leave)} (that process needs {format_size(_OWN)} itself)"
        )
    return size
