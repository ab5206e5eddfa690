"""`assert_overlap`: a GPU copies while it computes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.report import explain
from ..core.units import format_duration, format_size, size_bytes
from ..gpu.compute import Compute
from ..gpu.device import Gpu
from .verdict import Measured, Verdict

__all__ = ["OverlapReport", "assert_overlap", "measure_overlap"]

_ROUNDS = 7
_NUMBERS = 1 << 18
_FIRST_ROUNDS, _MOST_ROUNDS = 64, 1 << 22


@dataclass(frozen=True)
class OverlapReport(Measured):
    """A copy and a kernel, each alone and both in streams of their own."""

    kind: ClassVar[str] = "gpu-overlap"

    device: str
    on_cpu: bool
    direction: str
    size_bytes: int
    copy_s: float
    kernel_s: float
    together_s: float
    overlaps: tuple[float, ...]
    """The part of the shorter one that was hidden behind the longer one, in each round: 0 none, 1 all of it."""
    at_least: float | None = None

    @property
    def overlap(self) -> float:
        """The median."""
        return statistics.median(self.overlaps)

    @property
    def verdict(self) -> Verdict:
        """By the least and the greatest of the rounds; a CPU has no copy engine, and cannot be judged."""
        if self.at_least is None:
            return "pass"
        if self.on_cpu:
            return "inconclusive"
        low, high = min(self.overlaps), max(self.overlaps)
        return "pass" if low >= self.at_least else "fail" if high < self.at_least else "inconclusive"

    def explain(self) -> str:
        """The verdict and the figures."""
        on = f"{self.device}{' (a CPU)' if self.on_cpu else ''}"
        what = f"a {self.direction} copy of {format_size(self.size_bytes)} and a kernel on {on}"
        verdict = {
            "pass": f"{what} overlap by {self.overlap:.0%}",
            "fail": f"{what} overlap by {self.overlap:.0%} only",
            "inconclusive": f"cannot tell whether {what} overlap",
        }[self.verdict]
        times = ((self.copy_s, "copy alone"), (self.kernel_s, "kernel alone"), (self.together_s, "together"))
        cause = {
            "pass": "",
            "fail": "they are done one after the other: the memory is pageable, the streams are one and the same,\n"
            "or the kernel takes all of the memory's bandwidth",
            "inconclusive": "a CPU copies and computes with the same cores: no copy engine"
            if self.on_cpu
            else "the rounds differ too much from each other: the machine is busy",
        }[self.verdict]
        rows = [
            ("measured", ", ".join(f"{name} {format_duration(time)}" for time, name in times)),
            ("wanted", "" if self.at_least is None else f"at least {self.at_least:.0%} of the shorter one hidden"),
            ("cause", cause),
        ]
        return explain(verdict, rows)


def measure_overlap(
    gpu: Gpu, direction: str = "h2d", *, size: int | str = "64 MiB", pinned: bool = True
) -> OverlapReport:
    """Measure a copy and a kernel that takes about as long, each alone and both at once.

    Args:
        gpu: one that the test holds.
        direction: ``h2d`` or ``d2h``.
        size: of the copy.
        pinned: whether the host's memory is pinned; with pageable memory a copy waits for the driver.

    Raises:
        BadInput: an argument that cannot be.
    """
    if direction not in ("h2d", "d2h"):
        raise BadInput(f"a copy that can overlap is h2d or d2h, not {direction!r}")
    compute, nbytes = gpu.compute, size_bytes(size)
    on_device, on_host = compute.allocate(nbytes), compute.host(nbytes, pinned=pinned)
    numbers = compute.allocate(4 * _NUMBERS)
    copies, kernels = compute.queue(), compute.queue()

    target, source = (on_device, on_host) if direction == "h2d" else (on_host, on_device)

    def copy() -> None:
        compute.copy(target, source, copies)

    compute.seconds(copy, copies)
    copy_s = min(compute.seconds(copy, copies) for _ in range(3))
    rounds = _rounds(compute, numbers, kernels, copy_s)

    def kernel() -> None:
        compute.burn(numbers, _NUMBERS, rounds, kernels)

    def both() -> None:
        kernel()
        copy()

    works = ((copy, (copies,)), (kernel, (kernels,)), (both, (copies, kernels)))
    taken = [[compute.seconds(work, *queues) for work, queues in works] for _ in range(_ROUNDS)]
    compute.release(on_device, on_host, numbers)
    medians = [statistics.median(times) for times in zip(*taken, strict=True)]
    return OverlapReport(
        device=gpu.device.name,
        on_cpu=gpu.device.kind == "cpu",
        direction=direction,
        size_bytes=nbytes,
        copy_s=medians[0],
        kernel_s=medians[1],
        together_s=medians[2],
        overlaps=tuple(max(0.0, min(1.0, (c + k - both_s) / min(c, k))) for c, k, both_s in taken),
    )


def _rounds(compute: Compute, numbers: Any, queue: Any, wanted_s: float) -> int:
    """How many rounds of the kernel take about as long as the copy."""
    rounds = _FIRST_ROUNDS
    compute.seconds(partial(compute.burn, numbers, _NUMBERS, rounds, queue), queue)  # the first launch compiles
    while rounds < _MOST_ROUNDS:
        took_s = compute.seconds(partial(compute.burn, numbers, _NUMBERS, rounds, queue), queue)
        if took_s >= wanted_s / 2:
            return max(1, min(_MOST_ROUNDS, round(rounds * wanted_s / took_s)))
        rounds *= 2
    return _MOST_ROUNDS


def assert_overlap(gpu: Gpu, direction: str = "h2d", *, at_least: float = 0.5, **options: Any) -> OverlapReport:
    """Check that a GPU copies while it computes.

    Args:
        gpu: one that the test holds.
        direction: ``h2d`` or ``d2h``.
        at_least: the part of the shorter one that is hidden behind the other, above 0 and up to 1.
        options: as of `measure_overlap`.

    Raises:
        BadInput: an argument that cannot be.
        CheckFailed: less is hidden.
        Inconclusive: the rounds differ too much, or the device is a CPU.
    """
    __tracebackhide__ = True
    if not 0 < at_least <= 1:
        raise BadInput(f"at_least is a share above 0 and up to 1, not {at_least!r}")
    report = replace(measure_overlap(gpu, direction, **options), at_least=at_least)
    report.demand()
    return report
