"""A worker that needs more memory than it may have: the kernel kills it, and the test says so."""

import signal
import sys

import pytest

from pytest_infra import CheckFailed, CommandFailed, assert_limited, assert_not_throttled, assert_oom_killed, workload

pytestmark = pytest.mark.infra_requires("cgroup-memory", "cgroup-cpu", "cgroup-pids")

# Reads its whole input before it answers: fine with small jobs, fatal with large ones.
WORKER = "import sys; print(len(bytearray(int(sys.argv[1]))))"


def work(host, size):
    return host.run([sys.executable, "-c", WORKER, str(size)], check=False)


def test_a_worker_that_outgrows_its_memory_is_killed(lab):
    host = lab.host("worker")
    group = lab.cgroup("worker", host, memory_max="64 MiB")
    assert work(host, 8 << 20).ok
    assert work(host, 200 << 20).returncode == -signal.SIGKILL
    report = assert_oom_killed(group)
    assert report.usage.oom_kills == 1


def test_a_worker_that_is_small_enough_is_not(lab):
    host = lab.host("worker")
    lab.cgroup("worker", host, memory_max="64 MiB")
    assert work(host, 8 << 20).ok
    with pytest.raises(CheckFailed, match="never used more than"):
        assert_oom_killed(host, within="50 ms")


def test_the_limits_of_a_host_act(lab):
    host = lab.host("worker")
    lab.cgroup("worker", host, cpu_max=0.1, memory_max="64 MiB", pids_max=20)
    assert_limited(host, cpu_max=0.1, memory_max="64 MiB", pids_max=20)


def test_work_that_needs_little_is_not_throttled(infra_cgroup):
    group = infra_cgroup("worker", cpu_max=0.5)
    group.run(["true"])
    assert_not_throttled(group)


def test_a_frozen_service_stands_still(infra_cgroup):
    group = infra_cgroup("service")
    service = group.spawn(workload.spin("60 s"))
    with group.frozen():
        before = group.usage().cpu_s
        with pytest.raises(CommandFailed, match="still running"):
            service.wait(0.1)
        assert group.usage().cpu_s - before < 0.005
    group.kill()
    assert not service.running
