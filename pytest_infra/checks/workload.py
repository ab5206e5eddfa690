"""Calibrated workloads: commands that use exactly what they say, to hold limits and accounting against.

Each function returns an argument list for `run` or `spawn` of a group or node.

    done = group.run(workload.burn("1 s"))
    assert_accounted(group, cpu_s=workload.result(done)["cpu_s"])

The program is one file of plain Python, run by this interpreter: a node needs it in its file system.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Literal

from ..core.errors import BadInput
from ..core.process import Completed, Process
from ..core.units import size_bytes
from . import workload_main
from .arguments import seconds

__all__ = ["burn", "fork", "open_device", "read", "result", "spin", "touch", "write"]

_DIRECT_UNIT = 4096


def _argv(*words: object) -> list[str]:
    return [sys.executable, "-I", "-S", workload_main.__file__, *(str(word) for word in words)]


def _count(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{name} {value!r} is not allowed; give a whole number from 1 up")
    return value


def _size(value: str | float) -> int:
    size = size_bytes(value)
    if size < 1:
        raise BadInput(f"size {value!r} is not allowed; give at least 1 byte")
    return size


def burn(cpu_s: str | float, *, processes: int = 1, cpu: int | None = None) -> list[str]:
    """Use this much CPU time, by the process's own clock, its start included.

    Args:
        cpu_s: seconds of CPU time of each process.
        processes: how many at once.
        cpu: the CPU to run on; any by default.

    Its result: ``cpu_s``, the CPU time of all of them.
    """
    return _argv("burn", seconds("cpu_s", cpu_s), _count("processes", processes), "any" if cpu is None else cpu)


def spin(wall_s: str | float, *, processes: int = 1, cpu: int | None = None) -> list[str]:
    """Use as much CPU time as can be had, for this much wall time; it prints ``spinning`` when it begins.

    Args:
        wall_s: seconds of wall time.
        processes: how many at once.
        cpu: the CPU to run on; any by default.

    Its result: ``cpu_s`` of all processes, and ``wall_s``.
    """
    return _argv("spin", seconds("wall_s", wall_s), _count("processes", processes), "any" if cpu is None else cpu)


def touch(size: str | float, *, hold: bool = False) -> list[str]:
    """Write to every page of this much new memory.

    Args:
        size: bytes.
        hold: whether to keep it until the process is killed; the result is printed before.

    Its result: ``touched_bytes``, in whole pages, and ``base_bytes``, what the process had before.
    """
    return _argv("touch", _size(size), "hold" if hold else "end")


def write(
    path: str | os.PathLike[str], size: str | float, *, how: Literal["direct", "sync", "buffered"] = "direct"
) -> list[str]:
    """Write this much to a file.

    Args:
        path: a file on a real device; it is made if needed.
        size: bytes; with ``direct`` a multiple of 4096.
        how: past the page cache (``direct``, O_DIRECT of open(2)); through it, and synced (``sync``); or only into it.

    Its result: ``written_bytes`` and ``wall_s``.
    """
    count = _size(size)
    if how not in ("direct", "sync", "buffered"):
        raise BadInput(f"how {how!r} is not allowed; give 'direct', 'sync' or 'buffered'")
    if how == "direct" and count % _DIRECT_UNIT:
        raise BadInput(f"size {size!r}: a direct write is a multiple of {_DIRECT_UNIT} bytes")
    return _argv("write", os.fspath(path), count, how)


def read(path: str | os.PathLike[str], size: str | float) -> list[str]:
    """Read this much from a file or block device, past the page cache.

    Its result: ``read_bytes`` and ``wall_s``.
    """
    count = _size(size)
    if count % _DIRECT_UNIT:
        raise BadInput(f"size {size!r}: a direct read is a multiple of {_DIRECT_UNIT} bytes")
    return _argv("read", os.fspath(path), count)


def fork(count: int, *, hold: bool = False) -> list[str]:
    """Make this many processes beside the first one.

    Its result: ``forked``, how many came to be, and ``errno``, why no more did (None when all did).
    """
    return _argv("fork", _count("count", count), "hold" if hold else "end")


def open_device(path: str | os.PathLike[str], access: Literal["r", "w", "rw"] = "rw") -> list[str]:
    """Open a device node.

    Its result: ``denied``, and ``errno`` (None when it could be opened).
    """
    if access not in ("r", "w", "rw"):
        raise BadInput(f"access {access!r} is not allowed; give 'r', 'w' or 'rw'")
    return _argv("open_device", os.fspath(path), access)


def result(done: Completed | Process) -> dict[str, Any]:
    """What a workload says that it did.

    Raises:
        BadInput: the command's output is no workload's.
    """
    import json

    try:
        facts = json.loads(done.stdout.removeprefix("spinning\n"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise BadInput(f"the output is not that of a workload that has done its task: {done.stdout[:200]!r}")
    return facts
