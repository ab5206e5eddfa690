"""Exact tests of counts: binomial, chi-square, and the correction for many of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["binomial_p", "chi_square_p", "holm", "log_binomial"]

_TINY = 1e-300


def log_binomial(successes: int, trials: int, chance: float) -> float:
    """The logarithm of the chance of exactly that many successes; the chance of one is neither 0 nor 1."""
    ways = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    return ways + successes * math.log(chance) + (trials - successes) * math.log1p(-chance)


def binomial_p(successes: int, trials: int, chance: float) -> float:
    """How likely a count at least as unlikely as this one is (the exact two-sided binomial test).

    Args:
        successes: how often it happened.
        trials: how often it could have.
        chance: how likely it is each time.
    """
    if chance <= 0 or chance >= 1:
        return float(successes == (trials if chance >= 1 else 0))
    seen = log_binomial(successes, trials, chance)
    likely = (log_binomial(number, trials, chance) for number in range(trials + 1))
    return min(1.0, math.fsum(math.exp(value) for value in likely if value <= seen + 1e-9))


def chi_square_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """How likely counts at least as far from their shares are (Pearson's chi-square test).

    Args:
        counts: how many fell into each bin.
        shares: the part of the whole that belongs into each.
    """
    total, whole = sum(counts), math.fsum(shares)
    expected = [total * share / whole for share in shares]
    distance = math.fsum((count - want) ** 2 / want for count, want in zip(counts, expected, strict=True))
    return _upper_gamma((len(counts) - 1) / 2, distance / 2)


def _upper_gamma(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function (Abramowitz and Stegun, 6.5.29 and 6.5.31)."""
    if x <= 0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        step = a
        while term > total * 1e-15:
            step += 1
            term *= x / step
            total += term
        return max(0.0, 1 - front * total)
    return front * _continued_fraction(a, x)


def _continued_fraction(a: float, x: float) -> float:
    """Lentz's method for the continued fraction of the upper incomplete gamma function."""
    b = x + 1 - a
    c, d = 1 / _TINY, 1 / b
    value = d
    for step in range(1, 500):
        factor = -step * (step - a)
        b += 2
        d = 1 / (factor * d + b or _TINY)
        c = b + factor / c or _TINY
        value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return value


def holm(chances: Sequence[float], alpha: float) -> list[bool]:
    """Which of many tests fail, so that one of them fails by mistake with a chance of at most `alpha` (Holm, 1979)."""
    order = sorted(range(len(chances)), key=lambda place: chances[place])
    rejected = [False] * len(chances)
    for rank, place in enumerate(order):
        if chances[place] > alpha / (len(chances) - rank):
            break
        rejected[place] = True
    return rejected
