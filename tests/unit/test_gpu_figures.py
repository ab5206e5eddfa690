"""What is worked out from measurements of GPUs and pipelines, and how it is judged."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from pytest_infra import BadInput, CheckFailed, Inconclusive, Stage, assert_pipeline, measure_pipeline
from pytest_infra.checks.gpu_overlap import OverlapReport
from pytest_infra.checks.gpu_transfer import TransferReport, fit
from pytest_infra.checks.pipeline import PipelineReport

TRANSFER = TransferReport(
    device="X", on_cpu=False, direction="h2d", pinned=True, streams=1, size_bytes=1 << 20, rate_bytes_per_s=8e9,
    low_bytes_per_s=7e9, high_bytes_per_s=9e9, sizes_bytes=(4096, 1 << 20), rates_bytes_per_s=(1e9, 8e9),
    latency_s=1e-6, bandwidth_bytes_per_s=9e9, best_bytes_per_s=10e9, best_of="64 MiB of pinned memory",
)  # fmt: skip


def test_latency_and_bandwidth_are_those_of_the_line() -> None:
    sizes = [4096 * 4**power for power in range(8)]
    latency_s, bandwidth = fit(sizes, [10e-6 + size / 5e9 for size in sizes])
    assert latency_s == pytest.approx(10e-6)
    assert bandwidth == pytest.approx(5e9)


def test_a_latency_is_never_negative() -> None:
    assert fit([1, 1000], [1e-6, 2e-3])[0] == 0


@pytest.mark.parametrize(
    ("at_least", "slowed_by", "verdict"),
    [
        (None, (), "pass"),
        (0.7, (), "pass"),
        (0.8, (), "inconclusive"),
        (0.95, (), "fail"),
        (0.7, ("HW thermal slowdown",), "inconclusive"),
    ],
)
def test_a_transfer_is_judged_by_its_interval(at_least: float, slowed_by: tuple[str, ...], verdict: str) -> None:
    assert replace(TRANSFER, at_least=at_least, slowed_by=slowed_by).verdict == verdict


def overlap(on_cpu: bool, at_least: float, *overlaps: float) -> OverlapReport:
    return OverlapReport("X", on_cpu, "h2d", 1 << 20, 1e-3, 1e-3, 1.1e-3, overlaps, at_least)


def test_an_overlap_is_judged_by_its_rounds_and_never_on_a_cpu() -> None:
    assert overlap(False, 0.5, 0.8, 0.9).verdict == "pass"
    assert overlap(False, 0.5, 0.1, 0.2).verdict == "fail"
    assert overlap(False, 0.5, 0.4, 0.6).verdict == "inconclusive"
    assert overlap(True, 0.5, 0.9, 0.9).verdict == "inconclusive"
    with pytest.raises(Inconclusive, match="no copy engine"):
        overlap(True, 0.5, 0.9).demand()


def pause(seconds: float) -> Stage:
    """A stage that takes that long and needs no core."""
    return Stage(f"{seconds * 1e3:g} ms", lambda item: threading.Event().wait(seconds) or item)


def test_the_bottleneck_is_named() -> None:
    report = measure_pipeline([pause(0.001), pause(0.004), pause(0.002)], items=8)
    assert report.bottleneck == "4 ms"
    assert report.serial_per_s < report.together_per_s
    assert report.to_dict()["alone_per_s"].keys() == {"1 ms", "4 ms", "2 ms"}  # type: ignore[attr-defined]


def test_stages_that_need_the_same_thing_do_not_overlap() -> None:
    lock = threading.Lock()

    def held(item: int) -> int:
        with lock:
            threading.Event().wait(0.004)
        return item

    with pytest.raises(CheckFailed, match="the stages wait for the same lock, core or buffer"):
        assert_pipeline([Stage("one", held), Stage("two", held), Stage("three", held)], at_least=0.9, items=10)


def test_items_pass_in_order_and_through_all_stages() -> None:
    seen: list[int] = []
    measure_pipeline([Stage("double", lambda item: 2 * item), Stage("note", seen.append)], items=5)
    assert seen[-5:] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_the_error_of_a_stage_is_raised_and_nothing_hangs(broken: int) -> None:
    calls: list[int] = []

    def fail_late(item: int) -> int:
        calls.append(item)
        if len(calls) > 25:
            raise OSError("the wire is cut")
        return item

    stages = [Stage(f"s{number}", fail_late if number == broken else (lambda item: item)) for number in range(3)]
    with pytest.raises(OSError, match="the wire is cut"):
        measure_pipeline(stages, items=20)


def test_pipelines_that_cannot_be() -> None:
    with pytest.raises(BadInput, match="two stages or more"):
        measure_pipeline([pause(0)])
    with pytest.raises(BadInput, match="different names"):
        measure_pipeline([pause(0), pause(0)])
    with pytest.raises(BadInput, match="items"):
        measure_pipeline([pause(0), pause(1)], items=1)
    with pytest.raises(BadInput, match="at_least"):
        assert_pipeline([pause(0), pause(1)], at_least=1.5)


def test_an_uneven_pipeline_cannot_be_told() -> None:
    report = PipelineReport(5, {"a": 10.0, "b": 20.0}, 7.0, 9.0, (0.6, 0.9, 0.95), at_least=0.8)
    assert report.verdict == "inconclusive"
    assert "60%, 90%, 95%" in report.explain()
