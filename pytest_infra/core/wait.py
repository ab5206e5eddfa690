"""`until`, the one polling loop of the project."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .errors import WaitTimeout

__all__ = ["until"]

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    *,
    within_s: float,
    what: str,
    every_s: float = 0.001,
    at_most_every_s: float = 0.05,
    last_words: Callable[[], str] = str,
) -> T:
    """Call `condition` until it returns something true, and return that.

    The first look is at once; the pause between two looks grows from `every_s` to `at_most_every_s`,
    and a last look is taken at the deadline, so that a busy machine does not fail a condition that holds.

    Args:
        condition: what to ask; a false value means "not yet".
        within_s: seconds to wait at most.
        what: what is waited for, for the error.
        every_s: the first pause, seconds.
        at_most_every_s: the longest pause, seconds.
        last_words: asked once on timeout for what was seen last.

    Raises:
        WaitTimeout: `condition` stayed false for `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while True:
        left_s = deadline - time.monotonic()
        if value := condition():
            return value
        if left_s <= 0:
            seen = last_words()
            raise WaitTimeout(f"{what}: not within {within_s:g} s" + (f"; {seen}" if seen else ""))
        time.sleep(min(every_s, left_s))
        every_s = min(every_s * 1.5, at_most_every_s)
