"""What a failed check of accounting or limits says: the check passes, its twin fails, and this is the text.

The texts are in __snapshots__; ``pytest --snapshot-update`` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from pytest_infra import (
    CheckFailed,
    Inconclusive,
    assert_accounted,
    assert_limited,
    assert_not_throttled,
    assert_oom_killed,
    assert_shares,
    measure_usage,
    workload,
)
from pytest_infra.cgroup.group import Group
from pytest_infra.cgroup.limits import IoMax
from pytest_infra.core.errors import BadInput, InfraError
from pytest_infra.lab import Lab

Make = Callable[..., Group]
QUICK = {"duration": "600 ms", "period": "20 ms"}


def normal(text: str) -> str:
    """The text without what differs from run to run and from machine to machine."""
    text = re.sub(r"^ *(pressure:|i/o:|processes:|\d+:\d+: ).*\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"^  evidence   pressure: .*\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r" \([+-][\d.]+%\)", " (<error>)", text)
    text = re.sub(r"\d[\d.]* (us|ms|s)\b", "<time>", text)
    text = re.sub(r"\d[\d.]* (B|KiB|MiB|GiB)\b", "<size>", text)
    text = re.sub(r"process \d+", "process <pid>", text)
    text = re.sub(r"\d+ of \d+ periods", "<n> of <n> periods", text)
    text = re.sub(r"\d+\.\d+( CPU| of a CPU| :|%|$)", r"<n>\1", text, flags=re.MULTILINE)
    return re.sub(r"(, )?\d+ times? at the memory limit", "", text)


def text_of(call: Callable[..., Any], *arguments: Any, error: type[BaseException] = CheckFailed, **options: Any) -> str:
    with pytest.raises(error) as failure:
        call(*arguments, **options)
    return normal(str(failure.value))


# -- accounting ------------------------------------------------------------------------------------------------


def test_cpu_time(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    group = infra_cgroup("worker")
    facts = workload.result(group.run(workload.burn(0.2)))
    assert_accounted(group, cpu_s=facts["cpu_s"])
    assert text_of(assert_accounted, group, cpu_s=0.1) == snapshot


def test_cpu_time_that_a_quota_held_back(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    group = infra_cgroup("worker", cpu_max=0.2, cpu_period="20 ms")
    group.run(workload.spin(0.2))
    assert text_of(assert_accounted, group, cpu_s=30) == snapshot


def test_memory(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    group = infra_cgroup("worker")
    child = group.spawn(workload.touch("32 MiB", hold=True))
    child.wait_for("touched", within_s=20)
    facts = workload.result(child)
    assert_accounted(group, anon_bytes=facts["touched_bytes"] + facts["base_bytes"])
    assert text_of(assert_accounted, group, anon_bytes="128 MiB") == snapshot
    assert text_of(assert_accounted, group, anon_bytes="16 MiB") == snapshot(name="more than claimed")


def test_peak_memory(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    group = infra_cgroup("worker")
    facts = workload.result(group.run(workload.touch("64 MiB")))
    assert_accounted(group, memory_peak_bytes=facts["touched_bytes"] + facts["base_bytes"])
    assert text_of(assert_accounted, group, memory_peak_bytes="32 MiB") == snapshot


def test_bytes_written(infra_cgroup: Make, snapshot: SnapshotAssertion, disk_file: str) -> None:
    group = infra_cgroup("worker")
    before = measure_usage(group)
    group.run(workload.write(disk_file, "4 MiB"))
    assert_accounted(group, write_bytes="4 MiB", since=before)
    group.run(workload.read(disk_file, "4 MiB"))
    assert_accounted(group, read_bytes="4 MiB", write_bytes="4 MiB")
    assert "bytes written <size> (<error>)" in text_of(assert_accounted, group, write_bytes="8 MiB")
    assert text_of(assert_accounted, group, read_bytes="8 MiB") == snapshot


def test_buffered_writes(infra_cgroup: Make, snapshot: SnapshotAssertion, disk_file: str) -> None:
    group = infra_cgroup("worker")
    group.run(workload.write(disk_file, "4 MiB", how="sync"))
    if group.layout.where("io") == 2:
        assert_accounted(group, write_bytes="4 MiB", buffered=True)
    else:
        refused = text_of(assert_accounted, group, write_bytes="4 MiB", buffered=True, error=Inconclusive)
        assert refused == snapshot


def test_processes(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    group = infra_cgroup("worker")
    group.run(workload.fork(7))
    assert_accounted(group, pids_peak=8)
    assert text_of(assert_accounted, group, pids_peak=9) == snapshot


def test_memory_that_was_charged_before_joining(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    elsewhere, group = infra_cgroup("elsewhere"), infra_cgroup("worker")
    child = elsewhere.spawn(workload.touch("8 MiB", hold=True))
    child.wait_for("touched", within_s=20)
    group.add(child.pid)
    assert (group.usage().anon_bytes or 0) < 8 << 20
    assert text_of(assert_accounted, group, anon_bytes="8 MiB", error=Inconclusive) == snapshot


def test_a_node_in_no_group(lab: Lab, snapshot: SnapshotAssertion) -> None:
    assert text_of(assert_accounted, lab.host("web"), cpu_s=1, error=BadInput) == snapshot


def test_a_node_is_accounted_by_its_group(lab: Lab, snapshot: SnapshotAssertion) -> None:
    web = lab.host("web")
    lab.cgroup("limits", web)
    facts = workload.result(web.run(workload.burn(0.2)))
    assert_accounted(web, cpu_s=facts["cpu_s"])
    assert text_of(assert_accounted, web, cpu_s=1) == snapshot


def test_any_process_can_be_measured(infra_cgroup: Make) -> None:
    group = infra_cgroup()
    child = group.spawn(workload.touch("8 MiB", hold=True))
    child.wait_for("touched", within_s=20)
    assert measure_usage(child.pid).anon_bytes == measure_usage(group).anon_bytes


# -- limits ----------------------------------------------------------------------------------------------------

LIMITS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("cpu", {"cpu_max": 0.05, "cpu_period": "20 ms"}, {"cpu_max": 0.05, **QUICK}),
    ("memory", {"memory_max": "32 MiB"}, {"memory_max": "32 MiB"}),
    ("pids", {"pids_max": 10}, {"pids_max": 10}),
    ("devices", {"devices": ["/dev/null"]}, {"denied": ["/dev/full"]}),
]


@pytest.mark.parametrize(("limits", "claims"), [case[1:] for case in LIMITS], ids=[case[0] for case in LIMITS])
def test_a_limit(
    infra_cgroup: Make, limits: dict[str, Any], claims: dict[str, Any], snapshot: SnapshotAssertion
) -> None:
    assert_limited(infra_cgroup("worker", **limits), **claims)
    assert text_of(assert_limited, infra_cgroup("unlimited"), **claims) == snapshot


HIGHER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("cpu", {"cpu_max": 0.8, "cpu_period": "20 ms"}, {"cpu_max": 0.05, **QUICK}),
    ("memory", {"memory_max": "40 MiB"}, {"memory_max": "32 MiB"}),
    ("pids", {"pids_max": 14}, {"pids_max": 10}),
]


@pytest.mark.parametrize(("limits", "claims"), [case[1:] for case in HIGHER], ids=[case[0] for case in HIGHER])
def test_a_limit_that_is_higher_than_claimed(
    infra_cgroup: Make, limits: dict[str, Any], claims: dict[str, Any], snapshot: SnapshotAssertion
) -> None:
    assert text_of(assert_limited, infra_cgroup("worker", **limits), **claims) == snapshot


def test_a_limit_on_writing(infra_cgroup: Make, disk_folder: str, snapshot: SnapshotAssertion) -> None:
    claims = {"write_max": "16 MiB/s", "folder": disk_folder, "duration": "1 s"}
    limited = infra_cgroup("worker", io_max={disk_folder: IoMax(write="16 MiB/s")})
    assert_limited(limited, **claims)
    text = text_of(assert_limited, infra_cgroup("unlimited"), **claims)
    assert text.replace(disk_folder, "<folder>") == snapshot


def test_a_quota_over_too_few_periods(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    group = infra_cgroup("worker", cpu_max=0.5)
    assert text_of(assert_limited, group, cpu_max=0.5, duration="500 ms", error=BadInput) == snapshot
    options = {"write_max": "1 MiB/s", "folder": "/", "duration": "500 ms"}
    assert text_of(assert_limited, group, **options, error=BadInput) == snapshot(name="a rate")


def test_a_quota_that_was_never_met(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    assert text_of(assert_limited, infra_cgroup("worker"), cpu_max=64, **QUICK, error=InfraError) == snapshot


# -- events and shares -----------------------------------------------------------------------------------------


def test_a_kill_for_want_of_memory(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    group = infra_cgroup("worker", memory_max="32 MiB")
    group.run(workload.touch("8 MiB"))
    assert text_of(assert_oom_killed, group, within=0.05) == snapshot
    group.run(workload.touch("64 MiB"), check=False)
    assert assert_oom_killed(group).usage.oom_kills == 1
    assert text_of(assert_oom_killed, group, since=measure_usage(group), within=0.05) == snapshot(name="not again")


def test_no_limit_on_memory(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    group = infra_cgroup("worker")
    group.run(workload.touch("8 MiB"))
    assert text_of(assert_oom_killed, group, within=0.05) == snapshot


def test_throttling(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    group = infra_cgroup("worker", cpu_max=0.2, cpu_period="20 ms")
    group.run(["true"])
    before = measure_usage(group)
    assert_not_throttled(group, since=before)
    group.run(workload.spin(0.2))
    assert text_of(assert_not_throttled, group, since=before) == snapshot


def test_shares(infra_cgroup: Make, snapshot: SnapshotAssertion) -> None:
    outer = infra_cgroup("outer")
    loud, quiet = outer.nest("loud", cpu_weight=300), outer.nest("quiet", cpu_weight=100)
    assert_shares({loud: 3, quiet: 1})
    text = text_of(assert_shares, {loud: 1, quiet: 1}, duration="500 ms")
    assert re.sub(r"CPU \d+", "CPU <n>", text) == snapshot
