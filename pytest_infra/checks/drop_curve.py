"""`assert_drop_curve`: a dropper drops at each queue depth as often as its curve says, by an exact test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..core.errors import BadInput
from ..core.report import Report, explain
from ..packet.dropper import DropCurve
from ..packet.statistics import binomial_p, holm

__all__ = ["DepthCount", "DropCurveReport", "assert_drop_curve"]


@dataclass(frozen=True)
class DepthCount:
    """What happened to the packets that came at one queue depth."""

    depth: int
    packets: int
    dropped: int
    chance: float
    """How likely a drop is there by the curve."""
    p: float
    """How likely so unusual a count is, if the curve holds."""
    wrong: bool

    def __str__(self) -> str:
        return (
            f"depth {self.depth}: {self.dropped} of {self.packets} dropped, wanted {self.chance:.1%} (p {self.p:.2g})"
        )


@dataclass(frozen=True)
class DropCurveReport(Report):
    """How often packets were dropped at each queue depth."""

    kind: ClassVar[str] = "drop-curve"

    curve: str
    alpha: float
    depths: tuple[DepthCount, ...]

    @property
    def ok(self) -> bool:
        """Whether no depth contradicts the curve."""
        return not any(depth.wrong for depth in self.depths)

    def explain(self) -> str:
        """The depths that contradict the curve."""
        wrong = [depth for depth in self.depths if depth.wrong]
        total = sum(depth.packets for depth in self.depths)
        if not wrong:
            return f"{total} packets at {len(self.depths)} depths are dropped as {self.curve} says"
        rows = [("measured", "\n".join(map(str, wrong))), ("wanted", self.curve)]
        rows += [("ruled out", f"chance: exact binomial test per depth, Holm's correction, alpha {self.alpha:g}")]
        return explain(f"the dropper does not follow its curve at {len(wrong)} of {len(self.depths)} depths", rows)


def assert_drop_curve(
    counts: Mapping[int, tuple[int, int]], curve: DropCurve, *, alpha: float = 1e-6, smallest: float = 0.2
) -> DropCurveReport:
    """Check how often packets were dropped at each queue depth.

    Args:
        counts: for each depth, how many packets came and how many of them were dropped.
        curve: what is wanted: `packet.dropper.TailDrop`, `Red`, or a class of `Wred`.
        alpha: the chance of a false alarm, over all depths together.
        smallest: the smallest error of a drop chance that must be noticed; fewer packets than that takes are refused.

    Raises:
        CheckFailed: the counts at some depth are not of this curve.
        BadInput: no counts, impossible ones, or too few packets to notice an error of `smallest`.
    """
    __tracebackhide__ = True
    if not counts or any(not 0 <= dropped <= packets or packets < 1 for packets, dropped in counts.values()):
        raise BadInput("counts: for each depth at least one packet, and no more drops than packets, are wanted")
    if not 0 < alpha < 1:
        raise BadInput(f"alpha is {alpha}; a chance between 0 and 1 is wanted")
    for depth, (packets, _) in counts.items():
        chance = curve.chance(depth)
        off = chance + smallest if chance + smallest <= 1 else chance - smallest
        if binomial_p(round(off * packets), packets, chance) > alpha / len(counts):
            raise BadInput(f"{packets} packets at depth {depth} cannot show an error of {smallest:.0%}; send more")
    chances = [binomial_p(dropped, packets, curve.chance(depth)) for depth, (packets, dropped) in counts.items()]
    wrong = holm(chances, alpha)
    depths = tuple(
        DepthCount(depth, packets, dropped, curve.chance(depth), p, bad)
        for (depth, (packets, dropped)), p, bad in zip(counts.items(), chances, wrong, strict=True)
    )
    report = DropCurveReport(str(curve), alpha, depths)
    report.demand()
    return report
