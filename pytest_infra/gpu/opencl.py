"""Devices through OpenCL (Khronos, The OpenCL Specification): GPUs of any maker, and CPUs through PoCL."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..core.errors import InfraError
from ..core.requirement import PythonModule
from .compute import Compute, DeviceMemory, HostMemory, Limits
from .found import Found
from .kernels import OPENCL_C

__all__ = ["OpenClCompute", "find_opencl", "find_unusable"]

_MODULE = PythonModule("pyopencl", purpose="computing through OpenCL", extra="opencl")


@contextmanager
def _library() -> Iterator[Any]:
    """The package; it warns of its own caches and of what compilers say, which is nobody's concern here."""
    _MODULE.demand()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pyopencl

        try:
            yield pyopencl
        except pyopencl.Error as error:
            raise InfraError(f"OpenCL says: {error}") from error


def find_opencl() -> list[Found]:
    """The devices of all platforms that can compile a program, GPUs before CPUs.

    Raises:
        Unavailable: the package is not installed.
    """
    usable = (found for found, device in _devices() if not _complaint(device))
    return sorted(usable, key=lambda found: found.kind != "gpu")


def find_unusable() -> dict[str, str]:
    """By name, what the compiler says of each device that it cannot compile for: its LLVM may not know the processor.

    Raises:
        Unavailable: the package is not installed.
    """
    return {found.name: complaint for found, device in _devices() if (complaint := _complaint(device))}


def _complaint(device: Any) -> str:
    """Why nothing can be compiled for this device; an empty string where it can."""
    with _library() as cl:
        try:
            cl.Program(cl.Context([device]), "__kernel void nothing(void) {}").build()
        except cl.Error as error:
            said = (line.removeprefix("error: ") for line in str(error).splitlines() if line.startswith("error: "))
            return next(said, str(error))
    return ""


def _devices() -> list[tuple[Found, Any]]:
    found = []
    with _library() as cl:
        try:
            platforms = cl.get_platforms()
        except cl.Error:  # the loader's way to say that there are none
            return []
        for platform in platforms:
            for number, device in enumerate(platform.get_devices()):
                where = re.sub(r"[^A-Za-z0-9]+", "-", platform.name).strip("-")
                kind = "cpu" if device.type & cl.device_type.CPU else "gpu"
                name, memory = device.name.strip(), int(device.global_mem_size)
                found.append((Found(f"opencl-{where}-{number}", name, "opencl", kind, memory, index=number), device))
    return found


class OpenClCompute(Compute):
    """A device that is used through OpenCL."""

    requires = (_MODULE,)

    def _start(self, undo: ExitStack) -> None:
        with _library() as cl:
            device = next((device for found, device in _devices() if found.uuid == self.device.uuid), None)
            if device is None:
                raise InfraError(f"the device {self.device.uuid} is gone")
            self._device: Any = device
            self._context = cl.Context([self._device])
            program = cl.Program(self._context, OPENCL_C).build()
            self._saxpy, self._burn = cl.Kernel(program, "saxpy"), cl.Kernel(program, "burn")
        undo.callback(self._end_all_queues)
        undo.callback(self._release_all)

    @property
    def limits(self) -> Limits:
        """What one launch may ask for (clGetDeviceInfo, clGetKernelWorkGroupInfo)."""
        self.start()
        with _library() as cl:
            multiple = cl.kernel_work_group_info.PREFERRED_WORK_GROUP_SIZE_MULTIPLE
            return Limits(
                threads_per_block=int(self._device.max_work_group_size),
                block=tuple(int(size) for size in self._device.max_work_item_sizes),
                grid=(),
                warp=int(self._burn.get_work_group_info(multiple, self._device)),
                shared_bytes=int(self._device.local_mem_size),
                multiprocessors=int(self._device.max_compute_units),
            )

    def _queue(self, undo: ExitStack) -> Any:
        del undo  # the package gives a queue back with its last reference
        with _library() as cl:
            return cl.CommandQueue(self._context, self._device)

    def _finish(self, *queues: Any) -> None:
        with _library():
            for queue in queues:
                queue.flush()
            for queue in queues:
                queue.finish()

    def _launch_saxpy(self, a: float, x: DeviceMemory, y: DeviceMemory, count: int, queue: Any) -> None:
        from numpy import float32, uint32

        with _library():
            self._saxpy(queue, (count,), None, float32(a), x.handle, y.handle, uint32(count))

    def _launch_burn(self, y: DeviceMemory, count: int, rounds: int, queue: Any) -> None:
        from numpy import uint32

        with _library():
            self._burn(queue, (count,), None, y.handle, uint32(count), uint32(rounds))

    def _allocate(self, nbytes: int, undo: ExitStack) -> Any:
        with _library() as cl:
            buffer = cl.Buffer(self._context, cl.mem_flags.READ_WRITE, nbytes)
        undo.callback(buffer.release)
        return buffer

    def _host(self, nbytes: int, pinned: bool, undo: ExitStack) -> tuple[memoryview, Any]:
        if not pinned:
            memory = bytearray(nbytes)
            return memoryview(memory), memory
        from numpy import uint8

        with _library() as cl:
            flags = cl.mem_flags.READ_WRITE | cl.mem_flags.ALLOC_HOST_PTR
            buffer = cl.Buffer(self._context, flags, nbytes)
            undo.callback(buffer.release)
            queue = self._queue(undo)
            how = cl.map_flags.READ | cl.map_flags.WRITE
            array, _ = cl.enqueue_map_buffer(queue, buffer, how, 0, (nbytes,), uint8)
            undo.callback(queue.finish)
            undo.callback(array.base.release, queue)
        return memoryview(array), array

    def _copy(
        self, target: DeviceMemory | HostMemory, source: DeviceMemory | HostMemory, nbytes: int, queue: Any
    ) -> None:
        with _library() as cl:
            if isinstance(target, DeviceMemory) and isinstance(source, DeviceMemory):
                cl.enqueue_copy(queue, target.handle, source.handle, byte_count=nbytes)
            elif isinstance(target, DeviceMemory):
                assert isinstance(source, HostMemory)
                cl.enqueue_copy(queue, target.handle, source.view[:nbytes], is_blocking=False)
            else:
                cl.enqueue_copy(queue, target.view[:nbytes], source.handle, is_blocking=False)
