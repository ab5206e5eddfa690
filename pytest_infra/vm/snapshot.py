"""Snapshots: the state of guests that are ready and have nothing special yet, so that the next one need not boot.

They are made before anything is mounted or plugged in; QEMU cannot save a guest that uses the machine's files.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..core.errors import InfraError, WaitTimeout
from ..core.wait import until
from .emulator import Emulator
from .qemu import Machine
from .qmp import Qmp
from .requirement import QEMU, cache_directory, mark_used

__all__ = ["finished_migration", "locked", "prune", "restore_from", "save", "snapshot_path"]

_MOST_KEPT = {"snapshots": 8, "initramfs": 8, "vmlinux": 6}
_SAVE_S = 120.0
_BANDWIDTH = 1 << 33


def snapshot_path(machine: Machine) -> str:
    """Where the snapshot of such guests is, or will be."""
    qemu = os.stat(QEMU.path())
    files = [os.stat(path) for path in (machine.kernel, machine.initrd)]
    stamps = [(status.st_size, status.st_mtime_ns) for status in (qemu, *files)]
    key = hashlib.sha256(repr((machine.identity(), stamps, os.uname().machine)).encode()).hexdigest()[:20]
    return os.path.join(cache_directory("snapshots"), key)


def restore_from(path: str) -> str:
    """What QEMU is told to start from a snapshot; it runs the command itself."""
    mark_used(path)
    return f"exec:cat {shlex.quote(path)}"


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Be the only one who makes this file."""
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def finished_migration(qmp: Qmp) -> dict[str, Any]:
    """What QEMU reports of a migration that has ended; nothing while it goes on."""
    state: dict[str, Any] = qmp.ask("query-migrate")
    return state if state.get("status") in ("completed", "failed", "cancelled") else {}


def save(emulator: Emulator, path: str) -> bool:
    """Write the state of a guest to a file and let it go on; whether that worked out (a full disk is no error)."""
    part = f"{path}.{os.getpid()}"
    qmp = emulator.qmp
    try:
        qmp.ask("migrate-set-parameters", max_bandwidth=_BANDWIDTH)
        qmp.ask("migrate", uri=f"exec:cat > {shlex.quote(part)}")
        state = until(lambda: finished_migration(qmp), within_s=_SAVE_S, what="a snapshot")
        if state["status"] == "completed":
            os.replace(part, path)
            return True
    except (InfraError, OSError) as error:
        if not isinstance(error, WaitTimeout | OSError):
            raise
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
        qmp.ask("cont")
    return False


def prune() -> None:
    """Delete the snapshots and images that were used the longest ago, so that the cache does not grow for ever."""
    for kind, most in _MOST_KEPT.items():
        folder = cache_directory(kind)
        files = [entry for entry in os.scandir(folder) if not entry.name.endswith(".lock")]
        for entry in sorted(files, key=_last_use_s)[:-most]:
            with suppress(OSError):
                os.unlink(entry.path)


def _last_use_s(entry: os.DirEntry[str]) -> float:
    """When a file was used last; 0 where another process has deleted it meanwhile."""
    try:
        return entry.stat().st_atime
    except FileNotFoundError:
        return 0.0
