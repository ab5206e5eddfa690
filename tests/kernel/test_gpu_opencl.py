"""GPUs through OpenCL, here on a CPU: copies, kernels, holds, and what a test leaves behind."""

from __future__ import annotations

import os
import struct

import pytest

from pytest_infra import (
    BadInput,
    CheckFailed,
    Inconclusive,
    InfraError,
    StartFailed,
    Unavailable,
    WaitTimeout,
    assert_gpu_clean,
    assert_overlap,
    assert_transfer,
    measure_overlap,
    measure_transfer,
)

pytestmark = pytest.mark.infra_requires("opencl")
SIZES = ("4 KiB", "64 KiB", "1 MiB")


@pytest.fixture
def gpu(infra_gpu):
    return infra_gpu(backend="opencl", shared=True)


def test_it_says_what_it_is(gpu):
    assert gpu.device.kind in ("cpu", "gpu")
    limits = gpu.compute.limits
    assert limits.threads_per_block >= 1
    assert len(limits.block) == 3
    assert limits.warp >= 1
    assert limits.multiprocessors >= 1
    assert gpu.env == {}
    assert gpu.describe()["backend"] == "opencl"


@pytest.mark.parametrize("pinned", [True, False])
def test_a_kernel_computes_what_it_should(gpu, pinned):
    compute, count = gpu.compute, 10_000
    queue = compute.queue()
    host = compute.host(4 * count, pinned=pinned)
    x, y = compute.allocate(4 * count), compute.allocate(4 * count)
    host.view.cast("f")[:] = memoryview(struct.pack(f"{count}f", *range(count))).cast("f")
    compute.copy(x, host, queue)
    compute.copy(y, x, queue)
    compute.saxpy(3.0, x, y, count, queue)
    back = compute.host(4 * count, pinned=pinned)
    compute.copy(back, y, queue)
    compute.finish(queue)
    assert list(back.view.cast("f")) == [4.0 * number for number in range(count)]
    compute.burn(y, count, 3, queue)
    compute.copy(back, y, queue)
    compute.finish(queue)
    assert back.view.cast("f")[8] == ((32 * 0.5 + 1) * 0.5 + 1) * 0.5 + 1
    compute.release(x, y, host, back)


@pytest.mark.parametrize("direction", ["h2d", "d2h", "d2d"])
def test_transfers_are_measured_and_verified(gpu, direction):
    report = measure_transfer(gpu, direction, size="256 KiB", sizes=SIZES, streams=3)
    assert report.sizes_bytes == (4096, 65536, 262144, 1048576)
    assert all(rate > 0 for rate in report.rates_bytes_per_s)
    assert report.low_bytes_per_s <= report.rate_bytes_per_s <= report.high_bytes_per_s
    assert report.best_bytes_per_s >= report.rate_bytes_per_s
    assert report.on_cpu is (gpu.device.kind == "cpu")
    assert gpu.compute.held_bytes == 0


def test_a_copy_that_is_nearly_all_latency_fails(gpu):
    with pytest.raises(CheckFailed, match=r"most of the .* of one copy is its latency: copy more at a time"):
        assert_transfer(gpu, "h2d", size=64, sizes=SIZES, at_least=0.5)


def test_the_best_copy_of_the_run_passes_its_own_measure(gpu):
    rates = measure_transfer(gpu, "d2d", size="1 MiB", sizes=SIZES)
    assert assert_transfer(gpu, "d2d", size="1 MiB", sizes=SIZES, at_least=0.01).verdict == "pass"
    assert rates.best_bytes_per_s > 0


def test_an_overlap_is_measured(gpu):
    report = measure_overlap(gpu, "d2h", size="4 MiB")
    assert 0 <= report.overlap <= 1
    assert report.copy_s > 0
    assert report.together_s > 0
    if gpu.device.kind == "cpu":
        with pytest.raises(Inconclusive, match="no copy engine"):
            assert_overlap(gpu, size="4 MiB")


def test_bad_arguments(gpu, infra):
    for call in (
        lambda: measure_transfer(gpu, "up"),
        lambda: measure_transfer(gpu, streams=0),
        lambda: measure_transfer(gpu, size="1 KiB", sizes=["1 KiB"]),
        lambda: assert_transfer(gpu, at_least=0),
        lambda: assert_transfer(gpu, at_least=1.1),
        lambda: measure_overlap(gpu, "d2d"),
        lambda: assert_overlap(gpu, at_least=2),
        lambda: gpu.compute.allocate(0),
        lambda: gpu.compute.allocate("64 MB/s"),
        lambda: infra.gpus(0),
        lambda: infra.gpus(backend="vulkan"),
    ):
        with pytest.raises(BadInput):
            call()
    host = gpu.compute.host(8)
    with pytest.raises(BadInput, match="no work of the device"):
        gpu.compute.copy(host, host, gpu.compute.queue())
    with pytest.raises(InfraError, match="that the test may have are allocated already"):
        gpu.compute.allocate(gpu.device.memory_bytes // 2)  # more than its share
    with pytest.raises(InfraError, match=r"this machine has no .* of memory for a buffer"):
        gpu.compute.host(2**62)


WRONG = {
    "more numbers than memory": lambda c, x, y, h, q: c.saxpy(2.0, x, y, 1025, q),
    "far more": lambda c, x, y, h, q: c.burn(y, 10_000_000, 1, q),
    "no numbers": lambda c, x, y, h, q: c.saxpy(2.0, x, y, -1, q),
    "count in words": lambda c, x, y, h, q: c.saxpy(2.0, x, y, "x", q),
    "rounds below 0": lambda c, x, y, h, q: c.burn(y, 10, -1, q),
    "memory of the host": lambda c, x, y, h, q: c.saxpy(2.0, h, y, 10, q),
    "no queue": lambda c, x, y, h, q: c.saxpy(2.0, x, y, 10, None),
    "bytes": lambda c, x, y, h, q: c.copy(x, b"abc", q),
    "a kernel after the release": lambda c, x, y, h, q: (c.release(x), c.saxpy(2.0, x, y, 10, q)),
    "a copy after the release": lambda c, x, y, h, q: (c.release(x), c.copy(x, y, q)),
    "a copy to released memory of the host": lambda c, x, y, h, q: (c.release(h), c.copy(h, y, q)),
    "released twice": lambda c, x, y, h, q: (c.release(x), c.release(x)),
    "a queue that has ended": lambda c, x, y, h, q: (c.end_queues(q), c.finish(q)),
    "pinned in words": lambda c, x, y, h, q: c.host(8, pinned="no"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_would_end_the_process_is_refused(gpu, name):
    compute = gpu.compute
    x, y, host = compute.allocate(4096), compute.allocate(4096), compute.host(4096, pinned=True)
    with pytest.raises(BadInput):
        WRONG[name](compute, x, y, host, compute.queue())


def test_the_view_of_released_memory_cannot_be_used(gpu):
    host = gpu.compute.host(4096, pinned=True)
    gpu.compute.release(host)
    with pytest.raises(ValueError, match="released"):
        host.view[0] = 1


def test_a_request_that_nobody_can_meet_lists_what_there_is(infra):
    with pytest.raises(Unavailable, match=r"2000 devices named 'voodoo' .* asked for, and there is: .*opencl-"):
        infra.gpus(2000, name="voodoo", backend="opencl").start()


def test_who_holds_it_is_named(infra, gpu):
    alone = infra.gpus(backend="opencl", timeout=0.2)
    with pytest.raises((WaitTimeout, StartFailed), match=rf"held by process {os.getpid()} "):
        alone.start()
    with infra.gpus(backend="opencl", shared=True) as others:  # there is room beside it
        assert others.gpus[0].uuid == gpu.uuid


def test_what_is_left_is_a_failure(infra):
    with infra.gpus(backend="opencl", shared=True) as held:
        gpu = held.gpus[0]
        assert_gpu_clean(gpu)
        memory, queue = gpu.compute.allocate("3 MiB"), gpu.compute.queue()
        for _ in range(2):  # the check only looks
            with pytest.raises(CheckFailed, match="3 MiB of its memory in use that were free before"):
                assert_gpu_clean(gpu, leftover="2 MiB")
        gpu.compute.burn(memory, 10, 1, queue)
        gpu.compute.finish(queue)
        assert assert_gpu_clean(gpu, leftover="3 MiB").ok


def test_the_fixture_fails_a_test_that_leaves_memory(pytester):
    pytester.makepyfile(
        """
        def test_clean(infra_gpu):
            compute = infra_gpu(backend="opencl", shared=True).compute
            compute.release(compute.allocate("128 MiB"))

        def test_leaves(infra_gpu):
            infra_gpu(backend="opencl", shared=True).compute.allocate("128 MiB")
        """
    )
    result = pytester.runpytest_subprocess("--infra", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["E  *the test left something on*", "E *128 MiB of its memory in use*"])


def test_a_lock_timeout_that_cannot_be(pytester):
    result = pytester.runpytest_subprocess("--infra", "--infra-lock-timeout=soon")
    result.stderr.fnmatch_lines(["ERROR: --infra-lock-timeout: *"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR
