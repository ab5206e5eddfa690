"""Accounting's figures: tolerances, differences, and the claims that are refused; no group is needed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest

from pytest_infra.cgroup.group import Group
from pytest_infra.cgroup.usage import Usage
from pytest_infra.cgroup.values import DeviceIo, Pressure
from pytest_infra.checks import workload
from pytest_infra.checks.accounting import Claim, assert_accounted
from pytest_infra.checks.limits import assert_limited
from pytest_infra.checks.shares import Share, SharesReport, assert_shares
from pytest_infra.checks.tolerance import TOLERANCES, Tolerance
from pytest_infra.checks.usage import measure_usage
from pytest_infra.core.errors import BadInput
from pytest_infra.core.lease import Lease
from pytest_infra.core.process import run
from pytest_infra.core.report import to_json


@pytest.mark.parametrize(
    ("measured", "ok"), [(1.0, True), (1.0179, True), (0.9821, True), (1.0181, False), (0.9819, False)]
)
def test_a_claim_holds_up_to_its_tolerance(measured: float, ok: bool) -> None:
    assert Claim("cpu_s", 1.0, measured, TOLERANCES["cpu_s"]).ok is ok


def test_a_count_is_exact() -> None:
    assert Claim("pids_peak", 5, 5, TOLERANCES["pids_peak"]).ok
    assert not Claim("pids_peak", 5, 6, TOLERANCES["pids_peak"]).ok


def test_a_difference_subtracts_counters_and_keeps_states() -> None:
    earlier = Usage("g", cpu_s=1.0, memory_bytes=10, oom_kills=1, devices={"8:0": DeviceIo(1, 2, 3, 4)})
    later = Usage(
        "g",
        cpu_s=1.5,
        memory_bytes=7,
        oom_kills=3,
        devices={"8:0": DeviceIo(11, 2, 3, 4), "8:1": DeviceIo(write_bytes=5)},
        pressure={"cpu": Pressure(0.5, 0.0, 1.0)},
        versions={"io": 2},
    )
    between = later - earlier
    assert (between.cpu_s, between.memory_bytes, between.oom_kills) == (0.5, 7, 2)
    assert between.devices == {"8:0": DeviceIo(read_bytes=10), "8:1": DeviceIo(write_bytes=5)}
    assert (between.read_bytes, between.write_bytes) == (10, 5)
    assert between.periods is None


def test_a_usage_is_json() -> None:
    usage = Usage("g", cpu_s=1.0, devices={"8:0": DeviceIo(1, 2, 3, 4)})
    assert json.loads(json.dumps(usage.to_dict()))["devices"]["8:0"]["write_bytes"] == 2
    assert to_json(Tolerance(0.01, 1)) == {"rel": 0.01, "plus": 1, "least_rel": 0.0}


def test_shares_judge_each_part() -> None:
    def report(a: float, b: float) -> SharesReport:
        return SharesReport(0, 1.0, 0.1, (Share("a", 3, 0.75, a, a), Share("b", 1, 0.25, b, b)))

    assert report(0.75, 0.25).ok
    assert report(0.77, 0.23).ok
    assert not report(0.70, 0.30).ok
    assert "a : b do not share CPU 0 3 : 1: 2.33 : 1.00" in report(0.70, 0.30).explain()


PID = os.getpid()
GROUP = Group("a", lease=Lease())
TWO = {GROUP: 1, Group("b", lease=Lease()): 1}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: assert_accounted(PID), r"nothing is claimed; give at least one of cpu_s, memory_peak_bytes"),
        (
            lambda: assert_accounted(PID, cpu_s=1, rel=0.001),
            r"rel=0.001 cannot be kept for cpu_s: .* differs by up to 0.5%",
        ),
        (lambda: assert_accounted(PID, cpu_s=1, rel=1), r"rel=1 cannot be kept"),
        (
            lambda: assert_accounted(PID, pids_peak=1, since=Usage("x")),
            r"since does not go with pids_peak: a peak is that of the group's whole life",
        ),
        (lambda: measure_usage(PID, since=Usage("other")), r"since is a reading of other, not of process \d+"),
        (lambda: measure_usage(-1), r"-1 is no process id"),
        (lambda: measure_usage(4_194_303), r"no process 4194303: it has ended, or never was"),
        (lambda: measure_usage("a"), r"'a' is no group, node or process id"),  # type: ignore[arg-type]
        (lambda: assert_limited(PID, cpu_max=1), r"cannot run the workload that tries the limit"),
        (lambda: assert_shares({}), r"between at least two groups"),
        (lambda: assert_shares({1: 1, 2: 0}), r"each with a weight above 0"),
        (lambda: assert_shares({GROUP: "x", 2: 1}), r"weight 'x' is not allowed; give a number"),  # type: ignore[dict-item]
        (lambda: assert_shares({GROUP: 1, 2: 1}), r"2 cannot run the workload that wants the CPU"),
        (lambda: assert_shares(TWO, rel=math.nan), r"rel nan is not allowed; give a number"),
        (lambda: assert_shares(TWO, rel=50), r"rel 50 is not allowed; give a number above 0 and below 1"),
        (lambda: assert_shares(TWO, rel=1), r"rel 1 is not allowed"),
        (lambda: assert_shares(TWO, cpu=99_999), r"cpu 99999 is not allowed; give a whole number from 0 to"),
        (lambda: workload.burn(0), r"cpu_s 0 is not allowed"),
        (lambda: workload.burn(1, processes=0), r"processes 0 is not allowed"),
        (lambda: workload.touch(0), r"give at least 1 byte"),
        (lambda: workload.write("/x", 100), r"a direct write is a multiple of 4096 bytes"),
        (lambda: workload.write("/x", 4096, how="fast"), r"how 'fast' is not allowed"),  # type: ignore[arg-type]
        (lambda: workload.open_device("/x", "x"), r"access 'x' is not allowed"),  # type: ignore[arg-type]
        (lambda: workload.result(run(["true"])), r"the output is not that of a workload"),
    ],
)
def test_what_is_refused(call: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call()


def facts_of(argv: list[str]) -> dict[str, Any]:
    return workload.result(run(argv))


def test_burn_uses_what_it_says() -> None:
    assert 0.1 <= facts_of(workload.burn(0.1))["cpu_s"] < 0.13
    assert 0.2 <= facts_of(workload.burn(0.1, processes=2))["cpu_s"] < 0.25


def test_touch_says_what_it_had_and_what_it_took() -> None:
    facts = facts_of(workload.touch(5_000))
    assert facts["touched_bytes"] == 2 * os.sysconf("SC_PAGE_SIZE")
    assert facts["base_bytes"] > 0


def test_fork_says_how_many() -> None:
    assert facts_of(workload.fork(7)) == {"forked": 7, "errno": None}


def test_write_writes_what_it_says(tmp_path: Any) -> None:
    path = tmp_path / "file"
    assert facts_of(workload.write(path, 2_100_000, how="sync"))["written_bytes"] == 2_100_000
    assert path.stat().st_size == 2_100_000


def test_a_device_that_is_not_there() -> None:
    assert facts_of(workload.open_device("/dev/nowhere", "r")) == {"errno": 2, "denied": False}


def test_the_program_needs_nothing_of_the_project() -> None:
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", workload.touch(1)[3], "touch", "1", "end"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "pytest_infra" not in loaded
