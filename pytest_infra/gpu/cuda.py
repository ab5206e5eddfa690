"""NVIDIA's GPUs through the CUDA driver API (package cuda-bindings). Not yet run on hardware."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import Any

from ..core.errors import InfraError
from .compute import Compute, DeviceMemory, HostMemory, Limits, blocks
from .kernels import PTX
from .requirement import CUDA

__all__ = ["CudaCompute"]

_THREADS = 256
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not in step with the legacy default stream
_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: pinned for every context


class CudaCompute(Compute):
    """A GPU of NVIDIA's, in its primary context: the one that libraries in the same process use too."""

    requires = (CUDA,)

    def _start(self, undo: ExitStack) -> None:
        from cuda.bindings import driver

        self._driver: Any = driver
        self._call(driver.cuInit, 0)
        self._ordinal = self._find()
        context = self._call(driver.cuDevicePrimaryCtxRetain, self._ordinal)
        undo.callback(self._call, driver.cuDevicePrimaryCtxRelease, self._ordinal)
        self._context = context
        module = self._here(driver.cuModuleLoadData, PTX.encode() + b"\0")
        undo.callback(self._here, driver.cuModuleUnload, module)
        self._saxpy = self._call(driver.cuModuleGetFunction, module, b"saxpy")
        self._burn = self._call(driver.cuModuleGetFunction, module, b"burn")
        undo.callback(self._end_all_queues)
        undo.callback(self._release_all)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the driver; what it returns besides its status.

        Raises:
            InfraError: the driver's own word.
        """
        status, *values = function(*arguments)
        if int(status) != 0:
            _, name = self._driver.cuGetErrorName(status)
            _, text = self._driver.cuGetErrorString(status)
            words = [word.decode() if isinstance(word, bytes) else str(word) for word in (name, text)]
            raise InfraError(f"{function.__name__} on {self.device.name}: {': '.join(words)}")
        return values[0] if len(values) == 1 else values

    def _here(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the driver with the context current in this thread."""
        self._call(self._driver.cuCtxSetCurrent, self._context)
        return self._call(function, *arguments)

    def _find(self) -> Any:
        ask = getattr(self._driver, "cuDeviceGetUuid_v2", None) or self._driver.cuDeviceGetUuid  # v2: of MIG instances
        for number in range(self._call(self._driver.cuDeviceGetCount)):
            device = self._call(self._driver.cuDeviceGet, number)
            if _uuid(self._call(ask, device)) == self.device.uuid.partition("-")[2]:
                return device
        raise InfraError(
            f"CUDA does not see {self.device.uuid} here: this process began with another CUDA_VISIBLE_DEVICES"
        )

    @cached_property
    def limits(self) -> Limits:
        """What one launch may ask for (cuDeviceGetAttribute)."""
        self.start()
        names = self._driver.CUdevice_attribute

        def ask(name: str) -> int:
            attribute = getattr(names, f"CU_DEVICE_ATTRIBUTE_{name}")
            return int(self._call(self._driver.cuDeviceGetAttribute, attribute, self._ordinal))

        return Limits(
            threads_per_block=ask("MAX_THREADS_PER_BLOCK"),
            block=tuple(ask(f"MAX_BLOCK_DIM_{axis}") for axis in "XYZ"),
            grid=tuple(ask(f"MAX_GRID_DIM_{axis}") for axis in "XYZ"),
            warp=ask("WARP_SIZE"),
            shared_bytes=ask("MAX_SHARED_MEMORY_PER_BLOCK"),
            multiprocessors=ask("MULTIPROCESSOR_COUNT"),
        )

    def _queue(self, undo: ExitStack) -> Any:
        stream = self._here(self._driver.cuStreamCreate, _NON_BLOCKING)
        undo.callback(self._here, self._driver.cuStreamDestroy, stream)
        return stream

    def _finish(self, *queues: Any) -> None:
        for stream in queues:
            self._here(self._driver.cuStreamSynchronize, stream)

    def seconds(self, work: Callable[[], object], *queues: Any) -> float:
        """How long the work takes: by the GPU's own clock where it is in one stream."""
        if len(queues) != 1:
            return super().seconds(work, *queues)
        driver = self._driver
        self.finish(*queues)
        with ExitStack() as undo:
            events: list[Any] = []
            for _ in range(2):
                events.append(self._here(driver.cuEventCreate, 0))
                undo.callback(self._here, driver.cuEventDestroy, events[-1])
            self._here(driver.cuEventRecord, events[0], queues[0])
            work()
            self._here(driver.cuEventRecord, events[1], queues[0])
            self.finish(*queues)
            return float(self._here(driver.cuEventElapsedTime, *events)) / 1e3

    def _launch_saxpy(self, a: float, x: DeviceMemory, y: DeviceMemory, count: int, queue: Any) -> None:
        types = (ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
        self._launch(self._saxpy, ((a, int(x.handle), int(y.handle), count), types), count, queue)

    def _launch_burn(self, y: DeviceMemory, count: int, rounds: int, queue: Any) -> None:
        types = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
        self._launch(self._burn, ((int(y.handle), count, rounds), types), count, queue)

    def _launch(self, function: Any, parameters: Any, count: int, queue: Any) -> None:
        grid = blocks(count, _THREADS, self.limits.grid)
        self._here(self._driver.cuLaunchKernel, function, grid, 1, 1, _THREADS, 1, 1, 0, queue, parameters, 0)

    def _allocate(self, nbytes: int, undo: ExitStack) -> Any:
        address = self._here(self._driver.cuMemAlloc, nbytes)
        undo.callback(self._here, self._driver.cuMemFree, address)
        return address

    def _host(self, nbytes: int, pinned: bool, undo: ExitStack) -> tuple[memoryview, Any]:
        if pinned:
            address = int(self._here(self._driver.cuMemHostAlloc, nbytes, _PORTABLE))
            undo.callback(self._here, self._driver.cuMemFreeHost, address)
            memory = (ctypes.c_char * nbytes).from_address(address)
        else:
            memory = (ctypes.c_char * nbytes)()
        return memoryview(memory).cast("B"), memory

    def _copy(
        self, target: DeviceMemory | HostMemory, source: DeviceMemory | HostMemory, nbytes: int, queue: Any
    ) -> None:
        driver = self._driver
        if isinstance(target, DeviceMemory) and isinstance(source, DeviceMemory):
            self._here(driver.cuMemcpyDtoDAsync, target.handle, source.handle, nbytes, queue)
        elif isinstance(target, DeviceMemory):
            self._here(driver.cuMemcpyHtoDAsync, target.handle, ctypes.addressof(source.handle), nbytes, queue)
        else:
            self._here(driver.cuMemcpyDtoHAsync, ctypes.addressof(target.handle), source.handle, nbytes, queue)


def _uuid(value: Any) -> str:
    """As NVML writes it, without its kind: ``8-4-4-4-12`` hexadecimal digits (RFC 9562)."""
    digits = bytes(value.bytes)[:16].hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
