"""`clock_moved`: commands of a node that live at another time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..core.errors import BadInput
from ..core.fault import noted
from ..core.requirement import Command
from ..core.units import duration_s, format_duration

__all__ = ["FAKETIME", "UNSHARE", "clock_moved"]

FAKETIME = Command("faketime", purpose="clock_moved(clock='wall'): a wall clock that is wrong", packages={
    "apt": "faketime", "dnf": "libfaketime", "pacman": "libfaketime", "apk": "libfaketime"})  # fmt: skip
UNSHARE = Command("unshare", purpose="clock_moved: a monotonic clock that is ahead", packages={
    "apt": "util-linux", "dnf": "util-linux", "pacman": "util-linux", "apk": "util-linux-misc"})  # fmt: skip

_CLOCKS = ("monotonic", "wall")


@contextmanager
def clock_moved(node: Any, by: str | float, *, clock: str = "monotonic") -> Iterator[None]:
    """Have the commands that a host starts meanwhile see a clock that is wrong; those that run already do not.

    ``monotonic``: CLOCK_MONOTONIC and CLOCK_BOOTTIME are ahead, by a time namespace (time_namespaces(7)): as after a
    machine has been up, or has slept, for long. ``wall``: CLOCK_REALTIME is ahead or behind. The kernel has one for
    all, so this is done in the C library (faketime(1)): programs that are linked with none do not see it. A program
    that is not there ends with status 127.

    Args:
        node: a host or router.
        by: how far: ``"2 h"``, seconds; for the wall clock also backwards, ``"-720 h"``. Whole seconds.
        clock: which one.

    Raises:
        BadInput: the node starts its commands in another way (a container), or no such clock or distance.
        Unavailable: faketime is not installed.
    """
    if not isinstance(getattr(node, "prefix", None), tuple):
        raise BadInput(f"the clock of {getattr(node, 'name', node)!r} cannot be moved: a host or router is wanted")
    if clock not in _CLOCKS:
        raise BadInput(f"no clock {clock!r}; there are {', '.join(_CLOCKS)}")
    before = node.prefix
    node.prefix = (*before, *(_ahead(by) if clock == "monotonic" else _elsewhen(by)))
    try:
        with noted(f"clock_moved {clock} by {by} in {node.name}", [node]):
            yield
    finally:
        node.prefix = before


def _ahead(by: str | float) -> list[str]:
    offset = str(_whole_s(by))
    clocks = ["--time", "--monotonic", offset, "--boottime", offset]
    return [UNSHARE.path(), *clocks, "--fork", "--kill-child", "--"]


def _elsewhen(by: str | float) -> list[str]:
    back = str(by).lstrip().startswith("-")
    distance = _whole_s(str(by).strip().removeprefix("-") if isinstance(by, str) else abs(by))
    FAKETIME.demand()
    return [FAKETIME.path(), "--exclude-monotonic", "-f", f"{'-' if back else '+'}{distance}"]


def _whole_s(by: str | float) -> int:
    seconds = duration_s(by)
    if seconds < 1:
        raise BadInput(f"a clock can be moved by a second or more; got {format_duration(seconds)}")
    return round(seconds)
