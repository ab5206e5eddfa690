"""Round-trip times in figures: minimum, average, maximum and deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["RttStatistics"]


@dataclass(frozen=True)
class RttStatistics:
    """The round-trip times of a series, in seconds."""

    min_s: float
    avg_s: float
    max_s: float
    mdev_s: float
    """The population's standard deviation: the root of (mean of the squares less the square of the mean), which is
    what the ping of iputils calls mdev."""

    @classmethod
    def of(cls, rtts_s: Sequence[float]) -> RttStatistics | None:
        """The figures of a series; None when it is empty."""
        if not rtts_s:
            return None
        average = math.fsum(rtts_s) / len(rtts_s)
        variance = math.fsum((rtt - average) ** 2 for rtt in rtts_s) / len(rtts_s)  # the same sum, without cancellation
        return cls(min(rtts_s), average, max(rtts_s), math.sqrt(variance))

    def __str__(self) -> str:
        figures = "/".join(f"{1000 * value:.3f}" for value in (self.min_s, self.avg_s, self.max_s, self.mdev_s))
        return f"rtt min/avg/max/mdev = {figures} ms"
