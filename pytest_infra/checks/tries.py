"""Trying again until a report is what it should be, as the argument ``within=`` of checks says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from ..core.errors import WaitTimeout
from ..core.report import Report
from ..core.wait import until
from .arguments import seconds

__all__ = ["try_until_ok"]

R = TypeVar("R", bound=Report)
_EVERY_S = 0.02


def try_until_ok(once: Callable[[], R], within: str | float | None) -> R:
    """The first report that is right, else the last one; there is one try where `within` is None.

    Args:
        once: measures.
        within: how long to go on, as a text such as ``"5 s"`` or in seconds.
    """
    limit_s = None if within is None else seconds("within", within)
    tries = [once()]
    if tries[0].ok or limit_s is None:
        return tries[0]

    def better() -> bool:
        tries.append(once())
        return tries[-1].ok

    with suppress(WaitTimeout):
        until(better, within_s=limit_s, what="what the check wants", every_s=_EVERY_S)
    return tries[-1]
