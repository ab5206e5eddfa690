"""`assert_transfer`: copies to, from and within a GPU, judged by the best that its link gave in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any, ClassVar

from ..core.errors import BadInput, InfraError
from ..core.report import explain
from ..core.units import format_duration, format_size, size_bytes
from ..gpu.compute import Compute, DeviceMemory, HostMemory
from ..gpu.device import Gpu
from .verdict import Measured, Verdict

__all__ = ["DIRECTIONS", "TransferReport", "assert_transfer", "fit", "measure_transfer"]

DIRECTIONS = ("h2d", "d2h", "d2d")
"""Host to device, device to host, within the device."""

_SWEEP = tuple(4096 * 4**power for power in range(9))  # 4 KiB to 256 MiB
_ROUNDS = 7  # the median of what they are drawn from lies between the least and the greatest of 7 with 98.4 %
_MOST_STREAMS = 16


@dataclass(frozen=True)
class TransferReport(Measured):
    """How fast a GPU was copied to or from."""

    kind: ClassVar[str] = "gpu-transfer"

    device: str
    on_cpu: bool
    """Whether the device is a CPU: then a copy is one within the machine's memory."""
    direction: str
    pinned: bool
    streams: int
    size_bytes: int
    rate_bytes_per_s: float
    """The median."""
    low_bytes_per_s: float
    high_bytes_per_s: float
    """Between these the median lies with a confidence of 98 %."""
    sizes_bytes: tuple[int, ...]
    rates_bytes_per_s: tuple[float, ...]
    """At each of the sizes."""
    latency_s: float
    """What a copy of nothing would take, by the line through all sizes."""
    bandwidth_bytes_per_s: float
    """What an endless copy would reach, by the same line."""
    best_bytes_per_s: float
    """The greatest rate of this direction in this run, at any size, pinned or pageable."""
    best_of: str
    at_least: float | None = None
    slowed_by: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """By the interval; a GPU whose clocks were held back cannot be judged."""
        if self.at_least is None:
            return "pass"
        if self.slowed_by:
            return "inconclusive"
        wanted = self.at_least * self.best_bytes_per_s
        return (
            "pass" if self.low_bytes_per_s >= wanted else "fail" if self.high_bytes_per_s < wanted else "inconclusive"
        )

    def explain(self) -> str:
        """The verdict, the figures, and what held the copy back."""
        memory = "" if self.direction == "d2d" else f" of {'pinned' if self.pinned else 'pageable'} memory"
        what = f"{self.direction} copies of {format_size(self.size_bytes)}{memory}"
        share = self.rate_bytes_per_s / self.best_bytes_per_s
        on = f"{self.device}{' (a CPU)' if self.on_cpu else ''}"
        if self.verdict == "inconclusive":
            verdict = f"cannot tell how fast {what} are on {on}"
        else:
            verdict = f"{what} reach {share:.0%} of the best on {on}"
        spread = f"{_rate(self.low_bytes_per_s)} to {_rate(self.high_bytes_per_s)}"
        line = f"latency {format_duration(self.latency_s)}, bandwidth {_rate(self.bandwidth_bytes_per_s)}"
        best = f"{_rate(self.best_bytes_per_s)}, which {self.best_of} gave in this run"
        rows = [
            ("measured", f"{_rate(self.rate_bytes_per_s)}, with 98 % confidence {spread}\n{line}"),
            ("wanted", "" if self.at_least is None else f"at least {self.at_least * 100:.3g}% of {best}"),
            ("cause", "" if self.ok else self._cause()),
        ]
        return explain(verdict, rows)

    def _cause(self) -> str:
        if self.slowed_by:
            return f"the GPU's clocks were held back: {', '.join(self.slowed_by)}"
        alone_s = self.size_bytes / self.rate_bytes_per_s
        if self.verdict == "inconclusive":
            return "the copies differ too much from each other: the machine is busy"
        if self.latency_s > alone_s / 2:
            return f"most of the {format_duration(alone_s)} of one copy is its latency: copy more at a time"
        if not self.pinned and "pinned" in self.best_of:
            return "pageable memory: the driver copies it to pinned memory first; pin it (pinned=True)"
        return "something else uses the link or the memory, or the copy is split into too many streams"


def _rate(rate: float) -> str:
    return f"{format_size(round(rate))}/s"


def fit(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Latency in seconds and bandwidth in bytes per second: the line ``t = latency + size / bandwidth``.

    Each point counts by the inverse square of its time, so that small copies say as much as large ones.
    """
    weights = [1 / (time * time) for time in seconds]
    total = sum(weights)
    size = sum(w * x for w, x in zip(weights, sizes, strict=True)) / total
    time = sum(w * y for w, y in zip(weights, seconds, strict=True)) / total
    spread = sum(w * (x - size) ** 2 for w, x in zip(weights, sizes, strict=True))
    slope = sum(w * (x - size) * (y - time) for w, x, y in zip(weights, sizes, seconds, strict=True)) / spread
    slope = max(slope, 1e-18)
    return max(0.0, time - slope * size), 1 / slope


class _Way:
    """One kind of copy, ready to be repeated."""

    def __init__(self, compute: Compute, direction: str, size: int, pinned: bool, queues: Sequence[Any]) -> None:
        self._compute, self.size, self.pinned, self._queues = compute, size, pinned, queues
        parts = [size // len(queues) + (number < size % len(queues)) for number in range(len(queues))]
        self._pairs = [self._pair(direction, part) for part in parts if part]

    def _pair(self, direction: str, part: int) -> tuple[DeviceMemory | HostMemory, DeviceMemory | HostMemory]:
        on_device = self._compute.allocate(part)
        other = self._compute.allocate(part) if direction == "d2d" else self._compute.host(part, pinned=self.pinned)
        return (other, on_device) if direction == "d2h" else (on_device, other)

    def _copy(self) -> None:
        for (target, source), queue in zip(self._pairs, self._queues, strict=False):
            self._compute.copy(target, source, queue)

    def seconds(self) -> float:
        return self._compute.seconds(self._copy, *self._queues)

    def verify(self) -> None:
        """Copy a pattern this way, and look at what arrived.

        Raises:
            InfraError: something else arrived.
        """
        queue = self._queues[0]
        for target, source in self._pairs:
            pattern = bytes(islice(cycle(range(1, 252)), source.nbytes))
            there, back = self._compute.host(source.nbytes), self._compute.host(source.nbytes)
            there.view[:] = pattern
            if isinstance(source, HostMemory):
                source.view[:] = pattern
            else:
                self._compute.copy(source, there, queue)
            self._compute.copy(target, source, queue)
            self._compute.finish(queue)
            if isinstance(target, HostMemory):
                back.view[:] = target.view
            else:
                self._compute.copy(back, target, queue)
                self._compute.finish(queue)
            if back.view != pattern:
                raise InfraError(f"a copy of {source.nbytes} bytes on {self._compute.device.name} changed its content")
            self._compute.release(there, back)

    def release(self) -> None:
        for pair in self._pairs:
            self._compute.release(*pair)


def measure_transfer(
    gpu: Gpu,
    direction: str = "h2d",
    *,
    size: int | str = "64 MiB",
    pinned: bool = True,
    streams: int = 1,
    sizes: Sequence[int | str] = _SWEEP,
) -> TransferReport:
    """Measure copies, each size with pinned and with pageable memory in turn, and verify what arrives.

    Args:
        gpu: one that the test holds.
        direction: ``h2d``, ``d2h`` or ``d2d``.
        size: of one copy that is reported.
        pinned: whether its memory on the host is pinned; within the device that makes no difference.
        streams: how many parts it is split into, each in a stream of its own; 1 to 16.
        sizes: the sizes from which latency and bandwidth are worked out; 4 KiB to 256 MiB by default.

    Raises:
        BadInput: an argument that cannot be.
        InfraError: the device refuses, or what arrived is not what was sent.
    """
    wanted = size_bytes(size)
    sweep = sorted({wanted, *map(size_bytes, sizes)})
    _check(direction, streams, sweep)
    took = _take(gpu.compute, direction, sweep, streams)
    rates = {key: sorted(key[0] / time for time in times) for key, times in took.items()}
    medians = {key: statistics.median(values) for key, values in rates.items()}
    chosen = pinned if direction != "d2d" else True
    mine = rates[wanted, chosen]
    best = max(medians, key=lambda key: medians[key])
    line = fit(sweep, [statistics.median(took[size, chosen]) for size in sweep])
    health = gpu.health()
    return TransferReport(
        device=gpu.device.name,
        on_cpu=gpu.device.kind == "cpu",
        direction=direction,
        pinned=chosen,
        streams=streams,
        size_bytes=wanted,
        rate_bytes_per_s=medians[wanted, chosen],
        low_bytes_per_s=mine[0],
        high_bytes_per_s=mine[-1],
        sizes_bytes=tuple(sweep),
        rates_bytes_per_s=tuple(medians[size, chosen] for size in sweep),
        latency_s=line[0],
        bandwidth_bytes_per_s=line[1],
        best_bytes_per_s=medians[best],
        best_of=f"{format_size(best[0])} of {'pinned' if best[1] else 'pageable'} memory",
        slowed_by=health.slowed_by,
    )


def _check(direction: str, streams: int, sweep: Sequence[int]) -> None:
    if direction not in DIRECTIONS:
        raise BadInput(f"no direction {direction!r}; there are {', '.join(DIRECTIONS)}")
    if not isinstance(streams, int) or not 1 <= streams <= _MOST_STREAMS:
        raise BadInput(f"streams is a whole number from 1 to {_MOST_STREAMS}, not {streams!r}")
    if len(sweep) < 2 or sweep[0] < 1:
        raise BadInput(f"at least two sizes of 1 byte or more are needed, not {sweep}")


def _take(compute: Compute, direction: str, sweep: Sequence[int], streams: int) -> dict[tuple[int, bool], list[float]]:
    """Seconds of each copy by size and kind of memory; all of them in turn, so that a busy moment hits all alike."""
    kinds = (True,) if direction == "d2d" else (True, False)
    queues = [compute.queue() for _ in range(streams)]
    took: dict[tuple[int, bool], list[float]] = {}
    for size in sweep:
        ways = [_Way(compute, direction, size, pinned, queues) for pinned in kinds]
        for way in ways:
            way.verify()
            way.seconds()  # the first one after the allocation pays for its pages
        for _ in range(_ROUNDS):
            for way in ways:
                took.setdefault((size, way.pinned), []).append(way.seconds())
        for way in ways:
            way.release()
    return took


def assert_transfer(gpu: Gpu, direction: str = "h2d", *, at_least: float = 0.5, **options: Any) -> TransferReport:
    """Check that a copy reaches a share of the best rate that the same link gave in the same run.

    A figure of its own would hold for one machine only; the share holds wherever the test runs.

    Args:
        gpu: one that the test holds.
        direction: ``h2d``, ``d2h`` or ``d2d``.
        at_least: the share, above 0 and up to 1.
        options: as of `measure_transfer`.

    Raises:
        BadInput: an argument that cannot be.
        CheckFailed: it is slower; the text says what holds it back where that can be told.
        Inconclusive: the measurements differ too much, or the GPU's clocks were held back.
    """
    __tracebackhide__ = True
    if not 0 < at_least <= 1:
        raise BadInput(f"at_least is a share above 0 and up to 1, not {at_least!r}")
    report = replace(measure_transfer(gpu, direction, **options), at_least=at_least)
    report.demand()
    return report
