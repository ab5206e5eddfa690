"""Control groups version 2: which file means what (Linux: Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

from collections.abc import Iterator

from .files import flat, number, read
from .limits import IoMax, Limits
from .setting import Setting
from .values import DeviceIo, Pressure

__all__ = ["cpu", "events", "io", "memory", "pids", "pressure", "settings"]

_RESOURCES = ("cpu", "memory", "io")


def settings(limits: Limits) -> Iterator[Setting]:
    """The files to write for these limits, in the order in which they must be written."""
    if limits.cpu_max is not None:
        period_us = round(limits.cpu_period_s * 1e6)
        yield Setting("cpu_max", "cpu", "cpu.max", f"{round(limits.cpu_max * period_us)} {period_us}")
    if limits.cpu_weight is not None:
        yield Setting("cpu_weight", "cpu", "cpu.weight", str(limits.cpu_weight))
    if limits.cpuset is not None:
        yield Setting("cpuset", "cpuset", "cpuset.cpus", limits.cpuset)
    if limits.memory_high is not None:
        yield Setting("memory_high", "memory", "memory.high", str(limits.memory_high))
    if limits.memory_max is not None:
        yield Setting("memory_max", "memory", "memory.max", str(limits.memory_max))
    if limits.memory_max is not None or limits.swap_max is not None:
        unasked = limits.swap_max is None
        yield Setting("swap_max", "memory", "memory.swap.max", str(limits.swap_max or 0), optional=unasked)
    if limits.pids_max is not None:
        yield Setting("pids_max", "pids", "pids.max", str(limits.pids_max))
    for device, most in limits.io_max:
        yield Setting("io_max", "io", "io.max", f"{device} {_io_max(most)}")
    for page, most_bytes in limits.hugetlb_max:
        yield Setting("hugetlb_max", "hugetlb", f"hugetlb.{page}.max", str(most_bytes))


def _io_max(most: IoMax) -> str:
    rates = zip(("rbps", "wbps", "riops", "wiops"), [*most.bytes_per_s(), most.read_ops, most.write_ops], strict=True)
    return " ".join(f"{name}={rate}" for name, rate in rates if rate is not None)


def cpu(folder: str) -> dict[str, float | int | None]:
    """CPU time in seconds, and how often and how long the quota held the group back (no quota: no such lines)."""
    stat = flat(folder, "cpu.stat")

    def seconds(name: str) -> float | None:
        return stat[name] / 1e6 if name in stat else None

    return {
        "cpu_s": seconds("usage_usec"),
        "cpu_user_s": seconds("user_usec"),
        "cpu_system_s": seconds("system_usec"),
        "periods": stat.get("nr_periods"),
        "throttled_periods": stat.get("nr_throttled"),
        "throttled_s": seconds("throttled_usec"),
    }


def memory(folder: str) -> dict[str, int | None]:
    """Bytes now and at most, what they are, and major faults; the group and all below it."""
    stat = flat(folder, "memory.stat")
    dirty = [stat[name] for name in ("file_dirty", "file_writeback") if name in stat]
    return {
        "memory_bytes": number(folder, "memory.current"),
        "memory_peak_bytes": number(folder, "memory.peak"),
        "memory_max_bytes": number(folder, "memory.max"),
        "anon_bytes": stat.get("anon"),
        "file_bytes": stat.get("file"),
        "kernel_bytes": stat.get("kernel"),
        "dirty_bytes": sum(dirty) if dirty else None,
        "swap_bytes": number(folder, "memory.swap.current"),
        "major_faults": stat.get("pgmajfault"),
    }


def io(folder: str) -> dict[str, DeviceIo]:
    """Bytes and operations by device; what the page cache writes later counts for the group that made it dirty."""
    devices = {}
    for line in (read(folder, "io.stat") or "").splitlines():
        device, *pairs = line.split()
        values = {name: int(value) for name, _, value in (pair.partition("=") for pair in pairs) if value.isdigit()}
        devices[device] = DeviceIo(
            read_bytes=values.get("rbytes", 0),
            write_bytes=values.get("wbytes", 0),
            read_ops=values.get("rios", 0),
            write_ops=values.get("wios", 0),
        )
    return devices


def pids(folder: str) -> dict[str, int | None]:
    """Processes and threads now and at most (``pids.peak`` from Linux 6.6 on)."""
    return {"pids": number(folder, "pids.current"), "pids_peak": number(folder, "pids.peak")}


def events(folder: str) -> dict[str, int | None]:
    """How often a limit was met, by the group or any below it."""
    happened = flat(folder, "memory.events")
    return {
        "memory_max_hits": happened.get("max"),
        "memory_high_hits": happened.get("high"),
        "oom_kills": happened.get("oom_kill"),
        "pids_max_hits": flat(folder, "pids.events").get("max"),
    }


def pressure(folder: str) -> dict[str, Pressure]:
    """How long processes waited for CPU, memory and I/O (Linux: Documentation/accounting/psi.rst)."""
    found = {}
    for resource in _RESOURCES:
        lines = {}
        try:
            text = read(folder, f"{resource}.pressure") or ""
        except OSError:  # the kernel has the file, but pressure was switched off at boot (psi=0)
            continue
        for line in text.splitlines():
            kind, *pairs = line.split()
            lines[kind] = dict(pair.split("=", 1) for pair in pairs)
        if "some" in lines:
            some, full = lines["some"], lines.get("full", {})
            found[resource] = Pressure(int(some["total"]) / 1e6, int(full.get("total", 0)) / 1e6, float(some["avg10"]))
    return found
