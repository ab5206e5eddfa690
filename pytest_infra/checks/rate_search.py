"""The search for the highest load at a given loss: pure functions of trials (RFC 2544, RFC 9971 "MLRsearch", one goal).

One trial proves little on a machine that does other things too. A load is a *lower bound* when no outcome of the trials
still missing could make more than half of the trial time high-loss, an *upper bound* when none could make it less, and
else undecided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Bound", "Goal", "Search", "Trial", "classify", "conditional_throughput", "search"]

Bound = Literal["lower", "upper", "undecided"]

_EXPAND = 2.0


@dataclass(frozen=True)
class Trial:
    """What one trial gave."""

    load: float
    """What was intended, packets a second."""
    duration_s: float
    loss: float
    """The fraction of the offered packets that did not arrive."""
    valid: bool = True
    """Whether the generator offered what was intended."""
    offered: float = 0.0
    """What it did offer, packets a second."""
    flaw: str = ""
    """Why it is not valid."""


@dataclass(frozen=True)
class Goal:
    """What is searched for (RFC 9971, section "Search Goal")."""

    loss: float
    """The goal loss ratio: a trial with more of it is high-loss."""
    width: float
    """How close, as a part of the higher one, the bounds are to be."""
    duration_s: float
    """Of one trial."""
    trials: int = 3
    """How many trials' time decides about a load (the goal duration sum)."""
    exceed: float = 0.5
    """The part of the trial time that may be high-loss (the goal exceed ratio)."""


def classify(trials: list[Trial], goal: Goal) -> Bound:
    """Whether a load with these trials, all of the full duration, is a lower or an upper bound."""
    high_s = sum(trial.duration_s for trial in trials if trial.loss > goal.loss)
    low_s = sum(trial.duration_s for trial in trials if trial.loss <= goal.loss)
    whole_s = max(high_s + low_s, goal.trials * goal.duration_s)
    most_s = whole_s * goal.exceed
    if whole_s - low_s <= most_s:  # if all that is missing were high-loss
        return "lower"
    return "upper" if high_s > most_s else "undecided"


def conditional_throughput(trials: list[Trial], goal: Goal) -> float:
    """The forwarding rate that all but the exceed ratio of the trial time kept (RFC 9971)."""
    ordered = sorted(trials, key=lambda trial: trial.loss)
    wanted_s = (1 - goal.exceed) * sum(trial.duration_s for trial in ordered)
    passed_s = 0.0
    for trial in ordered:
        passed_s += trial.duration_s
        if passed_s >= wanted_s - 1e-9:
            return trial.load * (1 - trial.loss)
    return 0.0


@dataclass
class Search:
    """The state and the outcome of a search."""

    goal: Goal
    least: float
    most: float
    trials: dict[float, list[Trial]] = field(default_factory=dict)
    """The valid ones, by load."""
    invalid: list[Trial] = field(default_factory=list)
    generator_limit: float | None = None
    """The load that the generator could not offer, where that ended the search."""

    def bound(self, load: float) -> Bound:
        """What a load is."""
        return classify(self.trials.get(load, []), self.goal)

    @property
    def upper(self) -> float | None:
        """The relevant upper bound: the lowest one."""
        return min((load for load in self.trials if self.bound(load) == "upper"), default=None)

    @property
    def lower(self) -> float | None:
        """The relevant lower bound: the highest one below all upper bounds."""
        upper = math.inf if self.upper is None else self.upper
        return max((load for load in self.trials if self.bound(load) == "lower" and load < upper), default=None)

    @property
    def done(self) -> bool:
        """Whether the bounds are close, or one of them is at the end of what may be tried."""
        lower, upper = self.lower, self.upper
        if upper is not None and upper <= self.least:
            return True
        if lower is not None and lower >= self.most:
            return True
        return lower is not None and upper is not None and (upper - lower) / upper <= self.goal.width

    def next_load(self) -> float:
        """The load to try now."""
        lower, upper = self.lower, self.upper
        undecided = [load for load in self.trials if self.bound(load) == "undecided"]
        between = [load for load in undecided if (lower or 0) < load < (math.inf if upper is None else upper)]
        if between:
            return between[0]
        if upper is None:
            return self.most if lower is None else min(self.most, lower * _EXPAND)
        if lower is None:
            return max(self.least, self._guess(upper))
        return math.sqrt(lower * upper)

    def _guess(self, upper: float) -> float:
        """Below an upper bound without a lower one: what got through there, a little less each time."""
        through = max(trial.load * (1 - trial.loss) for trial in self.trials[upper])
        closer = upper * (1 - self.goal.width / 2)
        return min(through * (1 - self.goal.width / 4), closer) if through > 0 else upper / _EXPAND


def search(measure: Callable[[float], Trial], goal: Goal, least: float, most: float, budget: int = 60) -> Search:
    """Search the highest load, from `least` to `most` packets a second, at which the goal's loss is kept.

    Args:
        measure: makes one trial at a load.
        goal: what is searched for.
        least: the lowest load that is tried.
        most: the highest load that is tried.
        budget: how many trials at most.
    """
    state = Search(goal, least, most)
    for trial in _trials(state, measure, budget):
        if trial.valid:
            state.trials.setdefault(trial.load, []).append(trial)
            continue
        state.invalid.append(trial)
        same = [item for item in state.invalid if item.load == trial.load]
        if len(same) >= goal.trials:  # it cannot: nothing from here up can be tried
            state.generator_limit = trial.load
            state.most = min(state.most, max(item.offered for item in same) * (1 - goal.width / 2))
            state.trials.pop(trial.load, None)
    return state


def _trials(state: Search, measure: Callable[[float], Trial], budget: int) -> Iterator[Trial]:
    for _ in range(budget):
        if state.done or state.most <= state.least:
            return
        yield measure(state.next_load())
