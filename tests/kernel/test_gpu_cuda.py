"""The code for NVIDIA's GPUs, under the real nvidia-ml-py and cuda-bindings, with stand-ins of the two libraries below.

What no stand-in can show, a GPU does: tests/device.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.infra_requires("gcc")
HERE = Path(__file__).parent
UUID = "GPU-01020304-0506-0708-090a-0b0c0d0e0f10"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    pytest.importorskip("pynvml")
    pytest.importorskip("cuda.bindings")
    folder = tmp_path_factory.mktemp("libraries")
    for name, library in (("nvml", "libnvidia-ml.so.1"), ("cuda", "libcuda.so.1")):
        source = HERE / "standins" / f"{name}.c"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / library, source, "-ldl", "-lm"], check=True)
    return folder


@pytest.fixture
def python(libraries):
    """Runs a program where the stand-ins are the machine's libraries."""

    def run(program: str, **env: object) -> subprocess.CompletedProcess[str]:
        surroundings = {**os.environ, "LD_LIBRARY_PATH": str(libraries), **{key: str(env[key]) for key in env}}
        surroundings.pop("CUDA_VISIBLE_DEVICES", None) if "CUDA_VISIBLE_DEVICES" not in env else None
        command = [sys.executable, "-W", "error", "-c", program]
        return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=100, check=False)

    return run


FIND = """
from pytest_infra.gpu.device import find
print(*(f"{device.uuid} {device.memory_bytes >> 30} {device.compute}" for device in find("cuda")), sep="\\n")
"""


def test_a_gpu_is_found(python):
    assert python(FIND).stdout == f"{UUID} 8 (9, 0)\n"


def test_the_instances_of_a_partitioned_gpu_are_the_devices(python):
    found = python(FIND, FAKE_MIG=1).stdout.splitlines()
    assert [line.split()[0][:4] for line in found] == ["MIG-", "MIG-"]
    assert python(FIND, FAKE_MIG=1, CUDA_VISIBLE_DEVICES=found[1].split()[0]).stdout.splitlines() == found[1:]


def test_a_gpu_that_is_hidden_is_not_used(python):
    assert python(FIND, CUDA_VISIBLE_DEVICES="").stdout == "\n"


HOLD = """
import os
from pytest_infra import Infra, Unavailable, assert_gpu_clean
with Infra() as infra:
    try:
        with infra.gpus(backend="cuda") as held:
            print(os.environ["CUDA_VISIBLE_DEVICES"], held.gpus[0].env["CUDA_VISIBLE_DEVICES"])
            {body}
    except Unavailable as error:
        print(error)
    print(os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


def test_the_environment_shows_what_is_held_and_is_put_back(python):
    assert python(HOLD.format(body="")).stdout.split() == [UUID, UUID, "None"]


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"FAKE_ECC": 2}, "not fit: 2 uncorrected memory errors since the driver was loaded"),
        ({"FAKE_TEMPERATURE": 101}, "not fit: 101 °C, more than 95"),
        ({"FAKE_LOST": 1}, "not fit: its temperature cannot be read: GPU is lost"),
        ({"FAKE_PID": 1}, "not fit: it is used by process 1 ("),
        ({"FAKE_COUNT": 0}, "1 device by cuda asked for, and there is: none"),
        ({"FAKE_INIT": 9}, "gpu (NVML says: Driver Not Loaded"),
    ],
    ids=str,
)
def test_a_gpu_that_is_not_fit_is_not_given(python, env, words):
    assert words in python(HOLD.format(body=""), **env).stdout


def test_what_is_left_is_named(python):
    body = "os.environ.update(FAKE_USED=str(1 << 30), FAKE_PID='1'); assert_gpu_clean(held.gpus[0])"
    done = python(HOLD.format(body=body))
    assert re.search(r"CheckFailed: the test left something on Stand-in 1000", done.stderr)
    assert "process 1 (" in done.stderr
    assert "1,023 MiB of its memory in use" in done.stderr or "1023 MiB of its memory in use" in done.stderr


def test_the_test_process_itself_may_stay_within_leftover(python):
    body = "os.environ.update(FAKE_USED=str(500 << 20), FAKE_PID=str(os.getpid())); assert_gpu_clean(held.gpus[0]{})"
    assert python(HOLD.format(body=body.format(', leftover="1 GiB"'))).stderr == ""
    done = python(HOLD.format(body=body.format("")))
    assert "499 MiB of its memory in use" in done.stderr
    assert "process " not in done.stderr.partition("cause")[2].partition("next")[0]


def test_clocks_that_are_held_back_make_a_transfer_inconclusive(python):
    body = "from pytest_infra import assert_transfer; assert_transfer(held.gpus[0], size=4096, sizes=[64])"
    done = python(HOLD.format(body=body), FAKE_REASONS=0x40 | 0x80)
    assert "the GPU's clocks were held back: HW thermal slowdown, HW power brake" in done.stderr


COMPUTE = """
from pytest_infra import InfraError
from pytest_infra.gpu.cuda import CudaCompute
from pytest_infra.gpu.nvml import find_cuda

def use(compute):
    count = 1000
    queue = compute.queue()
    host, back = compute.host(4 * count, pinned=True), compute.host(4 * count)
    x, y = compute.allocate(4 * count), compute.allocate(4 * count)
    host.view.cast("f")[0], host.view.cast("f")[count - 1] = 3.0, 5.0
    compute.copy(x, host, queue)
    compute.copy(y, x, queue)
    compute.saxpy(2.0, x, y, count, queue)
    compute.copy(back, y, queue)
    compute.finish(queue)
    numbers = back.view.cast("f")
    took_s = compute.seconds(lambda: compute.burn(y, count, 10, queue), queue)
    compute.release(x)
    return numbers[0], numbers[count - 1], took_s, compute.limits

try:
    with CudaCompute(find_cuda()[0]) as compute:
        print(use(compute))
        compute.allocate("5 GiB")
except InfraError as error:
    print(error)
"""


def test_copies_and_kernels_call_the_driver_as_it_wants(python):
    done = python(COMPUTE)
    first, error = done.stdout.splitlines()
    assert first.startswith("(9.0, 15.0, 0.00025, Limits(threads_per_block=1024, block=(1024, 1024, 64)")
    assert "warp=32" in first
    assert error == "cuMemAlloc on Stand-in 1000: CUDA_ERROR_OUT_OF_MEMORY: out of memory"
    assert re.fullmatch(r"calls \d+ live 0\n", done.stderr)


def test_each_call_fails_in_turn_and_nothing_is_left(python):
    calls = int(python(COMPUTE).stderr.split()[1])
    assert calls >= 10
    for number in range(1, calls):
        done = python(COMPUTE, FAKE_FAIL=number)
        assert "CUDA_ERROR_OUT_OF_MEMORY: out of memory" in done.stdout, number
        assert re.fullmatch(r"calls \d+ live 0\n", done.stderr), number


WAIT = """
import os
from pytest_infra import Infra
from pytest_infra.gpu import hold
from pytest_infra.gpu.nvml import find_cuda
with Infra() as infra, infra.gpus(backend="cuda"):
    os.environ["FAKE_PID"] = "1"  # its test computes
    try:
        infra.gpus(backend="cuda", timeout=0.2).start()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_gpu_that_another_test_uses_is_waited_for(python):
    said = python(WAIT).stdout
    assert said.startswith(("WaitTimeout", "StartFailed"))
    assert "held by process" in said
