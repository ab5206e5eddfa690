"""Runs commands as an ordinary user, on a machine where the tests may be root's and Python may be in root's home."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

UID = 54321  # nobody's: no entry in /etc/passwd is needed

_REPOSITORY = Path(__file__).resolve().parents[1]


def _closed_ancestor(path: Path) -> Path | None:
    """The outermost folder above `path` that others may not enter."""
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & 0o001:
            return parent
    return None


def _opening_script() -> str:
    """Shell commands that make Python and this repository reachable, in a private mount namespace."""
    lines = ["set -e", "stage=$(mktemp -d)", "mount -t tmpfs tmpfs $stage"]
    closed = {}
    for number, path in enumerate({Path(sys.prefix), Path(sys.base_prefix), _REPOSITORY}):
        if ancestor := _closed_ancestor(path):
            closed[number] = (ancestor, path)
            lines += [f"mkdir $stage/{number}", f"mount --bind {shlex.quote(str(path))} $stage/{number}"]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(a))}" for a in {a for a, _ in closed.values()}]
    for number, (_, path) in closed.items():
        quoted = shlex.quote(str(path))
        lines += [f"mkdir -p {quoted}", f"mount --move $stage/{number} {quoted}"]
    return "\n".join([*lines, "umount -l $stage", "rmdir $stage"])


def as_user(argv: Sequence[str], cwd: str | os.PathLike[str], before: str = "") -> list[str]:
    """The argument list that runs `argv` in `cwd` as an ordinary user: another one if root runs the tests.

    Args:
        argv: the command.
        cwd: the folder, which the user then owns.
        before: shell commands that root runs first, in the private mount namespace.
    """
    if os.geteuid() != 0:
        return list(argv)
    for folder, _, files in os.walk(cwd):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, UID, UID)
    user = [
        "setpriv",
        f"--reuid={UID}",
        f"--regid={UID}",
        "--clear-groups",
        "--inh-caps=-all",
        "env",
        "-u",
        "XDG_RUNTIME_DIR",
    ]
    script = f"{_opening_script()}\n{before}\ncd {shlex.quote(os.fspath(cwd))}\nexec {shlex.join([*user, *argv])}"
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", script]


def run_as_user(
    argv: Sequence[str], cwd: str | os.PathLike[str], before: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as an ordinary user to its end."""
    return subprocess.run(
        as_user(argv, cwd, before),
        cwd=cwd,
        env={**os.environ, "HOME": os.fspath(cwd), **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
