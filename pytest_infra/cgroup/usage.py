"""`Usage`: what a control group has used, from the kernel's own counters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from ..core.report import Report, explain
from ..core.units import format_duration, format_size
from . import v1, v2
from .values import DeviceIo, Pressure

__all__ = ["Usage", "read_usage"]

V = TypeVar("V")

_GROWING = (
    "cpu_s", "cpu_user_s", "cpu_system_s", "periods", "throttled_periods", "throttled_s", "major_faults",
    "memory_max_hits", "memory_high_hits", "oom_kills", "pids_max_hits",
)  # fmt: skip


@dataclass(frozen=True)
class Usage(Report):
    """What a group (and every group below it) has used; None where no controller counts it.

    ``later - earlier`` is what happened in between: counters are subtracted; a state or a peak is the later one.
    """

    kind: ClassVar[str] = "usage"

    target: str
    cpu_s: float | None = None
    """CPU time, all processors together."""
    cpu_user_s: float | None = None
    """The part in user space. The kernel knows the sum exactly, and this split less so."""
    cpu_system_s: float | None = None
    periods: int | None = None
    """Periods of the CPU quota in which somebody wanted to run."""
    throttled_periods: int | None = None
    throttled_s: float | None = None
    """How long the quota held threads back, summed over the processors."""
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_max_bytes: int | None = None
    """The limit; None where there is none."""
    anon_bytes: int | None = None
    file_bytes: int | None = None
    """The page cache of files that the group was the first to read or write, tmpfs included."""
    kernel_bytes: int | None = None
    dirty_bytes: int | None = None
    """Page cache that is not on its device yet."""
    swap_bytes: int | None = None
    major_faults: int | None = None
    pids: int | None = None
    """Processes and threads now; one that has ended counts until its parent has waited for it."""
    pids_peak: int | None = None
    memory_max_hits: int | None = None
    """How often the kernel had to reclaim at the limit; not a number to assert."""
    memory_high_hits: int | None = None
    oom_kills: int | None = None
    pids_max_hits: int | None = None
    """Forks that the limit refused."""
    devices: Mapping[str, DeviceIo] = field(default_factory=dict)
    """Bytes and operations by block device ``MAJOR:MINOR``."""
    pressure: Mapping[str, Pressure] = field(default_factory=dict)
    """Pressure stall information of ``cpu``, ``memory`` and ``io``."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """The version of control groups that counted each controller."""

    @property
    def read_bytes(self) -> int | None:
        """Bytes read from all devices."""
        return sum(io.read_bytes for io in self.devices.values()) if "io" in self.versions else None

    @property
    def write_bytes(self) -> int | None:
        """Bytes written to all devices."""
        return sum(io.write_bytes for io in self.devices.values()) if "io" in self.versions else None

    def __sub__(self, earlier: Usage) -> Usage:
        values: dict[str, Any] = {}
        for name in _GROWING:
            now, then = getattr(self, name), getattr(earlier, name)
            values[name] = None if now is None else now - (then or 0)
        values["devices"] = {
            device: io - earlier.devices.get(device, DeviceIo()) for device, io in self.devices.items()
        }
        before = earlier.pressure
        values["pressure"] = {
            name: item - before[name] if name in before else item for name, item in self.pressure.items()
        }
        return replace(self, **values)

    def rows(self) -> list[tuple[str, str]]:
        """The figures for a reader, one row for each controller."""
        waits = [f"{name} {format_duration(item.some_s)}" for name, item in self.pressure.items() if item.some_s]
        return [
            ("cpu", self._cpu()),
            ("memory", self._memory()),
            ("processes", _parts((f"{self.pids} now", self.pids), (f"{self.pids_peak} at most", self.pids_peak))),
            ("i/o", "\n".join(f"{device}: {io}" for device, io in self.devices.items() if io)),
            ("events", self._events()),
            ("pressure", ", ".join(waits)),
        ]

    def explain(self) -> str:
        """The figures as text."""
        return explain(f"{self.target} has used", self.rows())

    def _cpu(self) -> str:
        if self.cpu_s is None:
            return ""
        text = f"{format_duration(self.cpu_s)}"
        if self.periods:
            held = format_duration(self.throttled_s or 0)
            text += f", throttled in {self.throttled_periods} of {self.periods} periods for {held}"
        return text

    def _memory(self) -> str:
        sizes = (("now", "memory_bytes"), ("at most", "memory_peak_bytes"), ("allowed", "memory_max_bytes"))
        parts = [
            f"{format_size(getattr(self, name))} {word}" for word, name in sizes if getattr(self, name) is not None
        ]
        return ", ".join(parts)

    def _events(self) -> str:
        return _parts(
            (f"{_count(self.oom_kills, 'process', 'es')} killed for want of memory", self.oom_kills),
            (f"{_count(self.memory_max_hits, 'time')} at the memory limit", self.memory_max_hits),
            (f"{_count(self.memory_high_hits, 'time')} above memory_high", self.memory_high_hits),
            (f"{_count(self.pids_max_hits, 'fork')} refused", self.pids_max_hits),
        )


def _count(number: int | None, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def _parts(*parts: tuple[str, object]) -> str:
    return ", ".join(text for text, value in parts if value)


def _tree(folder: str) -> Iterator[str]:
    for path, _, _ in os.walk(folder):
        yield path


def _summed(
    read: Callable[[Mapping[str, str]], dict[str, int | None]], folders: Mapping[str, str]
) -> dict[str, int | None]:
    """Version 1's events of a folder and all below it."""
    total: dict[str, int | None] = {}
    for controller, top in folders.items():
        for folder in _tree(top):
            for name, value in read({controller: folder}).items():
                if value is not None:
                    total[name] = (total.get(name) or 0) + value
    return total


def read_usage(target: str, folders: Mapping[str, str], v1_controllers: frozenset[str]) -> Usage:
    """Read the counters of a group.

    Args:
        target: whose they are, for people.
        folders: its folder for each controller; ``""`` is the version 2 group.
        v1_controllers: which of the controllers are of version 1.
    """
    old = {name: folder for name, folder in folders.items() if name in v1_controllers}
    base = folders.get("", "")
    values: dict[str, Any] = v2.cpu(base) if base else {}
    values.update({name: value for name, value in v1.cpu(old).items() if value is not None})
    for controller, readers in (("memory", (v1.memory, v2.memory)), ("pids", (v1.pids, v2.pids))):
        if controller in folders:
            values.update(readers[controller not in old](folders[controller]))
    if "io" in folders:
        values["devices"] = (v1.io if "io" in old else v2.io)(folders["io"])
    if base:
        values.update({name: value for name, value in v2.events(base).items() if value is not None})
        values["pressure"] = v2.pressure(base)
    values.update(_summed(v1.events, {name: old[name] for name in ("memory", "pids") if name in old}))
    versions = {name: 1 if name in old else 2 for name in folders if name}
    known = {item.name for item in fields(Usage)}
    return Usage(target=target, versions=versions, **{name: value for name, value in values.items() if name in known})
