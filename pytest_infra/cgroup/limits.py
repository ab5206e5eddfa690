"""`Limits`: what a group may use, as checked numbers; pure."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..core.errors import BadInput
from ..core.units import duration_s, rate_bps, size_bytes

__all__ = ["IoMax", "Limits", "device_number", "device_rule", "parse_limits"]

_NUMBER = re.compile(r"(\d+):(\d+)")
_RULE = re.compile(r"[abc] (\d+|\*):(\d+|\*) (?!.*(.).*\3)[rwm]{1,3}")
_CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_PAGE = re.compile(r"(1|2|4|8|16|32|64|128|256|512)[KMG]B")
_MOST_OPS = 2**32 - 2  # one more is what the kernel shows for "no limit" (block/blk-throttle.c)
_LEAST_QUOTA_S = 0.001  # the kernel takes no quota below 1 ms


@dataclass(frozen=True)
class IoMax:
    """The most that a group may read from and write to one device, each second.

    Args:
        read: ``"10 MiB/s"``, or a plain number of bit/s as everywhere in the project; None for no limit.
        write: the same for writing.
        read_ops: operations a second.
        write_ops: the same for writing.

    At least one is given: a device without a limit is not named at all, and the kernel takes 0 for "no limit".
    """

    read: str | float | None = None
    write: str | float | None = None
    read_ops: int | None = None
    write_ops: int | None = None

    def bytes_per_s(self) -> tuple[int | None, int | None]:
        """The limits for reading and writing in bytes a second.

        Raises:
            BadInput: one of them is no rate, or less than 1 byte a second.
        """
        return _bytes_per_s(self.read), _bytes_per_s(self.write)


def _bytes_per_s(rate: str | float | None) -> int | None:
    if rate is None:
        return None
    value = round(rate_bps(rate) / 8)
    if value < 1:
        raise BadInput(f"io_max: {rate!r} is less than 1 byte a second")
    if value >= 1 << 63:
        raise BadInput(f"io_max: {rate!r} is more than the kernel can count; give None for no limit")
    return value


@dataclass(frozen=True)
class Limits:
    """What a group may use; None leaves a thing as the kernel has it (unlimited, or what the parent has)."""

    cpu_max: float | None = None
    """CPUs: 0.5 is half of one CPU's time."""
    cpu_period_s: float = 0.1
    cpu_weight: int | None = None
    """1 to 10000; the kernel's default is 100."""
    cpuset: str | None = None
    """CPU numbers: ``"0-1,3"``."""
    memory_max: int | None = None
    memory_high: int | None = None
    swap_max: int | None = None
    pids_max: int | None = None
    io_max: tuple[tuple[str, IoMax], ...] = ()
    """By device number ``MAJOR:MINOR``."""
    devices: tuple[str, ...] | None = None
    """The only devices that may be used, as rules ``c 1:3 rw``."""
    hugetlb_max: tuple[tuple[str, int], ...] = ()
    """Bytes by page size: ``2MB``, ``1GB``."""
    net_classid: int | None = None


def device_number(device: str | os.PathLike[str]) -> str:
    """``MAJOR:MINOR`` of a block device: of its node, of the device that holds a folder or file, or as given.

    Raises:
        BadInput: it is no path, there is no such file, or a character device was given.
    """
    if not isinstance(device, str | os.PathLike):
        raise BadInput(f"io_max: {device!r} is no path; give a device, a path on it, or MAJOR:MINOR")
    text = os.fspath(device)
    if _NUMBER.fullmatch(text):
        return text
    try:
        status = os.stat(text)
    except OSError as error:
        raise BadInput(f"io_max: {text!r}: {error.strerror}; give a device, a path on it, or MAJOR:MINOR") from None
    if stat.S_ISCHR(status.st_mode):
        raise BadInput(f"io_max: {text!r} is a character device; only block devices can be limited")
    number = status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev
    if os.major(number) == 0:
        raise BadInput(f"io_max: {text!r} is on no block device (tmpfs, overlay, network); give a path on a disk")
    return f"{os.major(number)}:{os.minor(number)}"


def device_rule(text: str) -> str:
    """A rule of the devices controller: ``"/dev/null"``, ``"/dev/zero r"`` or ``"c 1:3 rwm"``.

    Raises:
        BadInput: no such device node, or an unknown access.
    """
    if isinstance(text, str) and _RULE.fullmatch(text):
        return text
    path, _, access = text.partition(" ") if isinstance(text, str) else ("", "", "")
    if not path.startswith("/") or not re.fullmatch(r"(?!.*(.).*\1)[rwm]{1,3}", access or "rwm"):
        raise BadInput(
            f"devices: {text!r} is no rule; write '/dev/null', '/dev/null r', or 'c 1:3 rw' (r, w, m: mknod)"
        )
    try:
        status = os.stat(path)
    except OSError as error:
        raise BadInput(f"devices: {path!r}: {error.strerror}") from None
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise BadInput(f"devices: {path!r} is no device node")
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
    return f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} {access or 'rwm'}"


def _rules(devices: Iterable[str]) -> tuple[str, ...]:
    if not isinstance(devices, Iterable):
        raise BadInput(f"devices {devices!r} is no list of device nodes; write ['/dev/null', '/dev/zero r']")
    return tuple(device_rule(rule) for rule in ([devices] if isinstance(devices, str) else devices))


def _io(io_max: Mapping[str, IoMax]) -> Iterator[tuple[str, IoMax]]:
    if not isinstance(io_max, Mapping):
        raise BadInput(f"io_max {io_max!r} names no devices; write {{'/srv': IoMax(write='10 MiB/s')}}")
    for device, most in io_max.items():
        if not isinstance(most, IoMax):
            raise BadInput(f"io_max[{device!r}] is {most!r}; write IoMax(read='10 MiB/s', write='10 MiB/s')")
        if most == IoMax():
            raise BadInput(f"io_max[{device!r}] limits nothing; give at least one of read, write, read_ops, write_ops")
        most.bytes_per_s()
        for name in ("read_ops", "write_ops"):
            _whole(f"io_max: {name}", getattr(most, name), 1, _MOST_OPS)
        yield device_number(device), most


def _huge_pages(hugetlb_max: Mapping[str, str | float]) -> Iterator[tuple[str, int]]:
    if not isinstance(hugetlb_max, Mapping):
        raise BadInput(f"hugetlb_max {hugetlb_max!r} names no sizes of pages; write {{'2MB': '64 MiB'}}")
    for page, most in hugetlb_max.items():
        if not isinstance(page, str) or not _PAGE.fullmatch(page):
            raise BadInput(
                f"hugetlb_max: {page!r} is no size of huge pages; give a power of two from 1 to 512 with KB, MB or "
                "GB: '2MB', '1GB'"
            )
        yield page, _size(f"hugetlb_max[{page}]", most) or 0


def _whole(name: str, value: int | None, low: int, high: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadInput(f"{name} {value!r} is not allowed; give a whole number from {low} to {high}")
    return value


def _size(name: str, value: str | float | None, least: int = 0) -> int | None:
    if value is None:
        return None
    try:
        size = size_bytes(value)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None
    if size < least:
        raise BadInput(f"{name} {value!r} is less than one page ({least} bytes)")
    return size


def _cpus(value: str | Iterable[int] | None) -> str | None:
    if value is None:
        return None
    cpus = value if isinstance(value, Iterable) else ()
    text = cpus if isinstance(cpus, str) else ",".join(str(cpu) for cpu in cpus)
    if not _CPUS.fullmatch(text):
        raise BadInput(f"cpuset {value!r} is no list of CPUs; write '0-1,3' or [0, 1, 3]")
    return text


def _cpu_time(cpu_max: float | None, period: str | float) -> tuple[float | None, float]:
    period_s = duration_s(period)
    if not 0.001 <= period_s <= 1:
        raise BadInput(f"cpu_period {period!r} is not allowed; give 1 ms to 1 s (cgroup v2: cpu.max)")
    if cpu_max is None:
        return None, period_s
    known = isinstance(cpu_max, int | float) and not isinstance(cpu_max, bool)
    if not known or not cpu_max * period_s >= _LEAST_QUOTA_S or cpu_max > 100_000:
        least = f"at least {_LEAST_QUOTA_S / period_s:g}" if known else "such as 0.5 (half of one CPU)"
        raise BadInput(f"cpu_max {cpu_max!r} is not allowed; give a number of CPUs, {least}: 1 ms in each period")
    return float(cpu_max), period_s


def parse_limits(
    *,
    cpu_max: float | None = None,
    cpu_period: str | float = 0.1,
    cpu_weight: int | None = None,
    cpuset: str | Iterable[int] | None = None,
    memory_max: str | float | None = None,
    memory_high: str | float | None = None,
    swap_max: str | float | None = None,
    pids_max: int | None = None,
    io_max: Mapping[str, IoMax] | None = None,
    devices: Iterable[str] | None = None,
    hugetlb_max: Mapping[str, str | float] | None = None,
    net_classid: int | None = None,
) -> Limits:
    """Check the limits and work out their numbers.

    Args:
        cpu_max: CPUs, from the quota and period of the fair scheduler: 0.5 is half of one CPU's time.
        cpu_period: the period of that quota, 1 ms to 1 s.
        cpu_weight: the share against other groups when the CPU is busy, 1 to 10000, 100 by default.
        cpuset: the CPUs to run on, ``"0-1,3"`` or numbers.
        memory_max: bytes; above it the kernel reclaims, and then kills (out of memory).
        memory_high: bytes above which the group is slowed down and reclaimed, but not killed.
        swap_max: bytes of swap; 0 where `memory_max` is given, so that memory does not merely move to swap.
        pids_max: processes and threads.
        io_max: what may be read and written each second, by block device, path on it, or ``MAJOR:MINOR``.
        devices: the only device nodes that may be opened or made: ``"/dev/null"``, ``"/dev/zero r"``, ``"c 1:3 rw"``.
        hugetlb_max: bytes of huge pages by page size: ``{"2MB": "64 MiB"}``.
        net_classid: the class that tc(8) and nft(8) see on the group's packets, 0 to 4294967295.

    Raises:
        BadInput: a value that cannot be; the message says what is allowed.
    """
    cpus, period_s = _cpu_time(cpu_max, cpu_period)
    return Limits(
        cpu_max=cpus,
        cpu_period_s=period_s,
        cpu_weight=_whole("cpu_weight", cpu_weight, 1, 10_000),
        cpuset=_cpus(cpuset),
        memory_max=_size("memory_max", memory_max, os.sysconf("SC_PAGE_SIZE")),
        memory_high=_size("memory_high", memory_high, os.sysconf("SC_PAGE_SIZE")),
        swap_max=_size("swap_max", swap_max),
        pids_max=_whole("pids_max", pids_max, 1, 4_194_304),
        io_max=tuple(dict(_io(io_max or {})).items()),
        devices=None if devices is None else _rules(devices),
        hugetlb_max=tuple(_huge_pages(hugetlb_max or {})),
        net_classid=_whole("net_classid", net_classid, 0, 2**32 - 1),
    )
