"""`assert_limited`: a limit acts, shown by a workload that tries to go beyond it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from ..cgroup.usage import Usage
from ..core.emulation import demand_real_time
from ..core.errors import BadInput, CommandFailed, Inconclusive
from ..core.process import Completed
from ..core.report import Report, explain
from ..core.units import format_duration, format_size, rate_bps, size_bytes
from . import workload
from .arguments import seconds
from .tolerance import CPU_MAX_REL, CPU_TICK_S, LEAST_PERIODS, LEAST_RATE_S, RATE_REL, RATE_SLICE_S
from .usage import Target, measure_usage, name_of

__all__ = ["LimitFinding", "LimitReport", "Runner", "assert_limited", "measure_limits"]

_KILLED = (-9, 137)  # by signal, and what shells and container engines make of it
_TRIES = 3
_PROBE_FILE = ".pytest-infra-rate"


@runtime_checkable
class Runner(Protocol):
    """A group or node in which commands run."""

    name: str

    def run(self, argv: Sequence[str], *, check: bool = True, timeout_s: float = 30.0) -> Completed:
        """Run a command to its end."""


@dataclass(frozen=True)
class LimitFinding:
    """What a workload got when it tried to go beyond one limit."""

    limit: str
    measured: str
    wanted: str
    ok: bool
    cause: str = ""


@dataclass(frozen=True)
class LimitReport(Report):
    """Which limits of a target act."""

    kind: ClassVar[str] = "limits"

    target: str
    findings: tuple[LimitFinding, ...]
    usage: Usage

    @property
    def ok(self) -> bool:
        """Whether all of them act."""
        return all(finding.ok for finding in self.findings)

    def explain(self) -> str:
        """The verdict, what the workloads got, and what was wanted."""
        failed = [finding for finding in self.findings if not finding.ok]
        names = ", ".join(finding.limit for finding in failed or self.findings)
        verdict = (
            f"{self.target} is not limited as claimed: {names}" if failed else f"{self.target} is limited: {names}"
        )
        evidence = [f"{label}: {text}" for label, text in self.usage.rows() if text] if failed else []
        rows = [
            ("measured", "\n".join(finding.measured for finding in self.findings)),
            ("wanted", "\n".join(finding.wanted for finding in self.findings)),
            ("cause", "\n".join(finding.cause for finding in failed if finding.cause)),
            ("evidence", "\n".join(evidence)),
        ]
        return explain(verdict, rows)


def _check_cpu(target: Target, runner: Runner, cpu_max: float, duration_s: float, period_s: float) -> LimitFinding:
    """Spin and see; what a busy machine leaves undecided is tried again.

    The workload begins and ends within a period and may use the whole quota of both, so one more counts; and the kernel
    looks at a quota once a tick, so the last one may be overdrawn.
    """
    got, allowed, usage, wall_s = 0.0, 0.0, measure_usage(target), 0.0
    for _ in range(_TRIES):
        got, usage, wall_s = _spin(target, runner, cpu_max, duration_s)
        held = 2 * (usage.throttled_periods or 0) >= (usage.periods or 1)
        allowed = cpu_max * (1 + CPU_MAX_REL) * (1 + period_s / wall_s) + CPU_TICK_S / wall_s
        if got > allowed or held:
            break
    else:
        periods = f"throttled in {usage.throttled_periods or 0} of {usage.periods or 0} periods"
        raise Inconclusive(
            f"cpu_max of {usage.target} cannot be judged: it got {got:.2f} of a CPU, {periods}; either the machine is "
            "too busy, or the limit is another group's"
        )
    cause = "" if usage.periods else "the group has no CPU quota: nothing was counted in periods"
    measured = f"cpu_max: {got:.3f} CPU in {format_duration(wall_s)}, throttled in {usage.throttled_periods or 0} of "
    measured += f"{usage.periods or 0} periods"
    wanted = f"at most {cpu_max:g} CPU (+ {CPU_MAX_REL:.0%}, + 1 period, + {format_duration(CPU_TICK_S)})"
    return LimitFinding("cpu_max", measured, wanted, got <= allowed, cause)


def _spin(target: Target, runner: Runner, cpu_max: float, duration_s: float) -> tuple[float, Usage, float]:
    """How many CPUs a workload gets that wants one more than it may have; the usage meanwhile, and the wall time."""
    demand_real_time("cpu_max", target)
    processes = min(int(cpu_max) + 1, os.cpu_count() or 1)
    before, began = measure_usage(target), time.monotonic()
    runner.run(workload.spin(duration_s, processes=processes), timeout_s=duration_s * 5 + 30)
    usage, wall_s = measure_usage(target, since=before), time.monotonic() - began
    if usage.cpu_s is None:
        raise Inconclusive(f"cpu_max of {usage.target} cannot be judged: nothing counts its CPU time")
    return usage.cpu_s / wall_s, usage, wall_s


def _check_memory(target: Target, runner: Runner, memory_max: int) -> LimitFinding:
    asked = memory_max + max(memory_max // 4, 16 << 20)
    before = measure_usage(target)
    done = runner.run(workload.touch(asked), check=False)
    if done.returncode not in (0, *_KILLED):
        raise CommandFailed(done.argv, done.where, done.returncode, done.stdout, done.stderr)
    usage = measure_usage(target, since=before)
    killed = done.returncode in _KILLED
    what = "was killed" if killed else "was not killed"
    peak = usage.memory_peak_bytes
    held = "" if peak is None else f", peak {format_size(peak)}"
    measured = f"memory_max: a process that touched {format_size(asked)} {what}{held}"
    limit = usage.memory_max_bytes
    cause = f"the group's limit is {format_size(limit)}" if limit is not None else "the group has no limit on memory"
    if usage.swap_bytes or (not killed and limit is not None and limit <= memory_max):
        cause += "; what did not fit went to swap (swap_max)"
    ok = killed and (peak is None or peak <= memory_max)
    return LimitFinding("memory_max", measured, f"killed, and never more than {format_size(memory_max)}", ok, cause)


def _check_pids(target: Target, runner: Runner, pids_max: int) -> LimitFinding:
    before = measure_usage(target)
    facts = workload.result(runner.run(workload.fork(pids_max + 8)))
    most = facts["forked"] + 1 + (before.pids or 0)
    refused = facts["errno"] == errno.EAGAIN
    end = "then fork was refused" if refused else "and fork was never refused"
    measured = f"pids_max: {most} processes at once, {end}"
    cause = "" if refused else "the group has no such limit on processes, or a higher one"
    return LimitFinding("pids_max", measured, f"refused above {pids_max}", refused and most <= pids_max, cause)


def _check_rate(runner: Runner, folder: str, rate: float, duration_s: float, verb: str) -> LimitFinding:
    limit_bytes = rate / 8
    size = max(1 << 16, round(limit_bytes * duration_s) // 4096 * 4096)
    path = os.path.join(folder, _PROBE_FILE)
    try:
        argv = workload.write(path, size) if verb == "write" else workload.read(path, size)
        if verb == "read":
            with open(path, "wb") as file:
                file.write(os.urandom(4096) * (size // 4096))
        facts = workload.result(runner.run(argv, timeout_s=duration_s * 5 + 30))
    finally:
        if os.path.exists(path):
            os.unlink(path)
    got = size / facts["wall_s"]
    ok = size <= limit_bytes * (1 + RATE_REL) * (facts["wall_s"] + RATE_SLICE_S)
    cause = f"no limit acts on the device that holds {folder}" if got > 2 * limit_bytes else "the limit is a higher one"
    measured = f"{verb}_max: {format_size(size)} in {format_duration(facts['wall_s'])}, {format_size(got)}/s"
    wanted = f"at most {format_size(limit_bytes)}/s (+ {RATE_REL:.0%}, + {format_duration(RATE_SLICE_S)})"
    return LimitFinding(f"{verb}_max", measured, wanted, ok, cause)


def _check_denied(runner: Runner, path: str) -> LimitFinding:
    facts = workload.result(runner.run(workload.open_device(path, "r")))
    what = "denied" if facts["denied"] else "opened" if facts["errno"] is None else os.strerror(facts["errno"])
    cause = "" if facts["denied"] else "the devices controller lets the group open it, or does not act here"
    return LimitFinding("devices", f"devices: {path} {what}", f"{path} denied", bool(facts["denied"]), cause)


def _findings(
    target: Target,
    runner: Runner,
    *,
    cpu_max: float | None,
    memory_max: str | float | None,
    pids_max: int | None,
    write_max: str | float | None,
    read_max: str | float | None,
    folder: str | os.PathLike[str] | None,
    denied: Sequence[str],
    duration_s: float,
    period_s: float,
) -> Iterator[LimitFinding]:
    if cpu_max is not None:
        yield _check_cpu(target, runner, cpu_max, duration_s, period_s)
    if pids_max is not None:
        yield _check_pids(target, runner, pids_max)
    for verb, rate in (("write", write_max), ("read", read_max)):
        if rate is not None:
            if folder is None:
                raise BadInput(f"{verb}_max needs folder=, a folder on the device that is limited")
            yield _check_rate(runner, os.fspath(folder), rate_bps(rate), duration_s, verb)
    for path in denied:
        yield _check_denied(runner, path)
    if memory_max is not None:
        yield _check_memory(target, runner, size_bytes(memory_max))


def _check_duration(duration_s: float, period_s: float | None, rate: bool) -> None:
    if rate and duration_s < LEAST_RATE_S:
        raise BadInput(
            f"duration {format_duration(duration_s)} is too short to judge a rate: the kernel lets the bytes of "
            f"a tenth of a second through at once; at least {format_duration(LEAST_RATE_S)} is needed"
        )
    if period_s is not None and duration_s < LEAST_PERIODS * period_s * (1 - 1e-9):
        raise BadInput(
            f"duration {format_duration(duration_s)} is too short to judge cpu_max: with periods of "
            f"{format_duration(period_s)} the first and the last one decide; at least {LEAST_PERIODS} periods are "
            f"needed, {format_duration(LEAST_PERIODS * period_s)}"
        )


def measure_limits(
    target: Target,
    *,
    cpu_max: float | None = None,
    memory_max: str | float | None = None,
    pids_max: int | None = None,
    write_max: str | float | None = None,
    read_max: str | float | None = None,
    folder: str | os.PathLike[str] | None = None,
    denied: Sequence[str] = (),
    duration: str | float = "2 s",
    period: str | float = "100 ms",
) -> LimitReport:
    """Try to go beyond each limit and report what came of it; `assert_limited` takes the same and judges."""
    duration_s, period_s = seconds("duration", duration), seconds("period", period)
    if not isinstance(target, Runner):
        raise BadInput(f"{target!r} cannot run the workload that tries the limit; give a group or a node")
    _check_duration(duration_s, None if cpu_max is None else period_s, write_max is not None or read_max is not None)
    findings = tuple(
        _findings(
            target,
            target,
            cpu_max=cpu_max,
            memory_max=memory_max,
            pids_max=pids_max,
            write_max=write_max,
            read_max=read_max,
            folder=folder,
            denied=[denied] if isinstance(denied, str) else denied,
            duration_s=duration_s,
            period_s=period_s,
        )
    )
    if not findings:
        raise BadInput("no limit is claimed; give cpu_max, memory_max, pids_max, write_max, read_max or denied")
    return LimitReport(name_of(target), findings, measure_usage(target))


def assert_limited(
    target: Target,
    *,
    cpu_max: float | None = None,
    memory_max: str | float | None = None,
    pids_max: int | None = None,
    write_max: str | float | None = None,
    read_max: str | float | None = None,
    folder: str | os.PathLike[str] | None = None,
    denied: Sequence[str] = (),
    duration: str | float = "2 s",
    period: str | float = "100 ms",
) -> LimitReport:
    """Check that limits act: a calibrated workload in the target tries to go beyond each of them.

    Memory comes last: there the workload is meant to be killed. The kernel kills the largest process of the group, so
    another one goes where another is larger.

    Args:
        target: a group, or a node whose commands are in one, that can run this Python.
        cpu_max: CPUs.
        memory_max: bytes.
        pids_max: processes and threads.
        write_max: what may be written each second: ``"8 MiB/s"``, or a number of bit/s.
        read_max: the same for reading.
        folder: a folder on the device that is limited, where a file is written.
        denied: device nodes that must not open.
        duration: how long to try the CPU and the rates; at least 20 periods of a quota, and 1 s for a rate.
        period: of the CPU quota.

    Raises:
        CheckFailed: more could be used than is claimed.
        BadInput: nothing is claimed, the target runs nothing, or too short a time for a CPU quota.
        Inconclusive: the limit was never met, so nothing was shown.
    """
    __tracebackhide__ = True
    report = measure_limits(
        target,
        cpu_max=cpu_max,
        memory_max=memory_max,
        pids_max=pids_max,
        write_max=write_max,
        read_max=read_max,
        folder=folder,
        denied=denied,
        duration=duration,
        period=period,
    )
    report.demand()
    return report
