"""Control groups version 1: which file means what (Linux: Documentation/admin-guide/cgroup-v1)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

from ..core.errors import Unavailable
from .files import flat, number, read, write
from .limits import Limits
from .setting import Setting
from .values import DeviceIo

__all__ = ["cpu", "events", "io", "memory", "pids", "prepare", "settings"]

_NO_LIMIT = 1 << 62  # what the kernel shows for "no limit" is near 2**63, rounded down to pages
_DISKS = "/sys/block"
_NO_DISKS = ("loop", "ram", "zram", "nbd", "fd", "sr")
_OPERATIONS = (("read", "Read"), ("write", "Write"))
_SHARES = 1024 / 100  # a weight of 100 is the kernel's default of 1024 shares


def prepare(controller: str, folder: str, parent: str) -> None:
    """What a new folder needs before a process may join: a cpuset has no CPUs and no memory nodes at first."""
    if controller == "cpuset":
        for name in ("cpuset.cpus", "cpuset.mems"):
            write(folder, name, (read(parent, name) or "").strip())
    if controller == "io":
        _count_io(folder)


def _count_io(folder: str) -> None:
    """Have the kernel count what is read and written: since Linux 6.10 it begins when a disk gets its first limit.

    A limit of 0 is none. What cannot be limited (a disk without a queue of requests) is not counted either.
    """
    for disk in sorted(os.listdir(_DISKS)):
        if disk.startswith(_NO_DISKS):
            continue
        number_of = read(os.path.join(_DISKS, disk), "dev")
        if number_of is not None:
            with suppress(OSError):
                write(folder, "blkio.throttle.write_bps_device", f"{number_of.strip()} 0")


def settings(limits: Limits) -> Iterator[Setting]:
    """The files to write for these limits, in the order in which they must be written.

    `memory_high` has no counterpart: ``memory.soft_limit_in_bytes`` slows nobody down.
    """
    if limits.cpu_max is not None:
        period_us = round(limits.cpu_period_s * 1e6)
        yield Setting("cpu_max", "cpu", "cpu.cfs_period_us", str(period_us))
        yield Setting("cpu_max", "cpu", "cpu.cfs_quota_us", str(round(limits.cpu_max * period_us)))
    if limits.cpu_weight is not None:
        yield Setting("cpu_weight", "cpu", "cpu.shares", str(max(2, round(limits.cpu_weight * _SHARES))))
    if limits.cpuset is not None:
        yield Setting("cpuset", "cpuset", "cpuset.cpus", limits.cpuset)
    yield from _memory(limits)
    if limits.pids_max is not None:
        yield Setting("pids_max", "pids", "pids.max", str(limits.pids_max))
    yield from _io(limits)
    if limits.devices is not None:
        yield Setting("devices", "devices", "devices.deny", "a")
        for rule in limits.devices:
            yield Setting("devices", "devices", "devices.allow", rule)
    for page, most_bytes in limits.hugetlb_max:
        yield Setting("hugetlb_max", "hugetlb", f"hugetlb.{page}.limit_in_bytes", str(most_bytes))
    if limits.net_classid is not None:
        yield Setting("net_classid", "net_cls", "net_cls.classid", str(limits.net_classid))


def _io(limits: Limits) -> Iterator[Setting]:
    for device, most in limits.io_max:
        rates = [*most.bytes_per_s(), most.read_ops, most.write_ops]
        for file, rate in zip(("read_bps", "write_bps", "read_iops", "write_iops"), rates, strict=True):
            if rate is not None:
                yield Setting("io_max", "io", f"blkio.throttle.{file}_device", f"{device} {rate}")


def _memory(limits: Limits) -> Iterator[Setting]:
    if limits.memory_max is None:
        if limits.swap_max is not None:
            why = "version 1 limits the sum of memory and swap, so it needs memory_max as well"
            raise Unavailable("cgroup-swap_max", why, "give memory_max too")
        return
    both = limits.memory_max + (limits.swap_max or 0)
    unasked = limits.swap_max is None
    # The sum with swap may never be below the memory: lift it, set the one, then the other.
    yield Setting("swap_max", "memory", "memory.memsw.limit_in_bytes", "-1", optional=True)
    yield Setting("memory_max", "memory", "memory.limit_in_bytes", str(limits.memory_max))
    yield Setting("swap_max", "memory", "memory.memsw.limit_in_bytes", str(both), optional=unasked)


def cpu(folders: Mapping[str, str]) -> dict[str, float | int | None]:
    """CPU time in seconds, and how often and how long the quota held the group back."""
    values: dict[str, float | int | None] = {}
    if folder := folders.get("cpuacct"):
        for name, file in (("cpu_s", "usage"), ("cpu_user_s", "usage_user"), ("cpu_system_s", "usage_sys")):
            spent_ns = number(folder, f"cpuacct.{file}")
            values[name] = None if spent_ns is None else spent_ns / 1e9
    if folder := folders.get("cpu"):
        stat = flat(folder, "cpu.stat")
        values["periods"] = stat.get("nr_periods")
        values["throttled_periods"] = stat.get("nr_throttled")
        throttled_ns = stat.get("throttled_time")
        values["throttled_s"] = None if throttled_ns is None else throttled_ns / 1e9
    return values


def memory(folder: str) -> dict[str, int | None]:
    """Bytes now and at most, what they are, and major faults; the group and all below it."""
    stat = flat(folder, "memory.stat")
    limit = number(folder, "memory.limit_in_bytes")
    return {
        "memory_bytes": number(folder, "memory.usage_in_bytes"),
        "memory_peak_bytes": number(folder, "memory.max_usage_in_bytes"),
        "memory_max_bytes": None if limit is None or limit > _NO_LIMIT else limit,
        "anon_bytes": stat.get("total_rss"),
        "file_bytes": stat.get("total_cache"),
        "kernel_bytes": number(folder, "memory.kmem.usage_in_bytes"),
        "dirty_bytes": _sum(stat.get("total_dirty"), stat.get("total_writeback")),
        "swap_bytes": stat.get("total_swap"),
        "major_faults": stat.get("total_pgmajfault"),
    }


def _sum(*values: int | None) -> int | None:
    found = [value for value in values if value is not None]
    return sum(found) if found else None


def io(folder: str) -> dict[str, DeviceIo]:
    """Bytes and operations by device; what the page cache wrote later counts where the writer of that moment was."""
    counts: dict[str, dict[str, int]] = {}
    for file, unit in (("io_service_bytes", "bytes"), ("io_serviced", "ops")):
        text = read(folder, f"blkio.throttle.{file}_recursive") or read(folder, f"blkio.throttle.{file}") or ""
        for line in text.splitlines():
            words = line.split()
            for name, word in _OPERATIONS:
                if len(words) == 3 and words[1] == word:
                    counts.setdefault(words[0], {})[f"{name}_{unit}"] = int(words[2])
    return {device: DeviceIo(**values) for device, values in counts.items()}


def pids(folder: str) -> dict[str, int | None]:
    """Processes and threads now and at most."""
    return {"pids": number(folder, "pids.current"), "pids_peak": number(folder, "pids.peak")}


def events(folders: Mapping[str, str]) -> dict[str, int | None]:
    """How often a limit was met; in version 1 each folder counts only for itself."""
    values: dict[str, int | None] = {}
    if folder := folders.get("memory"):
        hits = number(folder, "memory.failcnt"), number(folder, "memory.memsw.failcnt")
        values["memory_max_hits"] = _sum(*hits)  # without swap the limit on the sum is met first
        values["oom_kills"] = flat(folder, "memory.oom_control").get("oom_kill")
    if folder := folders.get("pids"):
        values["pids_max_hits"] = flat(folder, "pids.events").get("max")
    return values
