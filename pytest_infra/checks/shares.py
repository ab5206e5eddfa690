"""`assert_shares`: groups share a busy CPU as their weights say."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from ..cgroup.group import Group
from ..core.emulation import demand_real_time
from ..core.errors import BadInput, Inconclusive
from ..core.node import Confined
from ..core.report import Report, explain
from ..core.units import format_duration
from ..core.wait import until
from . import workload
from .arguments import finite, seconds, whole
from .tolerance import SHARES_REL
from .usage import measure_usage, name_of

__all__ = ["Share", "SharesReport", "assert_shares", "measure_shares"]

_LEAST_S = 0.5  # below it the scheduler's own time slices decide
_LONGEST = 10  # times the duration: on a busy machine it takes longer to get as much


@dataclass(frozen=True)
class Share:
    """One group's part: what it should get, and got."""

    target: str
    weight: float
    wanted: float
    """Its share of what all of them got, from 0 to 1."""
    cpu_s: float
    measured: float


@dataclass(frozen=True)
class SharesReport(Report):
    """How groups shared one CPU that all of them wanted."""

    kind: ClassVar[str] = "shares"

    cpu: int
    wall_s: float
    rel: float
    shares: tuple[Share, ...]

    @property
    def ok(self) -> bool:
        """Whether every share is within the tolerance."""
        return not self._wrong()

    def _wrong(self) -> list[Share]:
        return [share for share in self.shares if abs(share.measured - share.wanted) > self.rel * share.wanted]

    def explain(self) -> str:
        """The verdict, and each group's share."""
        names = " : ".join(share.target for share in self.shares)
        ratio = " : ".join(f"{share.weight:g}" for share in self.shares)
        got = self._ratio()
        verdict = (
            f"{names} share CPU {self.cpu} {got}" if self.ok else f"{names} do not share CPU {self.cpu} {ratio}: {got}"
        )
        measured = [f"{share.target} {share.measured:.1%} ({format_duration(share.cpu_s)})" for share in self.shares]
        wanted = [f"{share.target} {share.wanted:.1%} ± {self.rel * share.wanted:.1%}" for share in self.shares]
        cause = (
            "" if self.ok else "the weights (cpu_weight) are others, a quota holds one back, or they are no siblings"
        )
        rows = [
            ("measured", "\n".join([*measured, f"in {format_duration(self.wall_s)}"])),
            ("wanted", "\n".join(wanted)),
        ]
        return explain(verdict, [*rows, ("cause", cause)])

    def _ratio(self) -> str:
        least = min(self.shares, key=lambda share: share.weight)
        unit = least.measured / least.weight or 1e-9
        return " : ".join(f"{share.measured / unit:.2f}" for share in self.shares)


def measure_shares(
    weights: Mapping[Any, float], *, duration: str | float = "1 s", cpu: int | None = None, rel: float = SHARES_REL
) -> SharesReport:
    """Let all want one CPU for a while and report who got how much; `assert_shares` takes the same and judges."""
    wall_s = seconds("duration", duration)
    _check(weights, cpu, rel)
    demand_real_time("CPU shares", *weights)
    chosen = random.choice(sorted(os.sched_getaffinity(0))) if cpu is None else cpu  # noqa: S311 - to spread
    used, took_s = _compete(list(weights), wall_s, chosen)
    total, sum_of_weights = sum(used.values()), sum(weights.values())
    if total < _LEAST_S:
        raise Inconclusive(
            f"in {format_duration(took_s)} the groups got only {format_duration(total)} of CPU {chosen}; at least "
            f"{_LEAST_S:g} s are needed"
        )
    shares = tuple(
        Share(name_of(target), weight, weight / sum_of_weights, used[target], used[target] / total)
        for target, weight in weights.items()
    )
    return SharesReport(chosen, took_s, rel, shares)


def _check(weights: Mapping[Any, float], cpu: int | None, rel: float) -> None:
    known = isinstance(weights, Mapping) and len(weights) >= 2
    if not known or not all(finite("weight", weight) > 0 for weight in weights.values()):
        raise BadInput(
            "shares are between at least two groups, each with a weight above 0: assert_shares({a: 3, b: 1})"
        )
    for target in weights:
        if not isinstance(target, Group | Confined) or not hasattr(target, "spawn"):
            raise BadInput(f"{target!r} cannot run the workload that wants the CPU; give groups or nodes")
    if not 0 < finite("rel", rel) < 1:
        raise BadInput(
            f"rel {rel!r} is not allowed; give a number above 0 and below 1: at 1 a group that gets nothing passes"
        )
    if cpu is not None:
        whole("cpu", cpu, 0, os.sysconf("SC_NPROCESSORS_CONF") - 1)


def _compete(targets: Sequence[Any], wall_s: float, cpu: int) -> tuple[dict[Any, float], float]:
    """The CPU seconds that each target got while all of them wanted the same CPU, and in how long.

    All workloads are running at the first reading and at the last one; between the two is what counts.
    """
    longest_s = wall_s * _LONGEST
    with ExitStack() as stack:
        running = [target.spawn(workload.spin(longest_s + 60, cpu=cpu)) for target in targets]
        for process in running:
            stack.callback(process.send_signal, signal.SIGKILL)
        for process in running:
            process.wait_for("spinning", within_s=30)
        began, before = time.monotonic(), {target: measure_usage(target) for target in targets}

        def used() -> dict[Any, float]:
            return {target: measure_usage(target, since=before[target]).cpu_s or 0.0 for target in targets}

        def enough() -> bool:
            passed_s = time.monotonic() - began
            return passed_s >= longest_s or (passed_s >= wall_s and sum(used().values()) >= _LEAST_S)

        until(enough, within_s=longest_s + 30, what="the groups' shares of a CPU")
        return used(), time.monotonic() - began


def assert_shares(
    weights: Mapping[Any, float], *, duration: str | float = "1 s", cpu: int | None = None, rel: float = SHARES_REL
) -> SharesReport:
    """Check that groups share a busy CPU in this ratio: ``assert_shares({a: 3, b: 1})``.

    In each of them a workload wants all of the same CPU; what each got is what the kernel counted. Other load on that
    CPU takes from all in the same measure, if the groups are siblings.

    Args:
        weights: by group, or by node with a control group, what it should get in relation to the others.
        duration: how long; up to ten times as long on a machine where there is little CPU time to be had.
        cpu: the CPU; by default any that this process may use.
        rel: the share of each one's part by which it may differ, above 0 and below 1.

    Raises:
        CheckFailed: a share differs by more.
        BadInput: fewer than two groups, a weight that is not above 0, no such CPU, or a tolerance that lets all pass.
        Inconclusive: the CPU was too busy with other things.
    """
    __tracebackhide__ = True
    report = measure_shares(weights, duration=duration, cpu=cpu, rel=rel)
    report.demand()
    return report
