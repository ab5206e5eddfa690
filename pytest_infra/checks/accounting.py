"""`assert_accounted`: the kernel counted what was used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from ..cgroup.group import Group
from ..cgroup.usage import Usage
from ..core.emulation import demand_real_time
from ..core.errors import BadInput, Inconclusive, Unavailable
from ..core.report import Report, explain
from ..core.units import duration_s, format_duration, format_size, size_bytes
from .tolerance import TOLERANCES, Tolerance
from .usage import Target, measure_usage, name_of

__all__ = ["AccountReport", "Claim", "assert_accounted", "format_quantity", "measure_accounting"]

_WORDS = {
    "cpu_s": "CPU time",
    "memory_peak_bytes": "peak memory",
    "anon_bytes": "anonymous memory",
    "read_bytes": "bytes read",
    "write_bytes": "bytes written",
    "pids_peak": "peak processes",
}
_CONTROLLER = {"memory_peak_bytes": "memory", "anon_bytes": "memory", "read_bytes": "io", "write_bytes": "io"}
_PEAKS = ("memory_peak_bytes", "pids_peak")


def format_quantity(name: str, value: float) -> str:
    """A number for a reader: seconds, bytes or a count, by its name's unit."""
    if name.endswith("_s"):
        return format_duration(value)
    return format_size(value) if name.endswith("_bytes") else f"{value:g}"


@dataclass(frozen=True)
class Claim:
    """One quantity: what was expected, what the kernel counted, and how far apart they may be."""

    name: str
    expected: float
    measured: float
    tolerance: Tolerance

    @property
    def error(self) -> float:
        """Measured less expected."""
        return self.measured - self.expected

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance."""
        return abs(self.error) <= self.tolerance.room(self.expected)

    def measured_text(self) -> str:
        """What was measured, with the error in percent where it has one."""
        share = f" ({self.error / self.expected:+.2%})" if self.expected and self.error else ""
        return f"{_WORDS[self.name]} {format_quantity(self.name, self.measured)}{share}"

    def wanted_text(self) -> str:
        """What was expected, and the room for error."""
        room = self.tolerance.room(self.expected)
        exactly = f"± {format_quantity(self.name, room)}" if room else "exactly"
        return f"{_WORDS[self.name]} {format_quantity(self.name, self.expected)} {exactly}"


@dataclass(frozen=True)
class AccountReport(Report):
    """What was claimed of a target's accounting, and what the kernel counted."""

    kind: ClassVar[str] = "accounting"

    target: str
    claims: tuple[Claim, ...]
    usage: Usage

    @property
    def ok(self) -> bool:
        """Whether every claim holds."""
        return all(claim.ok for claim in self.claims)

    def explain(self) -> str:
        """The verdict, what was measured and wanted, and what may have caused the difference."""
        failed = [claim for claim in self.claims if not claim.ok]
        if not failed:
            verdict = f"{self.target} is accounted as expected"
        else:
            words = ", ".join(_WORDS[claim.name] for claim in failed)
            verdict = f"{self.target} is not accounted as expected: {words}"
        rows = [
            ("measured", "\n".join(claim.measured_text() for claim in self.claims)),
            ("wanted", "\n".join(claim.wanted_text() for claim in self.claims)),
            ("cause", "\n".join(cause for claim in failed for cause in _causes(claim, self.usage))),
            ("evidence", "\n".join(f"{label}: {text}" for label, text in self.usage.rows() if text) if failed else ""),
        ]
        return explain(verdict, rows)


def _causes(claim: Claim, usage: Usage) -> Iterator[str]:
    """What usually makes such a difference, where the counters speak for it."""
    less = claim.error < 0
    if claim.name == "cpu_s" and less and usage.throttled_periods:
        yield f"the CPU quota held the group back for {format_duration(usage.throttled_s or 0)}"
    if usage.oom_kills:
        yield "the kernel killed a process of the group for want of memory"
    if claim.name == "pids_peak" and less and usage.pids_max_hits:
        yield "a fork was refused: the limit on processes was met"
    if claim.name == "write_bytes" and less and usage.versions.get("io") == 1:
        yield "version 1 counts what went through the page cache for whoever wrote it out; write with O_DIRECT"
    if claim.name in ("memory_peak_bytes", "anon_bytes") and less and usage.swap_bytes:
        yield f"{format_size(usage.swap_bytes)} are in swap"
    if usage.pids and not less:
        yield f"still in the group, and counted too: {usage.pids} (processes and threads)"


def measure_accounting(
    target: Target,
    *,
    cpu_s: str | float | None = None,
    memory_peak_bytes: str | float | None = None,
    anon_bytes: str | float | None = None,
    read_bytes: str | float | None = None,
    write_bytes: str | float | None = None,
    pids_peak: int | None = None,
    since: Usage | None = None,
    rel: float | None = None,
    buffered: bool = False,
) -> AccountReport:
    """Hold what the kernel counted against what is claimed; `assert_accounted` takes the same and judges."""
    wanted: dict[str, float] = {}
    if cpu_s is not None:
        wanted["cpu_s"] = duration_s(cpu_s)
    for name, size in (
        ("memory_peak_bytes", memory_peak_bytes),
        ("anon_bytes", anon_bytes),
        ("read_bytes", read_bytes),
        ("write_bytes", write_bytes),
    ):
        if size is not None:
            wanted[name] = size_bytes(size)
    if pids_peak is not None:
        wanted["pids_peak"] = pids_peak
    tolerances = _tolerances(wanted, rel)
    if since is not None and (peaks := [name for name in wanted if name in _PEAKS]):
        raise BadInput(f"since does not go with {peaks[0]}: a peak is that of the group's whole life; use a new group")
    usage = measure_usage(target, since=since)
    _refuse(target, wanted, usage, buffered)
    claims = [Claim(name, value, _counted(name, usage), tolerances[name]) for name, value in wanted.items()]
    return AccountReport(name_of(target), tuple(claims), usage)


def _tolerances(wanted: dict[str, float], rel: float | None) -> dict[str, Tolerance]:
    if not wanted:
        raise BadInput(f"nothing is claimed; give at least one of {', '.join(TOLERANCES)}")
    tolerances = {name: TOLERANCES[name] for name in wanted}
    if rel is None:
        return tolerances
    for name, tolerance in tolerances.items():
        if not tolerance.least_rel <= rel < 1:
            raise BadInput(
                f"rel={rel!r} cannot be kept for {name}: the kernel's own figure differs by up to "
                f"{tolerance.least_rel:.1%} (docs/accounting.md); give {tolerance.least_rel} to 1"
            )
    return {name: replace(tolerance, rel=rel) for name, tolerance in tolerances.items()}


def _refuse(target: Target, wanted: dict[str, float], usage: Usage, buffered: bool) -> None:
    """Claims that the kernel cannot decide."""
    if "cpu_s" in wanted:
        demand_real_time(f"cpu_s of {usage.target}")
    group = target if isinstance(target, Group) else getattr(target, "control_group", None)
    late = group.joined_late if isinstance(group, Group) else []
    if late and (names := [name for name in wanted if _CONTROLLER.get(name) == "memory"]):
        raise Inconclusive(
            f"{names[0]} of {usage.target} cannot be judged: process {late[0]} had started before it joined, and what "
            "it had allocated stays charged to the group it came from; start it in the group: group.run, group.spawn"
        )
    if "write_bytes" not in wanted:
        return
    if buffered and usage.versions.get("io") == 1:
        raise Inconclusive(
            f"write_bytes of {usage.target} cannot be judged: version 1 counts buffered writes for whoever writes them "
            "out, which may be any group; write with O_DIRECT, or use a machine with version 2"
        )
    waiting = usage.dirty_bytes or 0
    if waiting > TOLERANCES["write_bytes"].plus:
        raise Inconclusive(
            f"write_bytes of {usage.target} cannot be judged: {format_size(waiting)} are still in the page "
            "cache and on no device; sync first (fsync(2)), or write with O_DIRECT"
        )


def _counted(name: str, usage: Usage) -> float:
    measured = getattr(usage, name)
    if measured is not None:
        return float(measured)
    if name == "pids_peak" and usage.pids is not None:
        raise Unavailable("cgroup-pids-peak", "this kernel keeps no peak of processes", "use Linux 6.6 or later")
    if name == "memory_peak_bytes" and usage.memory_bytes is not None:
        raise Unavailable("cgroup-memory-peak", "this kernel keeps no peak of memory", "use Linux 5.19 or later")
    controller = _CONTROLLER.get(name, name.partition("_")[0])
    why = f"{_WORDS[name]} of {usage.target} is counted by the {controller} controller, which its group does not have"
    raise Unavailable(f"cgroup-{controller}", why, "pytest-infra doctor tells which controller is where")


def assert_accounted(
    target: Target,
    *,
    cpu_s: str | float | None = None,
    memory_peak_bytes: str | float | None = None,
    anon_bytes: str | float | None = None,
    read_bytes: str | float | None = None,
    write_bytes: str | float | None = None,
    pids_peak: int | None = None,
    since: Usage | None = None,
    rel: float | None = None,
    buffered: bool = False,
) -> AccountReport:
    """Check that the kernel counted for a target what it is known to have used.

    The default tolerances are those that the kernel keeps with calibrated workloads (docs/accounting.md).

    Args:
        target: a group, a node with a control group, or a process id.
        cpu_s: CPU seconds of all its processes.
        memory_peak_bytes: the most memory at one time, page cache and kernel memory included.
        anon_bytes: anonymous memory now: what its processes hold that is no file.
        read_bytes: bytes read from devices.
        write_bytes: bytes written to devices.
        pids_peak: the most processes and threads at one time.
        since: an earlier reading of `measure_usage`; counters are judged from there on.
        rel: the share by which a figure may differ, for all of them; 0.02 is 2 %.
        buffered: that the writes went through the page cache. Version 1 does not know whose those are.

    Raises:
        CheckFailed: a figure differs by more than its tolerance.
        BadInput: nothing is claimed, or a tolerance that the kernel cannot keep.
        Inconclusive: the kernel cannot decide the claim; the text says why.
        Unavailable: no controller counts this here.
    """
    __tracebackhide__ = True
    report = measure_accounting(
        target,
        cpu_s=cpu_s,
        memory_peak_bytes=memory_peak_bytes,
        anon_bytes=anon_bytes,
        read_bytes=read_bytes,
        write_bytes=write_bytes,
        pids_peak=pids_peak,
        since=since,
        rel=rel,
        buffered=buffered,
    )
    report.demand()
    return report
