"""Quantiles, Student's t, and the bootstrap: pure functions of figures."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, median, stdev

from ..packet.statistics import log_binomial

__all__ = ["Interval", "clopper_pearson", "paired_interval", "quantile", "quantile_bounds", "t_quantile"]

_RESAMPLES = 1000
_WIDER = 1.1
Interval = tuple[float, float]


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that at least `share` of the values do not exceed (nearest rank; Hyndman and Fan, type 1)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(round(share * len(ordered), 9)) - 1)]


def quantile_bounds(values: Sequence[float], share: float, confidence: float = 0.99) -> Interval:
    """Where the quantile of what the values are drawn from lies (order statistics, Conover, 1999, section 3.2).

    Where the values are too few to bound it, the bound is infinite.
    """
    ordered, count = sorted(values), len(values)
    tail = (1 - confidence) / 2
    low = _binomial_place(count, share, tail) - 1
    high = _binomial_place(count, share, 1 - tail) + 1
    return (
        ordered[low] if low >= 0 else -math.inf,
        ordered[high - 1] if high <= count else math.inf,
    )


def _binomial_place(trials: int, chance: float, share: float) -> int:
    """The least number of successes whose cumulated chance is at least `share`."""
    total = 0.0
    for number in range(trials + 1):
        total += math.exp(log_binomial(number, trials, chance))
        if total >= share:
            return number
    return trials


def _at_most(successes: int, trials: int, chance: float) -> float:
    """The chance of at most that many successes."""
    if chance <= 0 or chance >= 1:
        return float(chance <= 0 or successes >= trials)
    return min(1.0, math.fsum(math.exp(log_binomial(number, trials, chance)) for number in range(successes + 1)))


def clopper_pearson(successes: int, trials: int, confidence: float = 0.99) -> Interval:
    """Where the chance lies of which `successes` in `trials` is the outcome (Clopper and Pearson, 1934)."""
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else _solve(lambda chance: 1 - _at_most(successes - 1, trials, chance) - tail)
    high = 1.0 if successes == trials else _solve(lambda chance: tail - _at_most(successes, trials, chance))
    return low, high


def _solve(rising: Callable[[float], float]) -> float:
    """Where a rising function of 0 to 1 crosses 0, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@lru_cache(maxsize=256)
def t_quantile(share: float, freedom: int) -> float:
    """The quantile of Student's t: its distribution function is integrated (Simpson) and inverted by halving."""

    def beyond(value: float) -> float:  # the area from 0 to value, by the substitution t = sqrt(n) tan(angle)
        steps = 400
        angle = math.atan(value / math.sqrt(freedom))
        width = angle / steps
        total = math.fsum(
            (1 if number in (0, steps) else 4 if number % 2 else 2) * math.cos(number * width) ** (freedom - 1)
            for number in range(steps + 1)
        )
        front = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
        return front * total * width / 3

    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        if beyond(middle) < share - 0.5:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def paired_interval(logs: Sequence[float], confidence: float, seed: int = 0) -> Interval:
    """Where the mean of the logarithms of paired ratios lies: the bootstrap's percentiles, widened for few pairs.

    The percentiles of resampled means are too close to each other for small samples; they are moved apart by Student's
    t over the normal quantile and by n over n-1 (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).
    One value far off would widen the interval without end, so each is first drawn to within five robust deviations;
    where that moves the mean out of the interval, the interval is made to reach it. All of it is a tenth wider, since
    neighbouring blocks on a busy machine are not quite independent. Blocks that depend on each other much more (a
    correlation of 0.5) would be decided wrongly in about a fifth of all cases.

    Args:
        logs: one logarithm for each pair, at least 3.
        confidence: such as 0.95.
        seed: of the resampling, so that the same figures give the same interval.
    """
    values = _winsorized(logs)
    count, centre = len(values), fmean(values)
    chooser = random.Random(seed)  # noqa: S311
    means = sorted(fmean(chooser.choices(values, k=count)) for _ in range(_RESAMPLES))
    share = 1 - (1 - confidence) / 2
    widen = _WIDER * math.sqrt(count / (count - 1)) * t_quantile(share, count - 1) / NormalDist().inv_cdf(share)
    low, high = quantile(means, 1 - share), quantile(means, share)
    least = stdev(values) / math.sqrt(count) * NormalDist().inv_cdf(share)  # few values give few different means
    mean = fmean(logs)
    low, high = centre + min(low - centre, -least * 0.9) * widen, centre + max(high - centre, least * 0.9) * widen
    return min(low, mean), max(high, mean)


def _winsorized(logs: Sequence[float]) -> list[float]:
    """The values, with those further than five robust deviations (1.4826 MAD) from the median drawn to there."""
    middle = median(logs)
    reach = 5 * 1.4826 * median(abs(value - middle) for value in logs)
    if reach == 0:
        return list(logs)
    return [min(max(value, middle - reach), middle + reach) for value in logs]
