"""`Fault`: something that a test has broken on purpose, and since when; what pictures and timelines show of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Fault", "noted"]


@dataclass
class Fault:
    """One fault."""

    what: str
    """In words: ``partition a, b | c``."""
    where: tuple[str, ...]
    """The nodes that it was put into."""
    began_s: float
    """Seconds since 1970."""
    took_s: float | None = None
    """None while it lasts."""

    def facts(self) -> dict[str, Any]:
        """In JSON types."""
        return {"what": self.what, "where": list(self.where), "began_s": self.began_s, "took_s": self.took_s}


@contextmanager
def noted(what: str, nodes: Iterable[Any]) -> Iterator[None]:
    """Note a fault in the labs of these nodes while it lasts, and that there was one.

    Args:
        what: in words.
        nodes: where; those that keep no list of faults are left out.
    """
    nodes = list(nodes)
    fault = Fault(what, tuple(dict.fromkeys(node.name for node in nodes)), time.time())
    for faults in {
        id(faults): faults for node in nodes if (faults := getattr(node, "noted_faults", None)) is not None
    }.values():
        faults.append(fault)
    try:
        yield
    finally:
        fault.took_s = time.time() - fault.began_s
