"""NVIDIA's GPUs as its management library sees them (NVML, through the package nvidia-ml-py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from ..core.errors import InfraError, Unavailable
from .found import Found
from .health import GpuProcess, Health
from .requirement import NVML

__all__ = ["find_cuda", "nvml", "read_health"]

T = TypeVar("T")
_PCI_WORDS = {
    "HwThermalSlowdown": "HW thermal slowdown",
    "HwPowerBrakeSlowdown": "HW power brake",
    "HwSlowdown": "HW slowdown",
}
_TEMPERATURE_GPU = 0
_UNCORRECTED, _SINCE_LOADED = 1, 0


@contextmanager
def nvml() -> Iterator[Any]:
    """The library, ready for questions.

    Raises:
        Unavailable: it is not there, or finds no driver.
    """
    NVML.demand()
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise Unavailable("gpu", f"NVML says: {error}", "install NVIDIA's driver, and load it") from None
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def find_cuda() -> list[Found]:
    """The GPUs, and instead of one that is partitioned its MIG instances.

    Raises:
        Unavailable: the library or its driver is not there.
    """
    with nvml() as library:
        found = []
        for index in range(library.nvmlDeviceGetCount()):
            handle = library.nvmlDeviceGetHandleByIndex(index)
            parts = list(_instances(library, handle))
            found += [_describe(library, part, handle, index) for part in parts or [handle]]
        return found


def _instances(library: Any, handle: Any) -> Iterator[Any]:
    if not _supported(library, lambda: library.nvmlDeviceGetMigMode(handle)[0]):
        return
    for number in range(library.nvmlDeviceGetMaxMigDeviceCount(handle)):
        instance = _supported(library, partial(library.nvmlDeviceGetMigDeviceHandleByIndex, handle, number))
        if instance is not None:
            yield instance


def _describe(library: Any, handle: Any, whole: Any, index: int) -> Found:
    return Found(
        uuid=_text(library.nvmlDeviceGetUUID(handle)),
        name=_text(library.nvmlDeviceGetName(handle)),
        backend="cuda",
        kind="gpu",
        memory_bytes=int(library.nvmlDeviceGetMemoryInfo(handle).total),
        compute=tuple(library.nvmlDeviceGetCudaComputeCapability(whole)),
        index=index,
    )


def read_health(uuid: str) -> Health:
    """A GPU's health now.

    Raises:
        Unavailable: the library or its driver is not there.
        InfraError: there is no such GPU any more.
    """
    with nvml() as library:
        try:
            handle = library.nvmlDeviceGetHandleByUUID(uuid)
        except library.NVMLError as error:
            raise InfraError(f"the GPU {uuid} is gone: {error}") from None
        failures: list[str] = []

        def ask(what: str, question: Callable[[], T]) -> T | None:
            try:
                return _supported(library, question)
            except library.NVMLError as error:
                failures.append(f"its {what} cannot be read: {error}")
                return None

        memory = ask("memory", lambda: library.nvmlDeviceGetMemoryInfo(handle))
        running = ask("processes", lambda: library.nvmlDeviceGetComputeRunningProcesses(handle))
        temperature = ask("temperature", lambda: library.nvmlDeviceGetTemperature(handle, _TEMPERATURE_GPU))
        errors = ask("error counter", lambda: library.nvmlDeviceGetTotalEccErrors(handle, _UNCORRECTED, _SINCE_LOADED))
        pending = ask("retired pages", lambda: library.nvmlDeviceGetRetiredPagesPendingStatus(handle))
        reasons = ask("clocks", lambda: library.nvmlDeviceGetCurrentClocksEventReasons(handle))
        return Health(
            used_bytes=int(memory.used) if memory is not None else 0,
            processes=tuple(_process(process) for process in running or ()),
            temperature_c=None if temperature is None else float(temperature),
            ecc_uncorrected=errors,
            pages_pending=None if pending is None else bool(pending),
            slowed_by=tuple(
                text
                for name, text in _PCI_WORDS.items()
                if (reasons or 0) & int(getattr(library, f"nvmlClocksEventReason{name}", 0))
            ),
            failures=tuple(failures),
        )


def _supported(library: Any, question: Callable[[], T]) -> T | None:
    """The answer; None where the GPU knows no such thing, or has no such part."""
    try:
        return question()
    except (library.NVMLError_NotSupported, library.NVMLError_NotFound, library.NVMLError_FunctionNotFound):
        return None
    except library.NVMLError_InvalidArgument:  # NVML's word for a MIG instance that is asked what only a GPU knows
        return None


def _process(process: Any) -> GpuProcess:
    try:
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            command = file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        command = ""
    return GpuProcess(int(process.pid), command, process.usedGpuMemory)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
