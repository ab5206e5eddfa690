"""`Compute`: memory, copies and two kernels on a device, the same over CUDA and OpenCL."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..core.errors import BadInput
from ..core.resource import Facts, Resource
from ..core.units import size_bytes
from .found import Found

__all__ = ["Compute", "DeviceMemory", "HostMemory", "Limits", "blocks"]


@dataclass(frozen=True)
class Limits:
    """What one launch of a kernel may ask for (CUDA's words; OpenCL's work items are threads, its groups blocks)."""

    threads_per_block: int
    block: tuple[int, ...]
    """The largest block in each dimension, in threads."""
    grid: tuple[int, ...]
    """The largest grid in each dimension, in blocks; empty where the device names none."""
    warp: int
    """How many threads run in step."""
    shared_bytes: int
    """Memory that the threads of one block share."""
    multiprocessors: int


@dataclass(eq=False)
class DeviceMemory:
    """Memory of the device."""

    nbytes: int
    handle: Any


@dataclass(eq=False)
class HostMemory:
    """Memory of the machine; pinned memory is not paged, so the device can read and write it by itself."""

    nbytes: int
    pinned: bool
    view: memoryview
    """The bytes, to read and to write."""
    handle: Any


class Compute(Resource):
    """A device in use: its context, its memory, its queues. Everything is given back when it stops.

    Calls that queue work return before it is done; `finish` waits for it.

    Args:
        device: which one.
    """

    def __init__(self, device: Found) -> None:
        self.device = device
        self._live: dict[DeviceMemory | HostMemory, ExitStack] = {}

    @property
    def held_bytes(self) -> int:
        """How much memory of the device has been allocated here and not been released."""
        return sum(memory.nbytes for memory in self._live if isinstance(memory, DeviceMemory))

    def allocate(self, size: int | str) -> DeviceMemory:
        """Memory of the device.

        Args:
            size: ``"64 MiB"``, or bytes.

        Raises:
            BadInput: a size that cannot be.
            InfraError: the device has not as much.
        """
        self.start()
        nbytes, undo = _positive(size), ExitStack()
        memory = DeviceMemory(nbytes, self._allocate(nbytes, undo))
        self._live[memory] = undo
        return memory

    def host(self, size: int | str, *, pinned: bool = False) -> HostMemory:
        """Memory of the machine, to copy from and to.

        Raises:
            BadInput: a size that cannot be.
        """
        self.start()
        nbytes, undo = _positive(size), ExitStack()
        view, handle = self._host(nbytes, pinned, undo)
        memory = HostMemory(nbytes, pinned, view, handle)
        self._live[memory] = undo
        return memory

    def release(self, *memories: DeviceMemory | HostMemory) -> None:
        """Give memory back before the end."""
        for memory in memories:
            self._live.pop(memory).close()

    def _release_all(self) -> None:
        self.release(*self._live)

    def copy(self, target: DeviceMemory | HostMemory, source: DeviceMemory | HostMemory, queue: Any) -> None:
        """Queue a copy of all that both have room for: host to device, device to host, or within the device.

        Raises:
            BadInput: both are of the host.
        """
        if isinstance(target, HostMemory) and isinstance(source, HostMemory):
            raise BadInput("a copy from host to host is no work of the device")
        self._copy(target, source, min(target.nbytes, source.nbytes), queue)

    def seconds(self, work: Callable[[], object], *queues: Any) -> float:
        """How long it takes to queue this work and to do it, with nothing else in these queues."""
        self.finish(*queues)
        began = time.perf_counter()
        work()
        self.finish(*queues)
        return time.perf_counter() - began

    def describe(self) -> Facts:
        """The device."""
        return {"device": str(self.device), "kind": self.device.kind, "backend": self.device.backend}

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """What one launch may ask for."""

    @abstractmethod
    def queue(self) -> Any:
        """A new queue (a stream, in CUDA's words): work in one is done in order, work in two may overlap."""

    @abstractmethod
    def finish(self, *queues: Any) -> None:
        """Wait until all that was queued is done."""

    @abstractmethod
    def saxpy(self, a: float, x: DeviceMemory, y: DeviceMemory, count: int, queue: Any) -> None:
        """Queue ``y = a·x + y`` on `count` numbers of single precision (BLAS, level 1)."""

    @abstractmethod
    def burn(self, y: DeviceMemory, count: int, rounds: int, queue: Any) -> None:
        """Queue work that moves next to no memory: `rounds` multiplications on each of `count` numbers."""

    @abstractmethod
    def _allocate(self, nbytes: int, undo: ExitStack) -> Any:
        """A handle of that much device memory."""

    @abstractmethod
    def _host(self, nbytes: int, pinned: bool, undo: ExitStack) -> tuple[memoryview, Any]:
        """That much host memory, and its handle."""

    @abstractmethod
    def _copy(
        self, target: DeviceMemory | HostMemory, source: DeviceMemory | HostMemory, nbytes: int, queue: Any
    ) -> None:
        """Queue a copy."""


def _positive(size: int | str) -> int:
    nbytes = size_bytes(size)
    if nbytes < 1:
        raise BadInput(f"a buffer has 1 byte or more, not {size!r}")
    return nbytes


def blocks(count: int, threads: int, limits: Sequence[int]) -> int:
    """How many blocks of that many threads cover `count` numbers.

    Raises:
        BadInput: more than the device takes in one launch.
    """
    needed = -(-count // threads)
    if limits and needed > limits[0]:
        raise BadInput(f"{count} numbers need {needed} blocks of {threads} threads; the device takes {limits[0]}")
    return needed
