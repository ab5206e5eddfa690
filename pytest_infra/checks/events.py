"""`assert_oom_killed` and `assert_not_throttled`: what happened to a group at its limits."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from ..cgroup.group import Group
from ..cgroup.usage import Usage
from ..core.errors import Unavailable, WaitTimeout
from ..core.report import Report, explain
from ..core.units import format_duration, format_size
from ..core.wait import until
from .arguments import seconds
from .usage import Target, measure_usage

__all__ = ["EventReport", "assert_not_throttled", "assert_oom_killed"]


@dataclass(frozen=True)
class EventReport(Report):
    """Whether something happened to a group, with its counters."""

    kind: ClassVar[str] = "cgroup-event"

    target: str
    verdict: str
    wanted: str
    happened_as_wanted: bool
    cause: str
    usage: Usage

    @property
    def ok(self) -> bool:
        """Whether it is as wanted."""
        return self.happened_as_wanted

    def explain(self) -> str:
        """The verdict, the group's counters, and the likely cause."""
        measured = "\n".join(f"{label}: {text}" for label, text in self.usage.rows() if text and label != "pressure")
        evidence = "".join(text for label, text in self.usage.rows() if label == "pressure")
        rows = [("measured", measured), ("wanted", self.wanted), ("cause", "" if self.ok else self.cause)]
        return explain(self.verdict, [*rows, ("evidence", f"pressure: {evidence}" if evidence else "")])


def assert_oom_killed(target: Target, *, since: Usage | None = None, within: str | float = "5 s") -> EventReport:
    """Check that the kernel killed a process of this group because the group was out of memory.

    Args:
        target: a group, a node with a control group, or a process id. Where a container has ended, its engine is asked.
        since: an earlier reading of `measure_usage`: only kills after it count.
        within: how long to wait for it.

    Raises:
        CheckFailed: nobody was killed; the text says how much memory was used, and what was allowed.
        Unavailable: nothing counts it here.
    """
    __tracebackhide__ = True
    within_s = seconds("within", within)
    if since is None and (ended := _end_of(target)) is not None:
        ended.demand()
        return ended
    usage = measure_usage(target, since=since)
    if usage.oom_kills is None:
        why = (
            f"kills for want of memory are counted by the memory controller, which {usage.target}'s group does not have"
        )
        raise Unavailable("cgroup-memory", why, "pytest-infra doctor tells which controller is where")
    with suppress(WaitTimeout):
        until(lambda: measure_usage(target, since=since).oom_kills, within_s=within_s, what="a kill for want of memory")
    usage = measure_usage(target, since=since)
    killed = bool(usage.oom_kills)
    late = "" if killed else f" within {format_duration(within_s)}"
    verdict = f"{usage.target}: {'a' if killed else 'no'} process was killed for want of memory{late}"
    report = EventReport(usage.target, verdict, "a process killed for want of memory", killed, _no_oom(usage), usage)
    report.demand()
    return report


def _end_of(target: Target) -> EventReport | None:
    """Whether a container that has ended did so for want of memory, as its engine knows; None for all others."""
    state: Any = getattr(target, "state", None)
    if isinstance(target, int | Group) or state is None or state.pid:
        return None
    name, killed = target.name, bool(getattr(state, "oom_killed", False))
    verdict = f"{name}: {'a' if killed else 'no'} process was killed for want of memory before it ended"
    cause = f"it is {state}, and its engine knows of no such kill"
    return EventReport(name, verdict, "a process killed for want of memory", killed, cause, Usage(name))


def _no_oom(usage: Usage) -> str:
    if usage.memory_max_bytes is None:
        return "the group has no limit on memory (memory_max)"
    used = usage.memory_peak_bytes or usage.memory_bytes or 0
    if used < usage.memory_max_bytes:
        return f"it never used more than {format_size(used)} of the {format_size(usage.memory_max_bytes)} it may"
    if usage.swap_bytes:
        return f"{format_size(usage.swap_bytes)} went to swap instead (swap_max)"
    return "the kernel could reclaim enough at the limit: page cache, not memory that processes hold"


def assert_not_throttled(target: Target, *, since: Usage | None = None) -> EventReport:
    """Check that no CPU quota held this group back.

    Args:
        target: a group, a node with a control group, or a process id.
        since: an earlier reading of `measure_usage`: only what happened after it counts.

    Raises:
        CheckFailed: it was held back; the text says how often and how long.
        Unavailable: nothing counts it here.
    """
    __tracebackhide__ = True
    usage = measure_usage(target, since=since)
    if usage.throttled_periods is None:
        why = f"throttling is counted by the cpu controller, which {usage.target}'s group does not have"
        raise Unavailable("cgroup-cpu", why, "pytest-infra doctor tells which controller is where")
    throttled = usage.throttled_periods
    verdict = f"{usage.target} was not throttled"
    cause = ""
    if throttled:
        verdict = f"{usage.target} was throttled in {throttled} of {usage.periods} periods"
        cause = "its processes wanted more CPU time in a period than the quota (cpu_max) gives"
    report = EventReport(usage.target, verdict, "not throttled in any period", not throttled, cause, usage)
    report.demand()
    return report
