"""Machine-wide counted locks: for what two tests on one machine must not use at once (a GPU, hugepages, a quiet CPU).

The kernel frees a lock when its holder dies (flock(2)). The files are never removed: a lock on a file that
somebody unlinks guards nothing.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .errors import BadInput
from .wait import until

__all__ = ["exclusive", "lock_directory"]


def lock_directory() -> str:
    """The folder of the lock files, shared by all users: ``/run/lock/pytest-infra``, or one in the temporary folder."""
    for parent in ("/run/lock", tempfile.gettempdir()):
        path = os.path.join(parent, "pytest-infra" if parent == "/run/lock" else "pytest-infra-locks")
        try:
            os.mkdir(path)
            os.chmod(path, 0o777)  # noqa: S103  # beyond the umask: every user may add a lock
        except FileExistsError:
            pass
        except OSError:
            continue
        if os.access(path, os.R_OK | os.W_OK | os.X_OK) and not os.path.islink(path):
            return path
    raise BadInput(f"no folder for lock files: neither /run/lock nor {tempfile.gettempdir()} can be written")


@contextmanager
def exclusive(name: str, count: int = 1, of: int | None = None, timeout_s: float = 600.0) -> Iterator[tuple[int, ...]]:
    """Hold `count` of the machine's `of` things called `name`; yields their numbers, from 0.

    Whoever asks first is served first: a large request is not overtaken for ever by small ones. All who use one name
    must agree on `of`.

    Args:
        name: letters, digits, ``-``, ``_`` and ``.``.
        count: how many to hold.
        of: how many there are; by default `count`, so that nobody else has one meanwhile.
        timeout_s: seconds to wait at most.

    Raises:
        BadInput: a name or numbers that cannot be.
        WaitTimeout: they were not free in time; the message says which process has them.
    """
    total = count if of is None else of
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise BadInput(f"a lock's name is made of letters, digits, '-', '_' and '.', not {name!r}")
    if not 1 <= count <= total:
        raise BadInput(f"cannot hold {count} of {total} {name}: from 1 to {total} can be asked for")
    folder = lock_directory()
    files = [os.path.join(folder, f"{name}.{number}.lock") for number in range(total)]
    held: list[int] = []
    with ExitStack() as stack:
        with ExitStack() as queue:
            gate = os.path.join(folder, f"{name}.queue.lock")
            words = f"{count} of {total} {name} on this machine"
            until(
                lambda: _take(gate, queue),
                within_s=timeout_s,
                what=words,
                last_words=lambda: f"others wait for it too: {_holders([gate])}",
            )

            def take() -> bool:
                for number, path in enumerate(files):
                    if len(held) < count and number not in held and _take(path, stack):
                        held.append(number)
                return len(held) == count

            until(take, within_s=timeout_s, what=words, last_words=lambda: f"held by {_holders(files)}")
        yield tuple(sorted(held))


def _take(path: str, stack: ExitStack) -> bool:
    """Take one lock file's lock if it is free, to be given back by `stack`."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    stack.callback(lock.release)
    return True


def _holders(paths: list[str]) -> str:
    """Who holds these locks, from the kernel's list of them (proc_locks(5)): process numbers and command lines."""
    inodes = {os.stat(path).st_ino for path in paths if os.path.exists(path)}
    found = {}
    with open("/proc/locks", encoding="ascii") as table:
        for line in table:
            words = line.split()
            if words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) in inodes:
                found[int(words[4])] = _command(int(words[4]))
    texts = [f"process {pid} ({command})" for pid, command in sorted(found.items())]
    return ", ".join(texts) or "a process not seen here"


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return "another user's or container's"
