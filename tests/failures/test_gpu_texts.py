"""What the checks of GPUs and pipelines say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks.gpu_clean import GpuCleanReport
from pytest_infra.checks.gpu_overlap import OverlapReport
from pytest_infra.checks.gpu_transfer import TransferReport
from pytest_infra.checks.pipeline import PipelineReport
from pytest_infra.core.report import Report

MIB = 1 << 20
TRANSFER = TransferReport(
    device="NVIDIA H100", on_cpu=False, direction="h2d", pinned=False, streams=1, size_bytes=64 * MIB,
    rate_bytes_per_s=8.1e9, low_bytes_per_s=7.9e9, high_bytes_per_s=8.4e9, sizes_bytes=(4096, 64 * MIB),
    rates_bytes_per_s=(4e8, 8.1e9), latency_s=9.2e-6, bandwidth_bytes_per_s=8.2e9, best_bytes_per_s=2.5e10,
    best_of="256 MiB of pinned memory", at_least=0.5,
)  # fmt: skip
OVERLAP = OverlapReport("NVIDIA H100", False, "h2d", 64 * MIB, 2.6e-3, 2.7e-3, 5.2e-3, (0.03, 0.04, 0.05), at_least=0.5)
PIPELINE = PipelineReport(
    50, {"compute": 900.0, "copy back": 2400.0, "send": 310.0}, 210.0, 222.0, (0.7, 0.72, 0.73), at_least=0.9
)

REPORTS: dict[str, Report] = {
    "pageable": TRANSFER,
    "latency": replace(TRANSFER, size_bytes=4096, rate_bytes_per_s=4e8, low_bytes_per_s=3.8e8, high_bytes_per_s=4.3e8),
    "slow for another reason": replace(TRANSFER, pinned=True),
    "busy machine": replace(TRANSFER, high_bytes_per_s=2.4e10),
    "hot gpu": replace(TRANSFER, slowed_by=("HW thermal slowdown",)),
    "cpu passes": replace(TRANSFER, device="some CPU", on_cpu=True, at_least=0.3),
    "no overlap": OVERLAP,
    "overlap on a cpu": replace(OVERLAP, device="some CPU", on_cpu=True),
    "uneven overlap": replace(OVERLAP, overlaps=(0.1, 0.4, 0.9)),
    "nothing overlaps": replace(PIPELINE, together_per_s=215.0),
    "stages disturb each other": replace(PIPELINE, together_per_s=260.0),
    "uneven pipeline": replace(PIPELINE, efficiencies=(0.6, 0.8, 0.95)),
    "pipeline passes": replace(PIPELINE, efficiencies=(0.95, 0.96, 0.97), together_per_s=300.0),
    "left behind": GpuCleanReport(
        "NVIDIA H100", 64 * MIB, 500 * MIB, 2000 * MIB,
        ("process 4711 (python train.py, 1.4 GiB)", "1500 MiB of its memory in use that were free before"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
def test_text(name: str, snapshot: SnapshotAssertion) -> None:
    assert REPORTS[name].explain() == snapshot
