"""Which device a test gets, whether it is fit, and what is left on it: decided from data."""

from __future__ import annotations

import pytest

from pytest_infra import BadInput, Unavailable
from pytest_infra.core.requirement import Absent, Present, PythonModule
from pytest_infra.gpu import opencl
from pytest_infra.gpu.found import Found, Wish, choose, visible
from pytest_infra.gpu.health import GpuProcess, Health, leftovers, problems
from pytest_infra.gpu.hold import SLICES, slices
from pytest_infra.gpu.requirement import OPENCL

GIB = 2**30
BIG = Found("GPU-aaaa", "NVIDIA H100 80GB HBM3", "cuda", "gpu", 80 * GIB, (9, 0), 0)
SMALL = Found("GPU-bbbb", "Tesla T4", "cuda", "gpu", 16 * GIB, (7, 5), 1)
PART = Found("MIG-cccc", "NVIDIA H100 MIG 1g.10gb", "cuda", "gpu", 10 * GIB, (9, 0), 2)
CPU = Found("opencl-PoCL-0", "some CPU", "opencl", "cpu", 20 * GIB)


def test_the_first_back_end_that_has_enough_is_taken() -> None:
    assert choose([BIG, SMALL, CPU], Wish()) == [BIG, SMALL]
    assert choose([BIG, SMALL, CPU], Wish(backend="opencl")) == [CPU]
    assert choose([CPU], Wish()) == [CPU]


@pytest.mark.parametrize(
    ("wish", "chosen"),
    [
        (Wish(memory_bytes=20 * GIB), [BIG]),
        (Wish(name="t4"), [SMALL]),
        (Wish(min_compute=(8, 0)), [BIG, PART]),
        (Wish(count=3), [BIG, SMALL, PART]),
    ],
)
def test_wishes_are_granted(wish: Wish, chosen: list[Found]) -> None:
    assert choose([BIG, SMALL, PART, CPU], wish) == chosen


def test_a_wish_that_nobody_can_grant_lists_what_there_is() -> None:
    with pytest.raises(Unavailable) as caught:
        choose([SMALL, CPU], Wish(count=2, memory_bytes=64 * GIB, name="H100"), ["Tesla V100, not fit: 3 errors"])
    assert str(caught.value) == (
        "gpu (2 devices with 64 GiB named 'H100' asked for, and there is: "
        "Tesla T4, 16 GiB, compute 7.5, cuda, GPU-bbbb; some CPU (a CPU), 20 GiB, opencl, opencl-PoCL-0; "
        "Tesla V100, not fit: 3 errors; "
        "pytest-infra doctor gpu opencl, or ask for less)"
    )


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"count": "2"}, {"backend": "metal"}, {"min_compute": 8}, {"min_compute": (8,)}],
)
def test_a_wish_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        Wish(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variable", "seen"),
    [
        (None, [BIG, SMALL, PART]),
        ("", []),
        ("1,0", [SMALL, BIG]),
        ("GPU-b", [SMALL]),
        ("MIG-cccc", [PART]),
        ("GPU", []),  # not one alone
        ("1,nonsense,0", [SMALL]),
        ("0,0", [BIG]),
        ("7", []),
    ],
)
def test_what_the_variable_lets_a_program_see(variable: str | None, seen: list[Found]) -> None:
    assert visible([BIG, SMALL, PART, CPU], variable) == [*seen, CPU]


def test_a_fit_gpu_has_no_problems() -> None:
    mine = GpuProcess(7, "pytest", GIB)
    assert problems(Health(processes=(mine,), temperature_c=40, ecc_uncorrected=0), frozenset({7})) == []
    assert problems(Health()) == []  # a driver that supports none of the questions


def test_each_problem_is_named() -> None:
    other = GpuProcess(8, "train.py", 2 * GIB)
    sick = Health(
        processes=(other,),
        temperature_c=99,
        ecc_uncorrected=3,
        pages_pending=True,
        failures=("its clocks cannot be read: lost",),
    )
    assert problems(sick) == [
        "its clocks cannot be read: lost",
        "3 uncorrected memory errors since the driver was loaded",
        "memory waits to be retired at the next reset of the GPU",
        "99 °C, more than 95",
        "it is used by process 8 (train.py, 2 GiB)",
    ]


def test_what_is_left() -> None:
    before = Health(used_bytes=GIB, processes=(GpuProcess(1, "old"),), ecc_uncorrected=1)
    assert leftovers(before, before, 0) == []
    after = Health(used_bytes=3 * GIB, processes=(GpuProcess(1, "old"), GpuProcess(2, "new", GIB)), ecc_uncorrected=3)
    assert leftovers(before, after, 2 * GIB) == ["process 2 (new, 1 GiB)", "2 new uncorrected memory errors"]
    assert leftovers(before, after, 2 * GIB - 1)[1] == "2 GiB of its memory in use that were free before"


def test_a_gpu_is_shared_by_its_memory() -> None:
    assert slices(BIG, 0, shared=False) == SLICES
    assert slices(BIG, 0, shared=True) == 1
    assert slices(BIG, 5 * GIB, shared=True) == 1
    assert slices(BIG, 5 * GIB + 1, shared=True) == 2
    assert slices(BIG, 80 * GIB, shared=True) == SLICES


def test_a_device_that_nothing_can_be_compiled_for_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PythonModule, "probe", lambda self: Present())
    monkeypatch.setattr(opencl, "_devices", lambda: [(CPU, "its handle")])
    monkeypatch.setattr(opencl, "_complaint", lambda device: "unknown target CPU 'generic'")
    found = OPENCL.probe()
    assert isinstance(found, Absent)
    assert found.why == "OpenCL cannot compile for some CPU: unknown target CPU 'generic'"
    assert found.remedy.endswith("pytest-infra doctor --install opencl, or: apt-get install pocl-opencl-icd")
    monkeypatch.setattr(opencl, "_complaint", lambda device: "")
    assert OPENCL.probe() == Present("some CPU (a CPU)")
