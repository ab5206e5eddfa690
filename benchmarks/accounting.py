"""How exactly this kernel counts and limits, against calibrated workloads; prints a Markdown table.

    python benchmarks/accounting.py            # ten runs of each, about four minutes, as root
    python benchmarks/accounting.py --runs 3 cpu memory

Each row compares what a workload did, by its own clock and count, with what its control group was charged.
docs/accounting.md has the table, and the tolerances of ``assert_accounted`` follow from it.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from measure import machine, progress

from pytest_infra import Infra, IoMax, Unavailable, workload
from pytest_infra.cgroup.group import Group
from pytest_infra.checks.shares import measure_shares

MIB = 1 << 20


@dataclass
class Case:
    """One thing to measure: what was expected, and a function that gives one measurement."""

    what: str
    expected: float
    unit: str
    once: Callable[[Infra, str], float]


def burn(processes: int) -> Callable[[Infra, str], float]:
    def once(infra: Infra, _: str) -> float:
        with infra.cgroup() as group:
            done = workload.result(group.run(workload.burn(1.0 / processes, processes=processes)))
            return (group.usage().cpu_s or 0) / done["cpu_s"]

    return once


def touched(field: str, size: int) -> Callable[[Infra, str], float]:
    def once(infra: Infra, _: str) -> float:
        with infra.cgroup() as group:
            child = group.spawn(workload.touch(size, hold=True))
            child.wait_for("touched")
            facts = workload.result(child)
            return (getattr(group.usage(), field) - facts["base_bytes"]) / MIB

    return once


def written(how: str) -> Callable[[Infra, str], float]:
    def once(infra: Infra, path: str) -> float:
        Path(path).unlink(missing_ok=True)  # version 2 charges writing to the group that wrote to the file first
        with infra.cgroup() as group:
            group.run(workload.write(path, "64 MiB", how=how))  # type: ignore[arg-type]
            return (group.usage().write_bytes or 0) / MIB

    return once


def read(infra: Infra, path: str) -> float:
    with infra.cgroup() as group:
        group.run(workload.write(path, "64 MiB"))
        before = group.usage()
        group.run(workload.read(path, "64 MiB"))
        return ((group.usage() - before).read_bytes or 0) / MIB


def synced_by_another(infra: Infra, path: str) -> float:
    Path(path).unlink(missing_ok=True)
    with infra.cgroup() as writer, infra.cgroup() as syncer:
        writer.run(workload.write(path, "64 MiB", how="buffered"))
        syncer.run(["sync", path])
        return (writer.usage().write_bytes or 0) / MIB


def joined_late(infra: Infra, _: str) -> float:
    with infra.cgroup() as first, infra.cgroup() as second:
        child = first.spawn(workload.touch("64 MiB", hold=True))
        child.wait_for("touched")
        second.add(child.pid)
        return (second.usage().anon_bytes or 0) / MIB


def forked(infra: Infra, _: str) -> float:
    with infra.cgroup() as group:
        group.run(workload.fork(50))
        peak = group.usage().pids_peak
        if peak is None:
            raise Unavailable("cgroup-pids-peak", "no pids.peak")
        return peak


def refused(infra: Infra, _: str) -> float:
    with infra.cgroup(pids_max=20) as group:
        return float(workload.result(group.run(workload.fork(50)))["forked"]) + 1


def oom_peak(infra: Infra, _: str) -> float:
    with infra.cgroup(memory_max="64 MiB") as group:
        assert group.run(workload.touch("128 MiB"), check=False).returncode == -signal.SIGKILL
        return (group.usage().memory_peak_bytes or 0) / MIB


def quota(cpus: float, wall_s: float, processes: int) -> Callable[[Infra, str], float]:
    def once(infra: Infra, _: str) -> float:
        with infra.cgroup(cpu_max=cpus) as group:
            before, began = group.usage(), time.monotonic()
            group.run(workload.spin(wall_s, processes=processes))
            took_s = time.monotonic() - began
            return ((group.usage() - before).cpu_s or 0) / took_s

    return once


def shares(infra: Infra, _: str) -> float:
    with infra.cgroup() as outer:
        a, b = outer.nest("a", cpu_weight=300), outer.nest("b", cpu_weight=100)
        one, other = measure_shares({a: 3, b: 1}, duration="1 s").shares
        return one.cpu_s / other.cpu_s


def throttled(infra: Infra, path: str) -> float:
    with infra.cgroup(io_max={str(Path(path).parent): IoMax(write="32 MiB/s")}) as group:
        facts = workload.result(group.run(workload.write(path, "64 MiB")))
        return 64.0 / float(facts["wall_s"])


def spinning(group: Group) -> None:
    group.spawn(workload.spin(60)).wait_for("spinning")


def freeze_ms(infra: Infra, _: str) -> float:
    with infra.cgroup() as group:
        spinning(group)
        began = time.perf_counter()
        group.freeze()
        return (time.perf_counter() - began) * 1e3


def frozen_cpu_ms(infra: Infra, _: str) -> float:
    with infra.cgroup() as group:
        spinning(group)
        group.freeze()
        before = group.usage()
        time.sleep(0.2)
        return ((group.usage() - before).cpu_s or 0) * 1e3


def group_ms(infra: Infra, _: str) -> float:
    began = time.perf_counter()
    with infra.cgroup(cpu_max=0.5, memory_max="64 MiB", pids_max=20):
        pass
    return (time.perf_counter() - began) * 1e3


def join_ms(infra: Infra, _: str) -> float:
    with infra.cgroup() as group, infra.lab() as lab:
        host = lab.host()
        host.run(["true"])
        times = [run_ms(lambda: host.run(["true"])) for _ in range(5)]
        group.adopt(host)
        return statistics.median(run_ms(lambda: host.run(["true"])) for _ in range(5)) - statistics.median(times)


def run_ms(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) * 1e3


CASES: dict[str, list[Case]] = {
    "cpu": [
        Case("CPU time, 1 process, 1 s: charged / burnt", 1, "", burn(1)),
        Case("CPU time, 2 processes, 0.5 s each: charged / burnt", 1, "", burn(2)),
        Case("quota 0.5 CPU, 2 s, 1 process", 0.5, "CPU", quota(0.5, 2, 1)),
        Case("quota 0.5 CPU, 2 s, 2 processes", 0.5, "CPU", quota(0.5, 2, 2)),
        Case("quota 0.5 CPU, 0.5 s (too short to judge)", 0.5, "CPU", quota(0.5, 0.5, 1)),
        Case("weights 300 and 100, one CPU: ratio", 3, "", shares),
    ],
    "memory": [
        Case("anonymous memory, 256 MiB touched", 256, "MiB", touched("anon_bytes", 256 * MIB)),
        Case("memory, 256 MiB touched", 256, "MiB", touched("memory_bytes", 256 * MIB)),
        Case("64 MiB touched before joining (refused)", 64, "MiB", joined_late),
        Case("peak at a limit of 64 MiB, killed", 64, "MiB", oom_peak),
    ],
    "io": [
        Case("direct write, 64 MiB", 64, "MiB", written("direct")),
        Case("direct read, 64 MiB", 64, "MiB", read),
        Case("buffered write and fsync, 64 MiB", 64, "MiB", written("sync")),
        Case("buffered write, synced by another group (refused on v1)", 64, "MiB", synced_by_another),
        Case("write limit 32 MiB/s, 64 MiB", 32, "MiB/s", throttled),
    ],
    "pids": [
        Case("peak of 50 forks and their parent", 51, "", forked),
        Case("processes at a limit of 20", 20, "", refused),
    ],
    "group": [
        Case("until all stand still (freeze)", 0, "ms", freeze_ms),
        Case("CPU time in 200 ms while frozen", 0, "ms", frozen_cpu_ms),
        Case("a group with three limits, made and removed", 0, "ms", group_ms),
        Case("a host's command in a group: more than without", 0, "ms", join_ms),
    ],
}


def rows(cases: list[Case], runs: int, infra: Infra, path: str) -> Iterator[str]:
    for case in cases:
        progress(case.what)
        try:
            values = [case.once(infra, path) for _ in range(runs)]
        except Unavailable as error:
            yield f"| {case.what} | | | | | {error} |"
            continue
        middle, least, most = statistics.median(values), min(values), max(values)
        worst = max(abs(value / case.expected - 1) for value in values) if case.expected else None
        cells = [f"{value:.4g} {case.unit}".strip() for value in (least, middle, most)]
        expected = f"{case.expected:g} {case.unit}".strip() if case.expected else ""
        yield f"| {case.what} | {expected} | {' | '.join(cells)} | {'' if worst is None else f'{worst:.2%}'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(CASES)} (all by default)")
    parser.add_argument("--runs", type=int, default=10, help="measurements of each thing (10)")
    parser.add_argument("--folder", default="/var/tmp", help="a folder on a disk")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(CASES):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    where = machine()
    with Infra() as infra, tempfile.TemporaryDirectory(dir=chosen.folder) as folder, infra.cgroup() as group:
        where += f"; control groups: {group.layout.describe()}"
        lines = [
            line for part in chosen.parts or CASES for line in rows(CASES[part], chosen.runs, infra, f"{folder}/f")
        ]
    print(f"{where}\n\n`python {' '.join(sys.argv)}`\n")
    print("| what | expected | min | median | max | largest error |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
