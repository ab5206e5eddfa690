"""`assert_pipeline`: stages that work at the same time are as fast as the slowest of them."""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.report import explain
from .verdict import Measured, Verdict

__all__ = ["PipelineReport", "Stage", "assert_pipeline", "measure_pipeline"]

_ROUNDS = 3
_MOST_ITEMS = 100_000
_IN_FLIGHT = 2  # items that wait between two stages: double buffering
_END = object()
_NO_OVERLAP = 1.1
_WIDTH = 30


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline.

    Args:
        name: for people: ``"compute"``, ``"copy back"``, ``"send"``.
        work: takes an item from the stage before (the first one its number) and returns one for the stage behind.
    """

    name: str
    work: Callable[[Any], Any]


@dataclass(frozen=True)
class PipelineReport(Measured):
    """How fast stages are alone, one after the other, and all at once."""

    kind: ClassVar[str] = "pipeline"

    items: int
    alone_per_s: Mapping[str, float]
    """Items a second of each stage by itself."""
    serial_per_s: float
    """Items a second where each item passes all stages before the next one begins."""
    together_per_s: float
    """Items a second where every stage has a thread of its own, with two items between two of them."""
    efficiencies: tuple[float, ...]
    """The rate of all at once by that of the slowest stage alone, in each round."""
    at_least: float | None = None

    @property
    def bottleneck(self) -> str:
        """The stage that holds the others back."""
        return min(self.alone_per_s, key=lambda name: self.alone_per_s[name])

    @property
    def efficiency(self) -> float:
        """The median of the efficiencies: 1 where the slowest stage never waits."""
        return statistics.median(self.efficiencies)

    @property
    def verdict(self) -> Verdict:
        """By the least and the greatest of the rounds."""
        if self.at_least is None:
            return "pass"
        low, high = min(self.efficiencies), max(self.efficiencies)
        return "pass" if low >= self.at_least else "fail" if high < self.at_least else "inconclusive"

    def explain(self) -> str:
        """The verdict, a bar for each stage, and what holds them back."""
        verdict = {
            "pass": f"the pipeline runs at {self.efficiency:.0%} of its slowest stage, {self.bottleneck}",
            "fail": f"the pipeline runs at {self.efficiency:.0%} of its slowest stage, {self.bottleneck}, only",
            "inconclusive": f"cannot tell how well the stages of the pipeline overlap: {self.efficiency:.0%} so far",
        }[self.verdict]
        rows = [
            ("measured", "\n".join(self.bars())),
            (
                "wanted",
                "" if self.at_least is None else f"all at once at least {self.at_least:.0%} of {self.bottleneck}",
            ),
            ("cause", "" if self.ok else self._cause()),
        ]
        return explain(verdict, rows)

    def bars(self) -> list[str]:
        """The rates as lines of text, the longest bar for the fastest."""
        rates = {**self.alone_per_s, "one by one": self.serial_per_s, "all at once": self.together_per_s}
        width, most = max(map(len, rates)), max(rates.values())
        return [
            f"{name:<{width}}  {'#' * max(1, round(30 * rate / most)):<30}  {rate:,.1f}/s"
            for name, rate in rates.items()
        ]

    def _cause(self) -> str:
        if self.verdict == "inconclusive":
            rounds = ", ".join(f"{value:.0%}" for value in self.efficiencies)
            return f"the rounds differ too much from each other ({rounds}): the machine is busy"
        if self.together_per_s < _NO_OVERLAP * self.serial_per_s:
            return "all at once is no faster than one by one: the stages wait for the same lock, core or buffer"
        return "the stages disturb each other: they share cores, memory or a link"


def measure_pipeline(stages: Sequence[Stage], *, items: int = 50) -> PipelineReport:
    """Measure stages each alone, one after the other, and all at once with double buffering between them.

    Args:
        stages: two or more, with different names; they run in threads of their own.
        items: how many items pass in each round.

    Raises:
        BadInput: an argument that cannot be.
        Exception: what a stage raised.
    """
    names = [stage.name for stage in stages]
    if len(stages) < 2 or len(set(names)) < len(names):
        raise BadInput(f"a pipeline has two stages or more with different names, not {names}")
    if not isinstance(items, int) or not 2 <= items <= _MOST_ITEMS:
        raise BadInput(f"items is a whole number from 2 to {_MOST_ITEMS}, not {items!r}")
    for stage_input in range(2):  # what is used for the first time takes longer
        _one_by_one(stages, [stage_input])
    alone: dict[str, list[float]] = {name: [] for name in names}
    serial, together = [], []
    for _ in range(_ROUNDS):
        for stage, rate in zip(stages, _alone(stages, items), strict=True):
            alone[stage.name].append(rate)
        serial.append(items / _seconds(lambda: _one_by_one(stages, range(items))))
        together.append(items / _seconds(lambda: _all_at_once(stages, range(items))))
    rates = {name: statistics.median(values) for name, values in alone.items()}
    slowest = min(rates.values())
    return PipelineReport(
        items=items,
        alone_per_s=rates,
        serial_per_s=statistics.median(serial),
        together_per_s=statistics.median(together),
        efficiencies=tuple(rate / slowest for rate in together),
    )


def assert_pipeline(stages: Sequence[Stage], *, at_least: float = 0.8, items: int = 50) -> PipelineReport:
    """Check that a pipeline runs nearly as fast as its slowest stage alone.

    Args:
        stages: as of `measure_pipeline`.
        at_least: the share of the slowest stage's rate, above 0 and up to 1.
        items: how many items pass in each round.

    Raises:
        BadInput: an argument that cannot be.
        CheckFailed: it is slower; the text names the stage that holds it back.
        Inconclusive: the rounds differ too much.
    """
    __tracebackhide__ = True
    if not 0 < at_least <= 1:
        raise BadInput(f"at_least is a share above 0 and up to 1, not {at_least!r}")
    report = replace(measure_pipeline(stages, items=items), at_least=at_least)
    report.demand()
    return report


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _alone(stages: Sequence[Stage], items: int) -> list[float]:
    """Items a second of each stage; each gets what the one before it has made, one item after the other."""
    took = [0.0] * len(stages)
    for item in range(items):
        value: Any = item
        for number, stage in enumerate(stages):
            began = time.perf_counter()
            value = stage.work(value)
            took[number] += time.perf_counter() - began
    return [items / max(seconds, 1e-9) for seconds in took]


def _one_by_one(stages: Sequence[Stage], items: Sequence[int]) -> None:
    for item in items:
        value: Any = item
        for stage in stages:
            value = stage.work(value)


def _all_at_once(stages: Sequence[Stage], items: Sequence[int]) -> None:
    """Every stage in a thread of its own; the first error ends all, and is raised here."""
    between: list[queue.Queue[Any]] = [queue.Queue(_IN_FLIGHT) for _ in range(len(stages) + 1)]
    errors: list[BaseException] = []

    def feed() -> None:
        for item in (*items, _END):
            between[0].put(item)

    threads = [threading.Thread(target=feed, daemon=True)]
    for stage, source, target in zip(stages, between, between[1:], strict=False):
        threads.append(threading.Thread(target=_run, args=(stage, source, target, errors), daemon=True))
    for thread in threads:
        thread.start()
    for _ in iter(between[-1].get, _END):
        pass
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _run(stage: Stage, source: queue.Queue[Any], target: queue.Queue[Any], errors: list[BaseException]) -> None:
    for item in iter(source.get, _END):
        if errors:
            continue  # the stages before must not block
        try:
            target.put(stage.work(item))
        except BaseException as error:  # noqa: BLE001  # raised in the caller's thread
            errors.append(error)
    target.put(_END)
