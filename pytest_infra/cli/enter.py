"""``pytest-infra shell``: a shell, or a command, in a node's namespaces."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ..core import linux
from ..core.errors import BadInput, InfraError

__all__ = ["run_inside"]

_ORDER = ("time", "cgroup", "ipc", "uts", "net", "pid", "mnt")


def run_inside(name: str, session_pid: int, namespaces: Mapping[str, str], command: Sequence[str]) -> int:
    """Move this process into a node's namespaces, and run the command there, or a shell; returns its exit status."""
    folder = os.getcwd()
    _enter(session_pid, namespaces)
    with suppress(OSError):  # a mount namespace is entered at its root; the node may not have this folder
        os.chdir(folder)
    env = dict(os.environ)
    if command:
        return _call(command, env)
    shell = os.environ.get("SHELL") or "/bin/sh"
    if os.path.basename(shell) == "bash":
        env["PS1"] = f"[{name}] \\w \\$ "
        return _call([shell, "--norc", "-i"], env)
    env["PS1"] = f"[{name}] $ "
    return _call([shell, "-i"], env)


def _call(argv: Sequence[str], env: Mapping[str, str]) -> int:
    try:
        return subprocess.call(argv, env=env)
    except FileNotFoundError:
        raise BadInput(f"no program {argv[0]!r} there") from None


def _enter(session_pid: int, namespaces: Mapping[str, str]) -> None:
    """Move this process into a node's namespaces.

    The right to enter may come from the session's user namespace, or from the node's own, and going into a user
    namespace may also take it away: so each namespace is entered as soon as that is allowed.
    """
    try:
        pending = [_open(namespaces[kind]) for kind in _ORDER if kind in namespaces]
        users = [path for path in (f"/proc/{session_pid}/ns/user", namespaces.get("user")) if path]
        ways = [_open(path) for path in users if os.stat(path).st_ino != os.stat("/proc/self/ns/user").st_ino]
        for way in (None, *ways):
            if way is not None:
                linux.setns(way, linux.CLONE_NEWUSER)
            pending = [fd for fd in pending if not _try_to_enter(fd)]
        if pending:
            raise PermissionError("not allowed")
    except OSError as error:
        raise InfraError(f"cannot enter the node: {error} (run it as the user whose session it is)") from error


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _try_to_enter(fd: int) -> bool:
    try:
        linux.setns(fd)
    except PermissionError:
        return False
    return True
