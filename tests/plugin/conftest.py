"""What the tests of the plugin share: running pytest as an ordinary user, where the tests may be root's."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_infra.core.wait import until

UID = 54321  # nobody's: no entry in /etc/passwd is needed

_REPOSITORY = Path(__file__).resolve().parents[2]


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


@dataclass(frozen=True)
class OrdinaryUser:
    """Runs commands in a folder as a user without any privilege; Python may be in root's home."""

    folder: Path

    def argv(self, argv: Sequence[str], before: str = "") -> list[str]:
        """The argument list that runs `argv`; root runs the shell commands `before` first, in the private mounts."""
        if os.geteuid() != 0:
            return list(argv)
        for folder, _, files in os.walk(self.folder):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.chown(path, UID, UID)
        user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all"]
        script = [
            _opening_script(),
            before,
            f"cd {shlex.quote(str(self.folder))}",
            f"exec {shlex.join([*user, *argv])}",
        ]
        return ["unshare", "--mount", "--propagation=private", "sh", "-c", "\n".join(script)]

    def env(self) -> dict[str, str]:
        """The environment that the user would have."""
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "PYTEST_"))}
        return {**keep, "HOME": str(self.folder), "USER": "ordinary", "LOGNAME": "ordinary"}

    def run(self, *argv: str, before: str = "", timeout_s: float = 100) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        options: dict[str, Any] = {"cwd": "/", "env": self.env(), "capture_output": True, "text": True}
        return subprocess.run(self.argv(argv, before), timeout=timeout_s, check=False, **options)

    def in_user_namespace(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """As root, run `argv` in a user namespace that has every user, so that its settings can be changed."""
        command = ["unshare", "--user", "--keep-caps", "sh", "-c", 'read go; exec "$@"', "sh", *argv]
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with subprocess.Popen(command, **pipes, text=True, env=self.env(), cwd="/") as process:
            mine, theirs = (f"/proc/{pid}/ns/user" for pid in ("self", process.pid))
            until(lambda: os.readlink(mine) != os.readlink(theirs), within_s=10, what="a user namespace")
            for kind in ("uid", "gid"):
                Path(f"/proc/{process.pid}/{kind}_map").write_text("0 0 4294967295")
            output, error = process.communicate("go\n", timeout=100)
        return subprocess.CompletedProcess(argv, process.returncode, output, error)

    def pytest(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run pytest to its end."""
        return self.run(sys.executable, "-m", "pytest", *arguments, **options)


@pytest.fixture
def ordinary_user() -> Iterator[OrdinaryUser]:
    """A user without privilege who owns a folder of the test's own."""
    with tempfile.TemporaryDirectory(prefix="ordinary-user-") as folder:
        yield OrdinaryUser(Path(folder))
