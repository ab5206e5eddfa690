"""Devices as they were found, and the choice among them: pure functions of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import BadInput, Unavailable
from ..core.units import format_size

__all__ = ["BACKENDS", "Found", "Wish", "choose", "visible"]

BACKENDS = ("cuda", "opencl")
"""The interfaces to a device; the first that has one is taken."""


@dataclass(frozen=True)
class Found:
    """A device that could be used."""

    uuid: str
    """What names it for good: ``GPU-…``, ``MIG-…``, and for OpenCL ``opencl-PLATFORM-NUMBER``."""
    name: str
    backend: str
    """``cuda`` or ``opencl``."""
    kind: str
    """``gpu``, or ``cpu`` where OpenCL runs on one."""
    memory_bytes: int
    compute: tuple[int, int] | None = None
    """CUDA's compute capability; None where there is no such thing."""
    index: int = 0
    """Its number among its kind, as CUDA_VISIBLE_DEVICES counts."""

    def __str__(self) -> str:
        capability = f", compute {self.compute[0]}.{self.compute[1]}" if self.compute else ""
        cpu = " (a CPU)" if self.kind == "cpu" else ""
        return f"{self.name}{cpu}, {format_size(self.memory_bytes)}{capability}, {self.backend}, {self.uuid}"


@dataclass(frozen=True)
class Wish:
    """What a test asks for.

    Args:
        count: how many devices.
        memory_bytes: how much memory each has at least.
        name: a part of its name, in any case.
        min_compute: CUDA's compute capability at least, such as ``(8, 0)``.
        backend: ``cuda``, ``opencl``, or ``auto`` for the first that there is.

    Raises:
        BadInput: a value that cannot be.
    """

    count: int = 1
    memory_bytes: int = 0
    name: str = ""
    min_compute: tuple[int, int] | None = None
    backend: str = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise BadInput(f"a test can ask for 1 GPU or more, not {self.count!r}")
        if self.backend not in ("auto", *BACKENDS):
            raise BadInput(f"no back end {self.backend!r}; there are auto, {', '.join(BACKENDS)}")
        pair = self.min_compute
        if pair is not None and not (
            isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, int) and part >= 0 for part in pair)
        ):
            raise BadInput(f"min_compute is a pair such as (8, 0), not {pair!r}")

    def grants(self, device: Found) -> bool:
        """Whether one device is as wished."""
        return (
            device.memory_bytes >= self.memory_bytes
            and self.name.lower() in device.name.lower()
            and (self.min_compute is None or (device.compute is not None and device.compute >= self.min_compute))
            and self.backend in ("auto", device.backend)
        )

    def __str__(self) -> str:
        parts = [f"{self.count} device{'s' * (self.count > 1)}"]
        parts += [f"with {format_size(self.memory_bytes)}"] if self.memory_bytes else []
        parts += [f"named {self.name!r}"] if self.name else []
        parts += ["of compute capability {}.{}".format(*self.min_compute)] if self.min_compute else []
        parts += [f"by {self.backend}"] if self.backend != "auto" else []
        return " ".join(parts)


def visible(devices: Sequence[Found], variable: str | None) -> list[Found]:
    """The devices that CUDA_VISIBLE_DEVICES lets a program see, in its order; those of OpenCL always.

    The variable lists numbers, or beginnings of UUIDs; what follows something unknown does not count (CUDA C++
    Programming Guide, "CUDA Environment Variables").
    """
    if variable is None:
        return list(devices)
    cuda = [device for device in devices if device.backend == "cuda"]
    seen: list[Found] = []
    for word in (part.strip() for part in variable.split(",")):
        if word.isdigit():
            matches = [device for device in cuda if device.index == int(word) and not device.uuid.startswith("MIG-")]
        else:
            matches = [device for device in cuda if word and device.uuid.startswith(word)]
        if len(matches) != 1:
            break
        seen += [device for device in matches if device not in seen]
    return seen + [device for device in devices if device.backend != "cuda"]


def choose(devices: Sequence[Found], wish: Wish, unhealthy: Sequence[str] = ()) -> list[Found]:
    """All devices of one back end that are as wished, at least as many as wished.

    Args:
        devices: what there is and is healthy.
        wish: what is asked for.
        unhealthy: what there is too, and why it cannot be used, for the text.

    Raises:
        Unavailable: there are too few; the text lists what there is.
    """
    for backend in BACKENDS:
        granted = [device for device in devices if device.backend == backend and wish.grants(device)]
        if len(granted) >= wish.count:
            return granted
    there = "; ".join([*map(str, devices), *unhealthy]) or "none"
    raise Unavailable(
        "gpu", f"{wish} asked for, and there is: {there}", "pytest-infra doctor gpu opencl, or ask for less"
    )
