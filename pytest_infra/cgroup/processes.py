"""The processes of control groups: who is in, joining, and the end of all of them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..core.errors import BadInput, InfraError, StartFailed
from ..core.wait import until
from .files import read, write
from .layout import folders_of

if TYPE_CHECKING:
    import subprocess

    from ..core.process import Popen

__all__ = ["home_of", "join", "joining", "kill_all", "leave", "pids_in", "remove_group"]

_STOPPED = 'kill -STOP $$; exec "$@"'
# A shell that stops before it becomes the command: so the command is in its groups from its first instruction on,
# and no code of ours runs between fork and exec in a process with threads.
_NO_FOLDERS = 2  # what a folder without folders in it has for a count of links


def _tree(folder: str) -> list[str]:
    """The folder and all below it, the deepest first."""
    if os.stat(folder).st_nlink == _NO_FOLDERS:
        return [folder]
    return [path for path, _, _ in os.walk(folder, topdown=False)]


def pids_in(folders: Iterable[str], *, below: bool = True) -> set[int]:
    """The processes in these groups, and in all below them unless told otherwise, as this process sees them."""
    found = set()
    for top in dict.fromkeys(folders):
        with suppress(OSError):  # it went away meanwhile
            for folder in _tree(top) if below else [top]:
                found |= {int(pid) for pid in (read(folder, "cgroup.procs") or "").split()}
    return found


def join(pid: int, folders: Iterable[str]) -> None:
    """Move a process with all its threads into these groups.

    Raises:
        StartFailed: the kernel refuses it; the text says where and why.
    """
    for folder in dict.fromkeys(folders):
        try:
            write(folder, "cgroup.procs", str(pid))
        except OSError as error:
            raise StartFailed(f"process {pid} could not join {folder}: {error.strerror}") from error


def home_of(pid: int, groups: Iterable[str]) -> list[str]:
    """The groups that a process is in now, of the controllers `groups`.

    Raises:
        BadInput: it is no process id, or that of this process, which would be killed with the group.
        StartFailed: there is no such process.
    """
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1:
        raise BadInput(f"{pid!r} is no process id; give a number above 0")
    if pid == os.getpid():
        raise BadInput(f"process {pid} is the test's own, and joins no group; run a command in it: group.run(…)")
    try:
        found = folders_of(pid)
    except ProcessLookupError:
        raise StartFailed(f"process {pid} could not join: there is none") from None
    return [found[group] for group in groups if group in found]


def leave(pid: int, folders: Iterable[str], home: Iterable[str]) -> None:
    """Move a process back to its earlier groups, if it is in these still; it may end meanwhile."""
    if pid in pids_in(folders):
        with suppress(StartFailed):
            join(pid, home)


def joining(popen: Popen, folders: Callable[[], Sequence[str]]) -> Popen:
    """A way to start processes, as `popen` does, that are in these groups before they become the command.

    Args:
        popen: starts a process that is a child of this one.
        folders: the groups, asked for at each start.
    """

    def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        where = folders()
        path = (options.get("env") or os.environ).get("PATH")
        if shutil.which(argv[0], path=path) is None:
            raise FileNotFoundError(argv[0])
        child = popen(["/bin/sh", "-c", _STOPPED, "sh", *argv], **options)
        try:
            ended = os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if ended is not None and ended.si_code == os.CLD_STOPPED:
                join(child.pid, where)
                os.kill(child.pid, signal.SIGCONT)
        except BaseException:
            child.kill()
            child.wait()
            raise
        return child

    return start


def _end_processes(folders: Sequence[str]) -> bool:
    """Kill whatever is in there; True when nobody is left."""
    for folder in folders:
        with suppress(FileNotFoundError, PermissionError):
            write(folder, "cgroup.kill", "1")  # version 2 (Linux 5.14): the whole tree at once, forks included
    pids = pids_in(folders)
    for pid in pids - {0}:  # 0: a process that this one cannot see
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not pids


def kill_all(folders: Sequence[str], within_s: float = 5.0) -> None:
    """SIGKILL to every process in these groups and below, until there is none; frozen ones are thawed for it.

    Raises:
        WaitTimeout: some did not end; the text names them.
    """
    if not pids_in(folders):
        return
    for top in folders:
        for folder in _tree(top):
            for name, text in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                with suppress(OSError):
                    write(folder, name, text)
    until(
        lambda: _end_processes(folders),
        within_s=within_s,
        what=f"the end of the processes in {folders[0]}",
        last_words=lambda: f"still there: {', '.join(map(str, sorted(pids_in(folders))))}",
    )


def remove_group(folders: Sequence[str]) -> None:
    """Kill the processes in these groups and below, and remove the folders; they may be gone already.

    Raises:
        OSError: a folder could not be removed yet; trying again is safe.
        InfraError: a path that is no control group.
    """
    left = [folder for folder in folders if os.path.isdir(folder) and not _removed(folder)]
    if left:
        kill_all(left)
    for top in left:
        for folder in _tree(top):
            with suppress(FileNotFoundError):
                os.rmdir(folder)


def _removed(folder: str) -> bool:
    """Remove a group's folder, if there is nothing in it."""
    at_top = os.stat(folder).st_dev != os.stat(os.path.dirname(folder)).st_dev
    if at_top or not os.path.exists(os.path.join(folder, "cgroup.procs")):
        raise InfraError(f"{folder} is not removed: it is no control group below a hierarchy's root")
    try:
        os.rmdir(folder)
    except OSError:
        return False
    return True
