"""Faults act, and are undone."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_infra import clock_moved, fill_disk, frozen, kill, memory_pressure, workload
from pytest_infra.cgroup.group import Group
from pytest_infra.core.errors import BadInput, CommandFailed, StartFailed
from pytest_infra.lab import Lab

Make = Callable[..., Group]
MIB = 1 << 20
WRITE = ["dd", "if=/dev/zero", "bs=4096", "count=4"]


def fits(node: object, folder: Path) -> bool:
    done = node.run([*WRITE, f"of={folder}/log"], check=False)  # type: ignore[attr-defined]
    assert done.ok or "No space left on device" in done.stderr
    return bool(done.ok)


def test_a_full_disk_takes_nothing_until_the_fault_ends(lab: Lab, tmp_path: Path) -> None:
    host = lab.host()
    with fill_disk(host, tmp_path):
        assert not fits(host, tmp_path)
        assert os.listdir(tmp_path) == []  # the machine does not see it
    assert fits(host, tmp_path)


@pytest.mark.parametrize(("free", "enough"), [("16 KiB", True), ("12 KiB", False)])
def test_what_is_left_free_can_be_written(lab: Lab, tmp_path: Path, free: str, enough: bool) -> None:
    host = lab.host()
    with fill_disk(host, tmp_path, size="64 KiB", free=free):
        assert fits(host, tmp_path) is enough


def test_a_disk_of_a_host_with_its_own_mounts_is_its_own(lab: Lab, tmp_path: Path) -> None:
    own, other = lab.host(isolate=["mount"]), lab.host()
    lab.inject(fill_disk(own, tmp_path))
    assert not fits(own, tmp_path)
    assert fits(other, tmp_path)


def test_a_disk_that_cannot_be(lab: Lab, tmp_path: Path) -> None:
    host = lab.host()
    with pytest.raises(BadInput, match="a disk of '4 KiB' cannot have '8 KiB' free"):
        lab.inject(fill_disk(host, tmp_path, size="4 KiB", free="8 KiB"))
    with pytest.raises(CommandFailed, match="mount point does not exist"):
        lab.inject(fill_disk(host, tmp_path / "nowhere"))


def test_under_memory_pressure_there_is_no_room(infra_cgroup: Make) -> None:
    group = infra_cgroup(memory_max="64 MiB")
    group.run(workload.touch("24 MiB"))
    with memory_pressure(group, leave="16 MiB"):
        usage = group.usage()
        assert abs((usage.memory_max_bytes or 0) - (usage.memory_bytes or 0) - 16 * MIB) < 4 * MIB
        assert group.run(workload.touch("24 MiB"), check=False).returncode == -signal.SIGKILL or group.usage().oom_kills
    group.run(workload.touch("24 MiB"))


def test_memory_that_is_not_there_cannot_be_taken(infra_cgroup: Make) -> None:
    small, open_end = infra_cgroup("small", memory_max="32 MiB"), infra_cgroup("open")
    with pytest.raises(BadInput, match=r"small uses .* of 32 MiB: nothing can be taken that leaves 30 MiB"):
        memory_pressure(small, leave="30 MiB").__enter__()
    with pytest.raises(StartFailed, match="small has no 64 MiB to be taken"):
        memory_pressure(small, hold="64 MiB").__enter__()
    with pytest.raises(BadInput, match="open has no limit on memory"):
        memory_pressure(open_end, leave="1 MiB").__enter__()
    with pytest.raises(BadInput, match="and not both"):
        memory_pressure(small).__enter__()


def test_a_hosts_processes_can_be_frozen_and_killed(lab: Lab) -> None:
    host = lab.host("web")
    group = lab.cgroup("web", host)
    child = host.spawn(workload.spin(60))
    child.wait_for("spinning", within_s=20)
    with frozen(host):
        before = group.usage().cpu_s or 0.0
        with pytest.raises(CommandFailed, match="still running"):
            child.wait(0.1)
        assert (group.usage().cpu_s or 0.0) - before < 0.005
    kill(host)
    assert child.wait().returncode == -signal.SIGKILL


def test_a_host_in_no_group_cannot(lab: Lab) -> None:
    with pytest.raises(BadInput, match=r"web is in no control group of ours; .* lab.cgroup\('name', web\)"):
        kill(lab.host("web"))


CLOCKS = [sys.executable, "-c", "import time; print(time.time(), time.monotonic())"]


def clocks(node: object) -> tuple[float, float]:
    """How far the wall clock and the monotonic clock of a node are ahead, in seconds."""
    wall, monotonic = node.run(CLOCKS).stdout.split()  # type: ignore[attr-defined]
    return float(wall) - time.time(), float(monotonic) - time.monotonic()


@pytest.mark.parametrize("options", [{}, {"isolate": ["pid", "mount"]}, {"clock_offset": "3 h"}], ids=str)
def test_a_monotonic_clock_is_ahead_while_the_fault_lasts(lab: Lab, options: dict[str, object]) -> None:
    host = lab.host(**options)  # type: ignore[arg-type]
    before = clocks(host)[1]
    with clock_moved(host, "2 h"):
        wall, ahead = clocks(host)
        assert (abs(wall) < 60, abs(ahead - 7200) < 60) == (True, True)
        assert host.run(["sh", "-c", "exit 3"], check=False).returncode == 3
        child = host.spawn(["sleep", "1000"])
        child.stop()
        assert not child.running
    assert abs(clocks(host)[1] - before) < 60


@pytest.mark.infra_requires("faketime")
@pytest.mark.parametrize(("by", "expected"), [("2 h", 7200), ("-2 h", -7200), (-7200, -7200)])
def test_a_wall_clock_is_wrong_while_the_fault_lasts(lab: Lab, by: str | float, expected: int) -> None:
    host = lab.host()
    with clock_moved(host, by, clock="wall"):
        wall, monotonic = clocks(host)
        assert (abs(wall - expected) < 60, abs(monotonic) < 60) == (True, True)
    assert abs(clocks(host)[0]) < 60


def test_a_clock_that_cannot_be_moved(lab: Lab) -> None:
    host = lab.host("web")
    for call, words in (
        (lambda: clock_moved(host, "2 h", clock="sun"), r"no clock 'sun'; there are monotonic, wall"),
        (lambda: clock_moved(host, "10 ms"), r"by a second or more; got 10 ms"),
        (lambda: clock_moved(host, "-2 h"), r"not a number from 0 up"),
        (lambda: clock_moved(lab.bridge("sw1"), 2), r"the clock of 'sw1' cannot be moved: a host or router is wanted"),
    ):
        with pytest.raises(BadInput, match=words):
            lab.inject(call())
    assert host.prefix == ()
