"""`assert_gpu_clean`: a test has given back what it had of a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..core.report import Report, explain
from ..core.units import format_size, size_bytes
from ..gpu.device import Gpu
from ..gpu.health import leftovers

__all__ = ["GpuCleanReport", "assert_gpu_clean"]


@dataclass(frozen=True)
class GpuCleanReport(Report):
    """What is on a GPU that was not there before."""

    kind: ClassVar[str] = "gpu-clean"

    device: str
    leftover_bytes: int
    """How much memory may be left."""
    before_bytes: int
    after_bytes: int
    left: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is left."""
        return not self.left

    def explain(self) -> str:
        """The verdict, and what is left."""
        if self.ok:
            return explain(f"nothing is left on {self.device}", [])
        after = f"{format_size(self.after_bytes)} in use, before the test {format_size(self.before_bytes)}"
        rows = [
            ("measured", after),
            ("wanted", f"no new process, and at most {format_size(self.leftover_bytes)} more"),
            ("cause", "\n".join(self.left)),
            ("next", "free it in the test, and end the processes that it starts; a framework's context in this\n"
                     "process counts too: leftover= allows for it"),
        ]  # fmt: skip
        return explain(f"the test left something on {self.device}", rows)


def assert_gpu_clean(gpu: Gpu, *, leftover: int | str = "64 MiB") -> GpuCleanReport:
    """Check that nothing is left on a GPU: no process, no memory, no new memory error.

    What this process has allocated through `Gpu.compute` counts as left unless it has been released. The check only
    looks: the memory stays, and can be used. This process may stay on the GPU, within `leftover`.

    Args:
        gpu: one that the test holds.
        leftover: how much memory may be in use beyond what was in use before.

    Raises:
        CheckFailed: something is left; the text says what.
    """
    __tracebackhide__ = True
    allowed = size_bytes(leftover)
    after = gpu.settled_health()
    left = tuple(leftovers(gpu.before, after, allowed, gpu.mine))
    report = GpuCleanReport(gpu.device.name, allowed, gpu.before.used_bytes, after.used_bytes, left)
    report.demand()
    return report
