"""`compare`, `assert_ratio`: whether a change matters, on a machine that is never quiet.

Base and change are measured in turns, A B B A or, as a lot decides, B A A B: so whatever changes slowly hits both, and
what lasts for several blocks does not always hit the same one. The ratio of each block is one observation; their
bootstrap interval decides. It is looked at three times, each time with a third of the chance of being wrong, and
measuring ends as soon as it decides.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any, ClassVar

from ..core.emulation import demand_real_time
from ..core.errors import BadInput, Inconclusive
from ..core.report import explain
from .quiet import measuring
from .resample import paired_interval, t_quantile
from .verdict import Measured, Verdict

__all__ = [
    "CompareReport",
    "Metric",
    "assert_ratio",
    "compare",
    "decide",
    "forget_noise",
    "looks_of",
    "smallest_effect",
]

Metric = str | Callable[[Any], float]
"""The name of a number in the reports that are compared, or a function that gives it."""

_LOOKS = 3
_LEAST_BLOCKS, _MOST_BLOCKS = 5, 200
_NOISE_BLOCKS = 5
_RATES = ("rate_bps", "payload_bps", "l3_bps", "l2_bps", "packets_per_s")


@dataclass(frozen=True)
class CompareReport(Measured):
    """The ratio of what was changed to the base: above 1 is more."""

    kind: ClassVar[str] = "compare"

    metric: str
    ratio: float
    low: float
    high: float
    """Where the ratio lies, with `confidence`."""
    confidence: float
    blocks: int
    """How many times A B B A was measured."""
    most_blocks: int
    base: float
    changed: float
    """The geometric means, in the metric's own unit."""
    smallest_effect: float
    """The smallest change that can be shown: 0.05 is 5 %. By what the base scatters, and by what these blocks did."""
    at_least: float | None = None
    at_most: float | None = None
    ratios: tuple[float, ...] = field(default=(), repr=True)
    """One for each block."""

    @property
    def verdict(self) -> Verdict:
        """Whether the interval is within the bounds, beyond one of them, or across."""
        return decide(self.low, self.high, self.at_least, self.at_most)

    @property
    def differs(self) -> bool:
        """Whether a difference has been shown: the interval does not hold 1."""
        return not self.low <= 1 <= self.high

    def explain(self) -> str:
        """The ratio with its interval, and what would have been needed."""
        what = f"{self.metric}: {self._change(self.ratio)} than the base"
        interval = f"ratio {self.ratio:.3f}, with {self.confidence:.0%} confidence {self.low:.3f} to {self.high:.3f}"
        spread = f"{self.blocks} blocks A B B A; base {self.base:.4g}, changed {self.changed:.4g}"
        bounds = [("at least", self.at_least), ("at most", self.at_most)]
        wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        rows = [("measured", f"{interval}\n{spread}"), ("wanted", f"a ratio of {wanted}" if wanted else "")]
        if self.verdict == "fail":
            rows.append(("ruled out", f"noise: here changes are shown from {self.smallest_effect:.1%}"))
            return explain(f"{what}, which is too {'much' if self._too_much else 'little'}", rows)
        if self.verdict == "inconclusive":
            cause = (
                f"the measurements differ too much among themselves after {self.blocks} of {self.most_blocks} blocks"
            )
            rows += [("cause", cause), ("next", _advice(self.metric, "more blocks=, longer trials, a wider bound"))]
            return explain(f"{self.metric}: it cannot be told whether the ratio is {wanted}", rows)
        return explain(what if self.differs else f"{self.metric}: no difference shown", rows)

    @property
    def _too_much(self) -> bool:
        return self.at_most is not None and self.low > self.at_most

    @staticmethod
    def _change(ratio: float) -> str:
        return f"{abs(ratio - 1):.1%} {'more' if ratio >= 1 else 'less'}"


def decide(low: float, high: float, at_least: float | None, at_most: float | None) -> Verdict:
    """The verdict of an interval on bounds."""
    if (at_most is not None and low > at_most) or (at_least is not None and high < at_least):
        return "fail"
    if (at_most is None or high <= at_most) and (at_least is None or low >= at_least):
        return "pass"
    return "inconclusive"


def looks_of(blocks: int) -> tuple[int, ...]:
    """After how many blocks the interval is looked at."""
    return tuple(sorted({max(_LEAST_BLOCKS, round(blocks * part / _LOOKS)) for part in range(1, _LOOKS + 1)}))


def smallest_effect(logs: list[float], blocks: int, confidence: float) -> float:
    """The change that as many blocks can show when single ones scatter as these do: half the interval's width."""
    share = 1 - (1 - confidence) / 2 / _LOOKS
    half = t_quantile(share, blocks - 1) * stdev(logs) / math.sqrt(blocks)
    return math.expm1(half)


@lru_cache(maxsize=1)
def _noise() -> dict[Metric, list[float]]:
    """By metric: what comparing something with itself gave; once for each test process.

    A function is its own key, and not its name: all lambdas have the same one.
    """
    return {}


def forget_noise() -> None:
    """Have the next comparison find out anew what this machine can show."""
    _noise().clear()


@dataclass(frozen=True)
class _Trials:
    """What is measured, and how a number is read from it."""

    base: Callable[[], Any]
    changed: Callable[[], Any]
    metric: Metric
    lots: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311

    @property
    def name(self) -> str:
        return self.metric if isinstance(self.metric, str) else getattr(self.metric, "__name__", "metric")

    def block(self) -> tuple[float, float]:
        """Measure A B B A or B A A B: the logarithms of the geometric means of A and B."""
        ends_first = self.lots.random() < 0.5
        outer, inner = (self.base, self.changed) if ends_first else (self.changed, self.base)
        first, second, third, fourth = (math.log(self._number(measure())) for measure in (outer, inner, inner, outer))
        around, within = (first + fourth) / 2, (second + third) / 2
        return (around, within) if ends_first else (within, around)

    def _number(self, report: Any) -> float:
        value = self.metric(report) if callable(self.metric) else getattr(report, self.metric, None)
        if value is None and isinstance(report, int | float) and not isinstance(report, bool):
            value = report
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise BadInput(f"{self.name} of {type(report).__name__} is {value!r}; a number above 0 is wanted")
        return float(value)


def compare(
    base: Callable[[], Any],
    changed: Callable[[], Any],
    *,
    metric: Metric = "cpu_per_packet_s",
    at_least: float | None = None,
    at_most: float | None = None,
    blocks: int = 15,
    confidence: float = 0.95,
) -> CompareReport:
    """Measure a base and a change in turns, and report the ratio with its confidence interval; nothing is judged.

    The first comparison of a session by a metric also measures the base against itself: what that scatters is the
    smallest effect that this machine can show, and a bound closer to 1 is refused.

    Args:
        base: measures once and returns a report or a number, such as ``lambda: measure_throughput(a, b)``.
        changed: the same with the change.
        metric: a number of the report. ``"cpu_per_packet_s"`` survives noise; ``"rate_bps"`` suffers from it.
        at_least: the least ratio of changed to base.
        at_most: the greatest ratio.
        blocks: how many times A B B A is measured at most.
        confidence: how sure a decision is, over all looks at the figures.

    Raises:
        BadInput: an argument that cannot be used, or a measurement that is no number above 0.
        Inconclusive: a bound is tighter than what this machine can show.
    """
    _check(at_least, at_most, blocks, confidence)
    trials = _Trials(base, changed, metric)
    with measuring():
        effect = _effect(trials, blocks, confidence)
        for bound in (at_least, at_most):
            if bound is not None and abs(math.log(bound)) < math.log1p(effect):
                raise Inconclusive(_refusal(trials.name, bound, effect))
        return _measure(trials, at_least, at_most, blocks, confidence, effect)


def _check(at_least: float | None, at_most: float | None, blocks: int, confidence: float) -> None:
    for name, bound in (("at_least", at_least), ("at_most", at_most)):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float) or not bound > 0):
            raise BadInput(f"{name} {bound!r} is not allowed; give a ratio above 0, such as 1.1 for 10 % more")
    if at_least is not None and at_most is not None and at_least >= at_most:
        raise BadInput(f"at_least {at_least!r} is not below at_most {at_most!r}")
    if isinstance(blocks, bool) or not isinstance(blocks, int) or not _LEAST_BLOCKS <= blocks <= _MOST_BLOCKS:
        raise BadInput(f"blocks {blocks!r} is not allowed; give a whole number from {_LEAST_BLOCKS} to {_MOST_BLOCKS}")
    if isinstance(confidence, bool) or not isinstance(confidence, float) or not 0.5 <= confidence <= 0.9999:
        raise BadInput(f"confidence {confidence!r} is not allowed; give a number from 0.5 to 0.9999")


def _effect(trials: _Trials, blocks: int, confidence: float) -> float:
    noise = _noise()
    if trials.metric not in noise:
        same = _Trials(trials.base, trials.base, trials.metric)
        pairs = [same.block() for _ in range(_NOISE_BLOCKS)]
        noise[trials.metric] = [after - before for before, after in pairs]
    return smallest_effect(noise[trials.metric], blocks, confidence)


def _advice(metric: str, steps: str) -> str:
    """What to do; of a rate there is a price, too, which scatters less."""
    return f"{steps}, or assert_ratio by metric='cpu_per_packet_s'" if metric in _RATES else steps


def _refusal(name: str, bound: float, effect: float) -> str:
    return explain(
        f"{name}: this machine cannot show a change of {abs(bound - 1):.1%}",
        [
            ("measured", f"the base against itself: the smallest effect that can be shown is {effect:.1%}"),
            ("wanted", f"a ratio of {bound:g}, which is closer to 1 than that"),
            ("next", _advice(name, "more blocks=, longer trials, a quieter machine, a wider bound")),
        ],
    )


def _measure(
    trials: _Trials, at_least: float | None, at_most: float | None, blocks: int, confidence: float, effect: float
) -> CompareReport:
    looks = looks_of(blocks)
    at_each_look = 1 - (1 - confidence) / len(looks)
    pairs: list[tuple[float, float]] = []
    for look in looks:
        while len(pairs) < look:
            pairs.append(trials.block())
        logs = [after - before for before, after in pairs]
        low, high = paired_interval(logs, at_each_look)
        bounded = at_least is not None or at_most is not None
        decided = decide(math.exp(low), math.exp(high), at_least, at_most) != "inconclusive"
        if decided if bounded else not low <= 0 <= high:
            break
    return CompareReport(
        metric=trials.name,
        ratio=math.exp(fmean(logs)),
        low=math.exp(low),
        high=math.exp(high),
        confidence=confidence,
        blocks=len(pairs),
        most_blocks=blocks,
        base=math.exp(fmean(before for before, _ in pairs)),
        changed=math.exp(fmean(after for _, after in pairs)),
        smallest_effect=max(effect, smallest_effect(logs, blocks, confidence)),
        at_least=at_least,
        at_most=at_most,
        ratios=tuple(math.exp(log) for log in logs),
    )


def assert_ratio(base: Callable[[], Any], changed: Callable[[], Any], **options: Any) -> CompareReport:
    """Check the ratio of a change to its base; the arguments are those of `compare`, with a bound.

    Raises:
        CheckFailed: the ratio is beyond a bound.
        Inconclusive: it cannot be told, or a bound is tighter than what this machine can show.
        BadInput: an argument that cannot be used; no bound.
    """
    __tracebackhide__ = True
    demand_real_time("a ratio of two measurements")
    if options.get("at_least") is None and options.get("at_most") is None:
        raise BadInput("at_least or at_most is wanted; compare measures without judging")
    report = compare(base, changed, **options)
    report.demand()
    return report
