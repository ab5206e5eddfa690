"""Undoing what dead sessions left: reads their ledgers and clears each entry, exactly and as often as one likes.

A session's folder is its *lease*. The session holds a lock on the folder (flock(2)), which the kernel frees when the
session dies; so a folder whose lock is free is dead. The ledger in it lists what was about to be made, one
JSON object a line, and what has been undone since.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from .errors import InfraError, WaitTimeout
from .rundir import run_directories
from .wait import until

__all__ = [
    "KINDS",
    "LEDGER",
    "SESSION",
    "LeaseState",
    "Swept",
    "clear",
    "dead",
    "leases",
    "lock_folder",
    "main",
    "outstanding",
    "remove_directory",
    "remove_file",
    "sweep",
]

LEDGER, SESSION = "ledger", "session.json"

KINDS: Mapping[str, str] = {
    "cgroup": "pytest_infra.cgroup.processes:remove_group",
    "directory": "pytest_infra.core.sweep:remove_directory",
    "docker": "pytest_infra.container.clean:remove_session",
    "docker-groups": "pytest_infra.container.dockerd:remove_groups",
    "file": "pytest_infra.core.sweep:remove_file",
    "hugepages": "pytest_infra.dpdk.hugepages:give_back",
    "ksm": "pytest_infra.vm.ksm:put_back",
    "uplink": "pytest_infra.net.masquerade:forget",
}
"""What a ledger may hold: each kind of thing, and the function that undoes one, as ``module:function``.

The function gets the entry's facts as keyword arguments; it must do nothing where the thing is gone already.
"""


@dataclass
class Swept:
    """What a sweep did with one dead lease."""

    folder: str
    undone: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LeaseState:
    """A lease as the machine has it now."""

    folder: str
    alive: bool
    session: Mapping[str, Any]
    """Whose it is: ``pid``, ``argv``, ``started`` (seconds since 1970)."""
    labs: Mapping[str, Mapping[str, Any]]
    """The labs that are up, by name, as they were published."""


def remove_file(path: str) -> None:
    """Remove a file; it may be gone."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def remove_directory(path: str) -> None:
    """Remove a folder and what is in it; it may be gone.

    Raises:
        InfraError: something is mounted in it, so that the removal would go beyond it.
        OSError: it could not be removed.
    """
    below = os.path.join(os.path.realpath(os.fsencode(path)), b"")
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            target = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4])  # proc(5)
            if os.path.join(target, b"").startswith(below):
                name = os.fsdecode(target)
                raise InfraError(f"{path} is not removed: {name} is a mount point (umount {name})")
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        if os.path.lexists(path):
            raise


def lock_folder(folder: str, wait: bool = False) -> int | None:
    """Take the lock on a folder; returns the descriptor that holds it, or None where somebody has it or it is gone."""
    import fcntl

    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return fd


@contextmanager
def dead(folder: str) -> Iterator[bool]:
    """Hold the lock of a dead lease, or learn (False) that it is alive, gone, or being cleared by somebody else.

    The lock on the folder above it keeps out a session that has made its folder and not locked it yet.
    """
    base = lock_folder(os.path.dirname(folder), wait=True)
    try:
        fd = lock_folder(folder)
    finally:
        if base is not None:
            os.close(base)
    try:
        yield fd is not None and os.path.isdir(folder)
    finally:
        if fd is not None:
            os.close(fd)


def outstanding(folder: str) -> list[dict[str, Any]]:
    """The entries of a lease's ledger that have not been undone, the latest first; labs are entries with a ``lab``."""
    import json

    entries: dict[int, dict[str, Any]] = {}
    try:
        with open(os.path.join(folder, LEDGER), encoding="utf-8", errors="replace") as ledger:
            lines = ledger.read().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            item = json.loads(line)
        except ValueError:  # the session died while it wrote this line, so nothing was made for it
            continue
        if not isinstance(item, dict):
            continue
        if isinstance(done := item.get("done"), int):
            entries.pop(done, None)
        if isinstance(item.get("entry"), int) and isinstance(item.get("facts"), dict):
            entries[item["entry"]] = item
    return [entries[number] for number in sorted(entries, reverse=True)]


def _undo(item: Mapping[str, Any]) -> None:
    from importlib import import_module

    if item["kind"] not in KINDS:
        raise InfraError(f"unknown kind {item['kind']!r}: a newer version of pytest-infra made it")
    module, _, function = KINDS[item["kind"]].partition(":")
    getattr(import_module(module), function)(**item["facts"])


def clear(folder: str, within_s: float = 3.0) -> Swept:
    """Undo what a ledger lists, the latest first, then remove the lease's folder. The caller holds its lock.

    Dying processes may still be writing; what fails is tried again for `within_s` seconds and reported after that.
    """
    swept = Swept(folder)

    def attempt(item: Mapping[str, Any] | None) -> bool:
        swept.errors.clear()
        try:
            if item is None:
                remove_directory(folder)
            else:
                _undo(item)
        except (OSError, InfraError, TypeError) as error:  # TypeError: facts that no version of it takes
            swept.errors.append(str(error))
            return False
        return True

    failed: list[str] = []
    for item in [*(item for item in outstanding(folder) if "kind" in item), None]:
        if item is None and failed:
            break
        try:
            until(lambda item=item: attempt(item), within_s=within_s, what="clean-up")  # type: ignore[misc]
        except WaitTimeout:
            failed += swept.errors
        else:
            swept.undone += [f"{item['kind']} {item['facts']}"] if item else []
    swept.errors[:] = failed
    with suppress(OSError):  # other sessions may be in there
        os.rmdir(os.path.dirname(folder))
    return swept


def sweep(bases: Sequence[str] | None = None, within_s: float = 3.0) -> list[Swept]:
    """Undo what dead sessions of this user left; a live one is never touched.

    Safe to run at any time, in several processes at once: whoever gets a dead lease's lock clears it.

    Args:
        bases: the run directories to look in; by default all of this user's.
        within_s: seconds to keep trying, for each thing that cannot be undone at once.
    """
    done = []
    for folder in _folders(bases):
        with dead(folder) as mine:
            if mine:
                done.append(clear(folder, within_s))
    return done


def _folders(bases: Sequence[str] | None) -> list[str]:
    bases = run_directories() if bases is None else bases
    paths = [os.path.join(base, name) for base in bases for name in _names(base)]
    return [path for path in paths if os.path.isdir(path)]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _read_json(path: str) -> dict[str, Any]:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def leases(bases: Sequence[str] | None = None) -> list[LeaseState]:
    """The leases of this user's sessions, live and dead, with the labs that each has published."""
    return [_state(folder) for folder in _folders(bases)]


def _state(folder: str) -> LeaseState:
    with dead(folder) as is_dead:
        alive = not is_dead
    labs = {item["lab"]: item["facts"] for item in reversed(outstanding(folder)) if "lab" in item}
    return LeaseState(folder, alive, _read_json(os.path.join(folder, SESSION)), labs)


def main(arguments: Sequence[str]) -> int:
    """Clear a lease whose session has just died: what its reaper runs. The exit status is 0 when all went."""
    (folder,) = arguments
    errors: list[str] = []

    def attempt() -> bool:
        with dead(folder) as mine:
            if mine:
                errors.extend(clear(folder).errors)
        return bool(errors) or not os.path.isdir(folder)

    until(attempt, within_s=10.0, what=f"the end of the session of {folder}")
    return 1 if errors else 0
