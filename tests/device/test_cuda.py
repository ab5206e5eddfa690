"""The GPU harness on real hardware."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

from pytest_infra import CheckFailed, assert_gpu_clean, assert_overlap, assert_transfer, measure_transfer

pytestmark = pytest.mark.infra_requires("gpu")


@pytest.fixture
def gpu(infra_gpu):
    return infra_gpu(backend="cuda")


def test_the_two_kernels(gpu):
    compute, count = gpu.compute, 1 << 20
    queue, host = compute.queue(), compute.host(4 * count, pinned=True)
    x, y = compute.allocate(4 * count), compute.allocate(4 * count)
    host.view.cast("f")[:] = memoryview(struct.pack(f"{count}f", *range(count))).cast("f")
    for memory in (x, y):
        compute.copy(memory, host, queue)
    compute.saxpy(3.0, x, y, count, queue)
    compute.copy(host, y, queue)
    compute.finish(queue)
    assert list(host.view.cast("f")) == [4.0 * number for number in range(count)]
    compute.burn(y, count, 3, queue)
    compute.copy(host, y, queue)
    compute.finish(queue)
    assert host.view.cast("f")[8] == ((32 * 0.5 + 1) * 0.5 + 1) * 0.5 + 1
    compute.release(x, y, host)


def test_the_limits_are_those_of_a_gpu(gpu):
    limits = gpu.compute.limits
    assert limits.warp == 32
    assert limits.threads_per_block >= 1024
    assert limits.grid[0] == 2**31 - 1


@pytest.mark.parametrize("direction", ["h2d", "d2h", "d2d"])
def test_transfers(gpu, direction):
    report = assert_transfer(gpu, direction, size="256 MiB", at_least=0.5)
    print(report.explain())


def test_pinned_memory_is_faster_than_pageable(gpu):
    pinned = measure_transfer(gpu, "h2d", size="64 MiB", sizes=["1 MiB"])
    pageable = measure_transfer(gpu, "h2d", size="64 MiB", sizes=["1 MiB"], pinned=False)
    assert pinned.low_bytes_per_s > pageable.high_bytes_per_s


@pytest.mark.parametrize("direction", ["h2d", "d2h"])
def test_a_copy_overlaps_with_a_kernel(gpu, direction):
    print(assert_overlap(gpu, direction, size="64 MiB", at_least=0.5).explain())


def test_a_process_that_stays_is_named(gpu):
    program = "from cuda.bindings import driver as d; d.cuInit(0); d.cuDevicePrimaryCtxRetain(0); print(); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, env=None, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            with pytest.raises(CheckFailed, match=f"process {child.pid} "):
                assert_gpu_clean(gpu)
        finally:
            child.communicate("\n")
