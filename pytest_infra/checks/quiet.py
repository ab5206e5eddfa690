"""`measuring`: one measurement at a time on the whole machine, so that they do not disturb each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

from ..core.lock import exclusive

__all__ = ["measuring"]

_LONGEST_WAIT_S = 1800.0


@dataclass
class _Hold:
    """Who measures in this process, and how deep in calls of each other."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    depth: int = 0


@lru_cache(maxsize=1)
def _hold() -> _Hold:
    return _Hold()


@contextmanager
def measuring() -> Iterator[None]:
    """Hold the machine's lock ``throughput``; a measurement within another one has it already.

    Raises:
        WaitTimeout: others measured for half an hour.
    """
    hold = _hold()
    with hold.lock:
        if hold.depth:
            yield
            return
        with exclusive("throughput", timeout_s=_LONGEST_WAIT_S):
            hold.depth += 1
            try:
                yield
            finally:
                hold.depth -= 1
