"""What containers are charged, and what their limits do, against what a command did by its own count."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_infra import CheckFailed, assert_accounted, assert_not_throttled, assert_oom_killed, measure_usage

pytestmark = pytest.mark.infra_requires("docker", "cgroup-cpu", "cgroup-memory", "cgroup-pids")

BURN = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"


@pytest.fixture(scope="module")
def busybox(infra_image: Any) -> Any:
    return infra_image.scratch(["busybox"])


def test_cpu_time(infra_container: Any, busybox: Any) -> None:
    node = infra_container(busybox, ["sleep", "1000"])
    before = measure_usage(node)
    spent = node.run(["sh", "-c", f"time -p sh -c '{BURN}'"], timeout_s=60).stderr
    burnt_s = sum(float(figure) for figure in re.findall(r"(?:user|sys) +([\d.]+)", spent))
    assert burnt_s > 0.1
    assert_accounted(node, cpu_s=burnt_s, rel=0.5, since=before)  # what starts the command is paid by it too
    with pytest.raises(CheckFailed, match="CPU time"):
        assert_accounted(node, cpu_s=3 * burnt_s, rel=0.5, since=before)


def test_a_quota_holds_it_back(infra_container: Any, busybox: Any) -> None:
    free, held = (infra_container(busybox, ["sleep", "1000"], **options) for options in ({}, {"cpus": 0.2}))
    for node in (free, held):
        node.run(["sh", "-c", BURN], timeout_s=60)
    assert_not_throttled(free)
    with pytest.raises(CheckFailed, match="throttled"):
        assert_not_throttled(held)
    assert (measure_usage(held).throttled_s or 0) > 0


def test_memory_is_the_containers_own(infra_container: Any, busybox: Any) -> None:
    one, other = (infra_container(busybox, ["sleep", "1000"], memory=size) for size in ("64 MiB", "32 MiB"))
    one.run(["sh", "-c", "head -c 20000000 /dev/zero | tail >/dev/null"])
    usages = [measure_usage(node) for node in (one, other)]
    assert [usage.memory_max_bytes for usage in usages] == [64 << 20, 32 << 20]
    assert (usages[0].memory_peak_bytes or 0) > 20_000_000 > (usages[1].memory_peak_bytes or 0)


def test_a_container_that_ended_for_want_of_memory(infra_container: Any, busybox: Any) -> None:
    """Its group has gone with it."""
    killed = infra_container(busybox, ["sort", "/dev/zero"], memory="16 MiB")
    killed.wait()
    assert assert_oom_killed(killed).ok
    ended = infra_container(busybox, ["false"])
    ended.wait()
    with pytest.raises(CheckFailed, match=r"no process was killed for want of memory(?s:.*)exited with status 1"):
        assert_oom_killed(ended)
