"""How exactly the kernel counts: default tolerances, from the figures of docs/accounting.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "CPU_MAX_REL",
    "CPU_TICK_S",
    "LEAST_PERIODS",
    "LEAST_RATE_S",
    "RATE_REL",
    "RATE_SLICE_S",
    "SHARES_REL",
    "TOLERANCES",
    "Tolerance",
]


@dataclass(frozen=True)
class Tolerance:
    """How far a measured number may be from the expected one: a share of it, plus a constant."""

    rel: float
    plus: float
    """What is added: the cost of starting and ending a process, metadata of files, and the like."""
    least_rel: float = 0.0
    """A share that is smaller than this is a claim that the kernel cannot keep."""

    def room(self, expected: float) -> float:
        """The greatest difference that is allowed."""
        return abs(expected) * self.rel + self.plus


TOLERANCES: Mapping[str, Tolerance] = {
    "cpu_s": Tolerance(0.01, 0.008, least_rel=0.005),
    "memory_peak_bytes": Tolerance(0.01, 1 << 20, least_rel=0.005),
    "anon_bytes": Tolerance(0.001, 1 << 18),
    "read_bytes": Tolerance(0.0, 1 << 18),
    "write_bytes": Tolerance(0.0, 1 << 18),
    "pids_peak": Tolerance(0.0, 0),
}
"""By quantity."""

CPU_MAX_REL = 0.05
"""A CPU quota, over at least `LEAST_PERIODS` periods."""

CPU_TICK_S = 0.004
"""How much a quota may be overdrawn at the end: it is looked at once a tick (sched/fair.c), of 4 ms at 250 Hz."""

LEAST_PERIODS = 20
"""Over fewer periods a quota's first and last one decide: half a second at 0.5 CPU measured 0.51 to 0.60."""

SHARES_REL = 0.1
"""CPU weights, over one second of one CPU."""

RATE_REL = 0.1
"""A limit on bytes a second, over at least `LEAST_RATE_S`."""

RATE_SLICE_S = 0.1
"""The kernel counts by slices of a tenth of a second (block/blk-throttle.c), and lets the first one through at once."""

LEAST_RATE_S = 1.0
"""Over a shorter time the burst decides that the kernel lets through at first: 0.45 s at 16 MiB/s measured 18 MiB/s."""
