"""`Gpu`: a device that a test has for itself, healthy when it got it, and looked at when it gives it back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from ..core.errors import Unavailable
from ..core.resource import Facts, Resource
from .compute import Compute
from .cuda import CudaCompute
from .found import Found, Wish, choose, visible
from .health import Health, problems
from .hold import SLICES, hold, slices
from .nvml import find_cuda, read_health
from .opencl import OpenClCompute, find_opencl

__all__ = ["Gpu", "Gpus", "find"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def find(backend: str = "auto") -> list[Found]:
    """The devices of this machine that a program may see.

    Args:
        backend: ``cuda``, ``opencl``, or ``auto`` for both.

    Raises:
        Unavailable: the machine has no way to any.
    """
    found: list[Found] = []
    lacks: list[Unavailable] = []
    for name, look in (("cuda", find_cuda), ("opencl", find_opencl)):
        if backend in ("auto", name):
            try:
                found += look()
            except Unavailable as error:
                lacks.append(error)
    if not found and lacks:
        why = "; ".join(lack.why for lack in lacks)
        raise Unavailable("gpu", why, "pip install 'pytest-infra[opencl]' runs GPU tests on a CPU")
    return visible(found, os.environ.get(_VISIBLE))


class Gpu(Resource):
    """A device that the test holds against the whole machine.

    Args:
        device: which one.
        mine: processes that may use it.
        budget_bytes: how much of its memory `compute` may allocate; all of it by default.
    """

    def __init__(self, device: Found, mine: frozenset[int] = frozenset(), budget_bytes: int | None = None) -> None:
        self.device = device
        self.mine = mine
        self._budget_bytes = budget_bytes
        self._context_bytes = 0
        self._compute: Compute | None = None

    def _start(self, undo: ExitStack) -> None:
        self.before = self.health()
        undo.callback(self._end_compute)

    @property
    def uuid(self) -> str:
        """What names it for good."""
        return self.device.uuid

    @property
    def env(self) -> Mapping[str, str]:
        """The environment in which a program sees this device alone: ``node.run(argv, env=gpu.env)``."""
        return {_VISIBLE: self.uuid} if self.device.backend == "cuda" else {}

    @property
    def compute(self) -> Compute:
        """The device in use by this process: memory, copies, kernels. It ends with the test."""
        self.start()
        if self._compute is None:
            kind = CudaCompute if self.device.backend == "cuda" else OpenClCompute
            before = self.health().used_bytes
            self._compute = kind(self.device, self._budget_bytes).start()
            self._context_bytes = max(0, self.health().used_bytes - before)
        return self._compute

    def _end_compute(self) -> None:
        compute, self._compute = self._compute, None
        if compute is not None:
            compute.stop()

    def health(self) -> Health:
        """Its health now; a device that only OpenCL knows can say no more than what this process has allocated."""
        held = self._compute.held_bytes if self._compute is not None else 0
        if self.device.backend != "cuda":
            return Health(used_bytes=held)
        return read_health(self.uuid)

    def settled_health(self) -> Health:
        """Its health without what the context of `compute` takes by itself; what is allocated in it counts."""
        held = self._compute.held_bytes if self._compute is not None else 0
        health, context = self.health(), self._context_bytes if self._compute is not None else 0
        return replace(health, used_bytes=max(health.used_bytes - context, self.before.used_bytes + held))

    def describe(self) -> Facts:
        """The device."""
        return {"name": self.device.name, "kind": self.device.kind, "backend": self.device.backend, "uuid": self.uuid}


class Gpus(Resource):
    """One GPU or several, chosen, held and healthy; in the environment of this process and its children meanwhile.

    Args:
        wish: what is asked for.
        shared: whether others may use the rest of its memory meanwhile.
        timeout_s: how long to wait for them.
    """

    def __init__(self, wish: Wish, *, shared: bool = False, timeout_s: float = 600.0) -> None:
        self._wish = wish
        self._shared = shared
        self._timeout_s = timeout_s
        self.gpus: tuple[Gpu, ...] = ()

    def _start(self, undo: ExitStack) -> None:
        mine = frozenset({os.getpid()})
        held = self._hold(undo, mine)
        _set(undo, ",".join(device.uuid for device in held if device.backend == "cuda"))
        self.gpus = tuple(undo.enter_context(Gpu(device, mine, self._budget(device))) for device in held)

    def _budget(self, device: Found) -> int:
        """How much of its memory is held for the test."""
        return device.memory_bytes * slices(device, self._wish.memory_bytes, self._shared) // SLICES

    def _hold(self, undo: ExitStack, mine: frozenset[int]) -> list[Found]:
        """Hold those wished for. Who uses one is only judged when it is held: another test may just be using it."""
        wish = self._wish
        fit, unfit = _by_health(find(wish.backend), mine, in_use=True)
        while True:
            candidates = choose(fit, wish, unfit)
            with ExitStack() as attempt:
                held = hold(candidates, wish.count, wish.memory_bytes, self._shared, self._timeout_s, attempt)
                still_fit, now_unfit = _by_health(held, mine, in_use=self._shared)
                if not now_unfit:
                    undo.enter_context(attempt.pop_all())
                    return held
            unfit += now_unfit
            fit = [device for device in fit if device not in held or device in still_fit]


def _by_health(devices: Sequence[Found], mine: frozenset[int], in_use: bool) -> tuple[list[Found], list[str]]:
    """Those that can be used, or are `in_use` by others where that is allowed; of the rest what is wrong with them."""
    healthy, unhealthy = [], []
    for device in devices:
        if device.backend != "cuda":
            healthy.append(device)
            continue
        health = read_health(device.uuid)
        if in_use:
            health = replace(health, processes=())
        if wrong := problems(health, mine):
            unhealthy.append(f"{device}, not fit: {', '.join(wrong)}")
        else:
            healthy.append(device)
    return healthy, unhealthy


def _set(undo: ExitStack, value: str) -> None:
    """Set the variable for this process and its children, and have it set back."""
    if not value:
        return
    before = os.environ.get(_VISIBLE)
    os.environ[_VISIBLE] = value

    def back() -> None:
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before

    undo.callback(back)
