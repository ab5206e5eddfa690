"""`Compute`: memory, copies and two kernels on a device, the same over CUDA and OpenCL."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..core.errors import BadInput, InfraError
from ..core.resource import Facts, Resource
from ..core.units import format_size, size_bytes
from .found import Found

__all__ = ["Compute", "DeviceMemory", "HostMemory", "Limits", "blocks"]

_FLOAT_BYTES = 4
_MOST_ROUNDS = 2**32 - 1  # the kernel's parameter has 32 bits


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
        budget_bytes: how much of its memory may be allocated at once; all of it by default.
    """

    def __init__(self, device: Found, budget_bytes: int | None = None) -> None:
        self.device = device
        self._budget_bytes = device.memory_bytes if budget_bytes is None else budget_bytes
        self._live: dict[DeviceMemory | HostMemory, ExitStack] = {}
        self._queues: list[tuple[Any, ExitStack]] = []

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
            InfraError: the device has not as much, or the test's share of it not.
        """
        self.start()
        nbytes, undo = _positive(size), ExitStack()
        if self.held_bytes + nbytes > self._budget_bytes:
            raise InfraError(
                f"{format_size(nbytes)} of {self.device.name} asked for; {format_size(self.held_bytes)} of the "
                f"{format_size(self._budget_bytes)} that the test may have are allocated already"
            )
        memory = DeviceMemory(nbytes, self._allocate(nbytes, undo))
        self._live[memory] = undo
        return memory

    def host(self, size: int | str, *, pinned: bool = False) -> HostMemory:
        """Memory of the machine, to copy from and to.

        Raises:
            BadInput: a size that cannot be, or `pinned` is neither true nor false.
            InfraError: the machine has not as much.
        """
        if not isinstance(pinned, bool):
            raise BadInput(f"pinned is True or False, not {pinned!r}")
        self.start()
        nbytes, undo = _positive(size), ExitStack()
        try:
            view, handle = self._host(nbytes, pinned, undo)
        except (MemoryError, OverflowError):
            raise InfraError(f"this machine has no {format_size(nbytes)} of memory for a buffer") from None
        memory = HostMemory(nbytes, pinned, view, handle)
        self._live[memory] = undo
        return memory

    def release(self, *memories: DeviceMemory | HostMemory) -> None:
        """Give memory back before the end; the view of a host's memory cannot be used any more then.

        Raises:
            BadInput: it is no memory of this device's, has been released before, or an array still uses its view.
        """
        for memory in memories:
            self._demand_live(memory)
            if isinstance(memory, HostMemory):
                try:
                    memory.view.release()
                except BufferError:
                    raise BadInput(
                        "an array still uses the view of this memory: delete it before the release"
                    ) from None
            self._live.pop(memory).close()

    def _release_all(self) -> None:
        while self._live:
            self._live.popitem()[1].close()

    def queue(self) -> Any:
        """A new queue (a stream, in CUDA's words): work in one is done in order, work in two may overlap."""
        self.start()
        undo = ExitStack()
        queue = self._queue(undo)
        self._queues.append((queue, undo))
        return queue

    def end_queues(self, *queues: Any) -> None:
        """Give queues back before the end, when what is in them is done.

        Raises:
            BadInput: one is no queue of this device's, or has been given back before.
        """
        self.finish(*queues)
        for queue in queues:
            number = next(number for number, (known, _) in enumerate(self._queues) if known is queue)
            self._queues.pop(number)[1].close()

    def _end_all_queues(self) -> None:
        while self._queues:
            self._queues.pop()[1].close()

    def finish(self, *queues: Any) -> None:
        """Wait until all that was queued is done.

        Raises:
            BadInput: one is no queue of this device's.
        """
        for queue in queues:
            self._demand_queue(queue)
        self._finish(*queues)

    def _demand_live(self, memory: object, kind: type = object, nbytes: int = 0) -> None:
        """Whether memory may be used: whoever gives a device something else ends the whole process."""
        if not isinstance(memory, DeviceMemory | HostMemory) or not isinstance(memory, kind):
            wanted = "memory of the device" if kind is DeviceMemory else "memory of allocate() or host()"
            raise BadInput(f"{wanted} is wanted, not {type(memory).__name__}")
        if memory not in self._live:
            raise BadInput("this memory has been released, or is not of this device's context")
        if memory.nbytes < nbytes:
            raise BadInput(f"{nbytes // _FLOAT_BYTES} numbers need {nbytes} bytes; the memory has {memory.nbytes}")

    def _demand_queue(self, queue: object) -> None:
        if not any(known is queue for known, _ in self._queues):
            raise BadInput(f"a queue of this device's queue() is wanted, not {queue!r}")

    def copy(self, target: DeviceMemory | HostMemory, source: DeviceMemory | HostMemory, queue: Any) -> None:
        """Queue a copy of all that both have room for: host to device, device to host, or within the device.

        Raises:
            BadInput: both are of the host, one has been released, or the queue is none.
        """
        self._demand_live(target)
        self._demand_live(source)
        self._demand_queue(queue)
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

    def saxpy(self, a: float, x: DeviceMemory, y: DeviceMemory, count: int, queue: Any) -> None:
        """Queue ``y = a·x + y`` on `count` numbers of single precision (BLAS, level 1).

        Raises:
            BadInput: an argument that cannot be, memory that is too small, or that has been released.
        """
        if isinstance(a, bool) or not isinstance(a, int | float):
            raise BadInput(f"a is a number, not {a!r}")
        self._demand_launch((x, y), count, queue)
        self._launch_saxpy(float(a), x, y, count, queue)

    def burn(self, y: DeviceMemory, count: int, rounds: int, queue: Any) -> None:
        """Queue work that moves next to no memory: `rounds` multiplications on each of `count` numbers.

        Raises:
            BadInput: an argument that cannot be, memory that is too small, or that has been released.
        """
        _demand_whole("rounds", rounds, 0, _MOST_ROUNDS)
        self._demand_launch((y,), count, queue)
        self._launch_burn(y, count, rounds, queue)

    def _demand_launch(self, memories: Sequence[DeviceMemory], count: int, queue: Any) -> None:
        _demand_whole("count", count, 1, _MOST_ROUNDS)
        for memory in memories:
            self._demand_live(memory, DeviceMemory, _FLOAT_BYTES * count)
        self._demand_queue(queue)

    @abstractmethod
    def _queue(self, undo: ExitStack) -> Any:
        """A new queue."""

    @abstractmethod
    def _finish(self, *queues: Any) -> None:
        """Wait for these queues."""

    @abstractmethod
    def _launch_saxpy(self, a: float, x: DeviceMemory, y: DeviceMemory, count: int, queue: Any) -> None:
        """Queue the kernel; what it is given has been looked at."""

    @abstractmethod
    def _launch_burn(self, y: DeviceMemory, count: int, rounds: int, queue: Any) -> None:
        """Queue the kernel; what it is given has been looked at."""

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


def _demand_whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadInput(f"{name} is a whole number from {least} to {most}, not {value!r}")


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
