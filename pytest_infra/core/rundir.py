"""Where a session keeps its files while it runs: below /run for root, below the user's own folder otherwise."""

from __future__ import annotations

import os
import stat
import tempfile

from .errors import InfraError
from .linux import in_child_user_namespace

__all__ = ["FOLDER_NAME", "outer_uid", "run_directories", "run_directory"]

FOLDER_NAME = "pytest-infra"


def outer_uid() -> int:
    """The user id of this process as the machine's first user namespace sees it (user_namespaces(7))."""
    uid = os.geteuid()
    try:
        with open("/proc/self/uid_map", encoding="ascii") as uid_map:
            for line in uid_map:
                inside, outside, length = (int(word) for word in line.split())
                if inside <= uid < inside + length:
                    return outside + uid - inside
    except OSError:
        pass
    return uid


def _candidates() -> list[str]:
    """The folders that this user's sessions may use, the preferred one first."""
    found = []
    if os.geteuid() == 0 and not in_child_user_namespace():
        found.append(f"/run/{FOLDER_NAME}")
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(os.path.join(runtime, FOLDER_NAME))
    return [*found, os.path.join(tempfile.gettempdir(), f"{FOLDER_NAME}-{outer_uid()}")]


def _is_ours(path: str) -> bool:
    """Whether it is a folder, no symbolic link, owned by this user, and writable by nobody else."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def run_directories() -> list[str]:
    """The folders that exist in which this user's sessions may have left something."""
    return [path for path in _candidates() if _is_ours(path)]


def run_directory() -> str:
    """The folder for this user's sessions, made if needed.

    ``/run/pytest-infra`` for root; otherwise ``$XDG_RUNTIME_DIR/pytest-infra`` (XDG Base Directory
    Specification), or where that cannot be used ``/tmp/pytest-infra-<user id>``.

    Raises:
        InfraError: none of them can be made, or somebody else owns them.
    """
    candidates = _candidates()
    for path in candidates:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except OSError:
            continue
        if _is_ours(path) and os.access(path, os.W_OK):
            return path
    raise InfraError(
        f"no folder for the session's files: {' and '.join(candidates)} cannot be made or are not ours alone"
    )
