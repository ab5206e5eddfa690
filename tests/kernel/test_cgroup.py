"""Control groups on this machine, whichever version has what: limits act, what is used is counted, nothing is left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_infra import workload
from pytest_infra.cgroup.group import Group
from pytest_infra.cgroup.layout import folders_of
from pytest_infra.cgroup.limits import IoMax
from pytest_infra.core.errors import BadInput, CommandFailed, StartFailed, Unavailable
from pytest_infra.core.wait import until
from pytest_infra.lab import Lab
from pytest_infra.session import Infra

MIB = 1 << 20
Make = Callable[..., Group]
MINE = "/sys/fs/cgroup"


def folders(group: Group) -> list[str]:
    return sorted(set(group.folders.values()))


def in_group(group: Group, pid: int | str) -> bool:
    """Whether a process is in the group in every hierarchy that the group is in."""
    found = folders_of(int(pid))
    return all(found[name] == folder for name, folder in group.folders.items() if name in found)


# -- joining ---------------------------------------------------------------------------------------------------


def test_a_command_is_in_the_group_from_its_first_instruction_on(infra_cgroup: Make) -> None:
    group = infra_cgroup("first")
    seen = group.run(["cat", "/proc/self/cgroup"]).stdout
    assert seen.count("-first") == len(folders(group))


def test_a_child_and_what_it_leaves_behind_are_in_the_group(infra_cgroup: Make) -> None:
    group = infra_cgroup()
    group.run(["sh", "-c", "setsid sleep 60 &"])
    (orphan,) = group.pids
    assert in_group(group, orphan)


def test_this_process_never_joins(infra_cgroup: Make) -> None:
    before = Path("/proc/self/cgroup").read_text()
    infra_cgroup().run(["true"])
    assert Path("/proc/self/cgroup").read_text() == before


def test_a_missing_program_is_said_so(infra_cgroup: Make) -> None:
    group = infra_cgroup()
    with pytest.raises(CommandFailed, match="no program 'no-such-program'"):
        group.run(["no-such-program"])
    assert not group.pids


def test_a_running_process_can_be_moved(infra: Infra, infra_cgroup: Make) -> None:
    group, other = infra_cgroup(), infra_cgroup()
    child = other.spawn(["sleep", "60"])
    group.add(child.pid)
    assert in_group(group, child.pid)
    assert not other.pids
    assert group.joined_late == [child.pid]


def test_moving_a_process_that_is_not_there(infra_cgroup: Make) -> None:
    with pytest.raises(StartFailed, match=r"could not join: there is none"):
        infra_cgroup().add(2**22 - 1)


@pytest.mark.parametrize(
    ("pid", "words"),
    [(os.getpid(), "is the test's own"), (0, "0 is no process id"), ("1", "'1' is no process id")],
    ids=["own", "zero", "text"],
)
def test_what_must_not_be_moved(infra_cgroup: Make, pid: object, words: str) -> None:
    group = infra_cgroup()
    with pytest.raises(BadInput, match=words):
        group.add(pid)  # type: ignore[arg-type]
    assert not group.pids


def test_a_process_that_was_moved_goes_back_at_the_end(infra: Infra) -> None:
    """It is somebody else's: the group ends, and it does not."""
    with subprocess.Popen(["sleep", "60"]) as foreign:
        try:
            before = folders_of(foreign.pid)
            with infra.cgroup("guest") as group:
                group.add(foreign.pid)
                assert folders_of(foreign.pid) != before
                group.freeze()
            assert foreign.poll() is None
            assert folders_of(foreign.pid) == before
        finally:
            foreign.kill()


@pytest.mark.parametrize("isolate", [(), ("pid", "mount", "uts"), ("time",), ("user",)], ids="+".join)
def test_a_hosts_commands_join_the_group_that_adopted_it(lab: Lab, isolate: tuple[str, ...]) -> None:
    host = lab.host(isolate=isolate)
    group = lab.cgroup("web", host)
    child = host.spawn(["sleep", "60"])
    until(
        lambda: child.running and b"sleep" in Path(f"/proc/{child.pid}/cmdline").read_bytes(), within_s=5, what="exec"
    )
    assert in_group(group, child.pid)
    assert host.run(["cat", "/proc/self/cgroup"]).stdout.count("-web") == len(folders(group))


def test_a_host_has_one_group_at_a_time(lab: Lab) -> None:
    host = lab.host("a")
    lab.cgroup("first", host)
    with pytest.raises(BadInput, match="a has a control group already: first"):
        lab.cgroup("second", host)
    other = lab.host("other")
    with pytest.raises(BadInput, match="has a control group already: first"):
        lab.cgroup("third", other, host)
    assert other.control_group is None  # nothing half-made stays
    assert lab.cgroup("third", other) is other.control_group


def test_a_host_is_free_again_when_its_group_ends(infra: Infra, lab: Lab) -> None:
    host = lab.host("a")
    with infra.cgroup("short") as group:
        group.adopt(host)
        assert "-short" in host.run(["cat", "/proc/self/cgroup"]).stdout
    assert "-short" not in host.run(["cat", "/proc/self/cgroup"]).stdout


# -- the life of a group ----------------------------------------------------------------------------------------


@pytest.mark.stock_kernel
def test_the_end_of_a_group_ends_its_processes_and_removes_its_folders(infra: Infra) -> None:
    with infra.cgroup() as group:
        child = group.spawn(["sleep", "60"])
        made = folders(group)
        assert all(os.path.isdir(folder) for folder in made)
    assert child.returncode == -signal.SIGKILL
    assert not any(os.path.exists(folder) for folder in made)


def test_only_folders_of_our_name_are_made(infra: Infra) -> None:
    with infra.cgroup("mine") as group:
        names = [os.path.basename(folder) for folder in folders(group)]
        assert all(name.startswith(f"pytest-infra-{os.getpid()}-") and name.endswith("-mine") for name in names)


def test_a_limit_that_fails_leaves_nothing(infra: Infra) -> None:
    group = infra.cgroup("bad", cpuset="4095")
    with pytest.raises(StartFailed, match=r"group bad: cpuset cannot be set: writing '4095' to .*: "):
        group.start()
    assert not list(Path(MINE).rglob(f"*-{os.getpid()}-*-bad"))


def test_a_group_that_has_ended_says_so(infra: Infra) -> None:
    with infra.cgroup("gone") as group:
        pass
    for use in (group.usage, group.kill, lambda: group.run(["true"])):
        with pytest.raises(StartFailed, match="the group gone is not up"):
            use()


def test_a_group_costs_milliseconds(infra: Infra) -> None:
    times_s = []
    for _ in range(10):
        began = time.perf_counter()
        with infra.cgroup(memory_max="64 MiB", pids_max=10):
            pass
        times_s.append(time.perf_counter() - began)
    assert min(times_s) < 0.2  # about 2 ms; far more on a machine that is busy or emulated


# -- nesting ---------------------------------------------------------------------------------------------------


def test_what_a_nested_group_uses_counts_in_the_outer_one(infra_cgroup: Make) -> None:
    outer = infra_cgroup("outer")
    inner = outer.nest("inner")
    inner.run(workload.burn(0.1))
    spent = inner.usage().cpu_s
    assert spent is not None
    assert spent >= 0.1
    assert outer.usage().cpu_s == spent


@pytest.mark.stock_kernel
def test_the_limit_of_the_outer_group_holds_for_the_inner_one(infra_cgroup: Make) -> None:
    inner = infra_cgroup("outer", pids_max=5).nest("inner")
    facts = workload.result(inner.run(workload.fork(10)))
    assert facts == {"forked": 4, "errno": errno.EAGAIN}


@pytest.mark.stock_kernel
def test_processes_live_in_leaves_only(infra_cgroup: Make) -> None:
    outer = infra_cgroup("outer")
    outer.nest("inner").spawn(["sleep", "60"])
    with pytest.raises(BadInput, match=r"group outer has groups in it \(inner\)"):
        outer.run(["true"])
    outer.nest("second").run(["true"])
    busy = infra_cgroup("busy")
    busy.spawn(["sleep", "60"])
    with pytest.raises(BadInput, match="group busy has processes of its own"):
        busy.nest("inner")


@pytest.mark.parametrize("name", ["inner", "cgroup.procs"])
def test_a_name_that_is_taken_is_refused_and_its_owner_stays(infra_cgroup: Make, name: str) -> None:
    outer = infra_cgroup("outer")
    inner = outer.nest("inner")
    sleep = inner.spawn(["sleep", "60"])
    with pytest.raises(BadInput, match=f"group {name}: there is /sys/fs/cgroup/.*/{name} already"):
        outer.nest(name)
    assert sleep.running
    assert inner.pids
    assert all(os.path.isdir(folder) for folder in folders(inner))


# -- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.stock_kernel
def test_a_process_over_the_memory_limit_is_killed(infra_cgroup: Make) -> None:
    group = infra_cgroup(memory_max="32 MiB")
    assert group.run(workload.touch("64 MiB"), check=False).returncode == -signal.SIGKILL
    usage = group.usage()
    assert usage.oom_kills == 1
    assert usage.memory_max_bytes == 32 * MIB
    assert usage.memory_peak_bytes is None or usage.memory_peak_bytes <= 32 * MIB


@pytest.mark.stock_kernel
def test_a_process_below_the_memory_limit_is_not(infra_cgroup: Make) -> None:
    group = infra_cgroup(memory_max="32 MiB")
    group.run(workload.touch("16 MiB"))
    assert group.usage().oom_kills == 0


@pytest.mark.stock_kernel
def test_forks_above_the_limit_are_refused(infra_cgroup: Make) -> None:
    group = infra_cgroup(pids_max=10)
    assert workload.result(group.run(workload.fork(20))) == {"forked": 9, "errno": errno.EAGAIN}
    assert group.usage().pids_max_hits


def test_the_cpu_quota_throttles(infra_cgroup: Make) -> None:
    group = infra_cgroup(cpu_max=0.05, cpu_period="20 ms")
    group.run(workload.spin(0.6), timeout_s=300)  # its start is throttled too
    usage = group.usage()
    assert usage.throttled_periods
    assert usage.throttled_s


def test_without_a_quota_nothing_is_throttled(infra_cgroup: Make) -> None:
    group = infra_cgroup()
    group.run(workload.spin(0.2))
    assert not group.usage().throttled_periods


@pytest.mark.stock_kernel
def test_pinned_to_one_cpu(infra_cgroup: Make) -> None:
    (cpu, *_) = os.sched_getaffinity(0)
    group = infra_cgroup(cpuset=[cpu])
    code = "import os; print(*os.sched_getaffinity(0))"
    assert group.run([sys.executable, "-c", code]).stdout.split() == [str(cpu)]


@pytest.mark.stock_kernel
def test_only_the_devices_that_are_allowed_open(infra_cgroup: Make) -> None:
    group = infra_cgroup(devices=["/dev/null", "/dev/zero r"])
    opened = {}
    for path, access in (("/dev/null", "rw"), ("/dev/zero", "r"), ("/dev/zero", "w"), ("/dev/full", "r")):
        argv = ["sh", "-c", f"exec 3{'<' if access == 'r' else '>'} {path}"]
        opened[path, access] = group.run(argv, check=False).ok
    assert opened == {
        ("/dev/null", "rw"): True,
        ("/dev/zero", "r"): True,
        ("/dev/zero", "w"): False,
        ("/dev/full", "r"): False,
    }


def test_without_a_rule_every_device_opens(infra_cgroup: Make) -> None:
    assert workload.result(infra_cgroup().run(workload.open_device("/dev/full", "r"))) == {
        "errno": None,
        "denied": False,
    }


@pytest.mark.stock_kernel
def test_limits_can_be_changed(infra_cgroup: Make) -> None:
    group = infra_cgroup(pids_max=5, memory_max="64 MiB")
    group.limit(pids_max=8, memory_max="16 MiB")
    assert workload.result(group.run(workload.fork(10)))["forked"] == 7
    group.limit(memory_max="96 MiB")
    assert group.usage().memory_max_bytes == 96 * MIB


@pytest.mark.stock_kernel
def test_a_limit_that_this_version_lacks_is_unavailable(infra_cgroup: Make) -> None:
    group = infra_cgroup()
    if group.layout.where("memory") == 2:
        group.limit(memory_high="32 MiB")
        assert Path(group.folders["memory"], "memory.high").read_text().strip() == str(32 * MIB)
    else:
        with pytest.raises(Unavailable, match=r"cgroup-memory_high \(memory.high is in version 2 only"):
            group.limit(memory_high="32 MiB")


# -- kill, freeze -------------------------------------------------------------------------------------------------


@pytest.mark.stock_kernel
def test_kill_ends_all_at_once(infra_cgroup: Make) -> None:
    group = infra_cgroup()
    child = group.spawn(workload.fork(20, hold=True))
    child.wait_for("forked", within_s=60)
    assert len(group.pids) == 21
    group.kill()
    assert not group.pids
    assert child.wait().returncode == -signal.SIGKILL


def test_a_frozen_group_uses_no_cpu_time_and_goes_on_after(infra_cgroup: Make) -> None:
    group = infra_cgroup()
    child = group.spawn(workload.spin(60))
    until(lambda: (group.usage().cpu_s or 0) > 0.05, within_s=20, what="some work")
    with group.frozen():
        stopped_at = group.usage().cpu_s or 0.0
        with pytest.raises(CommandFailed, match="still running"):
            child.wait(0.2)
        assert (group.usage().cpu_s or 0.0) - stopped_at < 0.005
    until(lambda: (group.usage().cpu_s or 0) > stopped_at + 0.02, within_s=20, what="more work")


@pytest.mark.stock_kernel
def test_a_frozen_group_can_be_killed(infra_cgroup: Make) -> None:
    group = infra_cgroup()
    child = group.spawn(["sleep", "60"])
    group.freeze()
    group.kill()
    assert child.wait().returncode == -signal.SIGKILL


def test_the_version_1_freezer_does_the_same(infra_cgroup: Make) -> None:
    group = infra_cgroup()
    if "freezer" not in group.layout.v1:
        raise Unavailable("cgroup-freezer-v1", "the freezer is not in version 1 here", "boot a kernel with version 1")
    base = group.folders.pop("")
    child = group.spawn(workload.spin(60))
    child.wait_for("spinning")
    with group.frozen():
        assert Path(group.folders["freezer"], "freezer.state").read_text() == "FROZEN\n"
        group.kill()
    assert child.wait().returncode == -signal.SIGKILL
    group.folders[""] = base


def test_a_lab_with_frozen_processes_can_end(infra: Infra) -> None:
    with infra.cgroup() as group:
        with infra.lab() as lab:
            host = lab.host()
            group.adopt(host)
            child = host.spawn(workload.spin(60))
            child.wait_for("spinning", within_s=20)
            group.freeze()
        assert not group.pids


# -- counting ------------------------------------------------------------------------------------------------------


def test_direct_reads_and_writes_are_counted_to_the_byte(infra_cgroup: Make, disk_file: str) -> None:
    group = infra_cgroup()
    group.run(workload.write(disk_file, "4 MiB"))
    wrote = group.usage()
    assert wrote.write_bytes == 4 * MIB
    group.run(workload.read(disk_file, "4 MiB"))
    assert ((group.usage() - wrote).read_bytes or 0) - 4 * MIB in range(64 << 10)


def test_the_io_limit_holds(infra_cgroup: Make, disk_file: str) -> None:
    device = disk_file if disk_file.startswith("/dev") else os.path.dirname(disk_file)
    group = infra_cgroup(io_max={device: IoMax(write="8 MiB/s")})
    facts = workload.result(group.run(workload.write(disk_file, "8 MiB")))
    assert facts["wall_s"] > 0.85


@pytest.mark.stock_kernel
def test_memory_is_counted_to_the_page(infra_cgroup: Make) -> None:
    group = infra_cgroup()
    child = group.spawn(workload.touch("32 MiB", hold=True))
    child.wait_for("touched", within_s=20)
    facts = workload.result(child)
    assert abs((group.usage().anon_bytes or 0) - facts["touched_bytes"] - facts["base_bytes"]) < 256 << 10


def test_pressure_is_there_where_version_2_is(infra_cgroup: Make) -> None:
    group = infra_cgroup(cpu_max=0.1, cpu_period="20 ms")
    if not group.layout.v2 or not os.path.exists("/proc/pressure"):
        raise Unavailable("pressure", "the kernel has no pressure stall information", "boot with psi=1")
    group.run(workload.spin(0.3, processes=2), timeout_s=300)
    assert group.usage().pressure["cpu"].some_s > 0.05
