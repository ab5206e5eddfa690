"""`RootedHost`: a host with a root file system of its own, made of layers (overlayfs)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..core.errors import BadInput, StartFailed, Unavailable
from ..core.linux import in_child_user_namespace
from ..core.process import Completed, Process
from .isolated import IsolatedHost

__all__ = ["RootedHost", "check_layers"]


def check_layers(rootfs: str | os.PathLike[str] | None, layers: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """The folders of a root file system, the top one first.

    Raises:
        BadInput: one is not there, or is no folder.
    """
    if isinstance(layers, str | bytes | os.PathLike):
        raise BadInput(f"layers is a list of folders, the last one on top; got {layers!r}")
    folders = [os.path.abspath(folder) for folder in (*([] if rootfs is None else [rootfs]), *layers)]
    for folder in folders:
        if not os.path.isdir(folder):
            raise BadInput(f"no folder {folder!r} to make a root file system of")
    return tuple(reversed(folders))


class RootedHost(IsolatedHost):
    """A host whose root file system is made of layers: folders that stay as they are, and one in memory on top.

    What is written goes to the top layer, a file of a lower one is copied there first, and all of it is gone when the
    lab ends. /proc, /sys and /dev are there. Commands run in ``/`` unless told otherwise.

    Args:
        name: its name.
        lowers: the folders, the top one first.
        isolate: what it has of its own besides its mounts.
        options: as of `IsolatedHost`.
    """

    def __init__(self, name: str, *, lowers: Sequence[str], isolate: Sequence[str], **options: Any) -> None:
        super().__init__(name, isolate=tuple(dict.fromkeys(["mount", *isolate])), **options)
        self.lowers = tuple(lowers)
        self._setup += [f"lower={folder}" for folder in lowers]

    def _start(self, undo: ExitStack) -> None:
        try:
            super()._start(undo)
        except StartFailed as error:
            if in_child_user_namespace() and os.strerror(errno.EINVAL) in str(error):
                why = f"without root, a folder with mounts below it cannot be a layer: one of {', '.join(self.lowers)}"
                raise Unavailable("rootfs", why, "run as root, or use folders without mounts below") from error
            raise

    @property
    def root(self) -> Path:
        """Its root file system, as a path of this process; absolute symbolic links in it lead astray."""
        self.observe()
        return Path(f"/proc/self/fd/{self._fds['root']}")

    def changes(self) -> dict[str, str]:
        """What has been written, by path: ``written`` (added or changed) or ``deleted``."""
        self.observe()
        top = Path(f"/proc/self/fd/{self._fds['upper']}")
        found = {}
        for path in sorted(top.rglob("*")):
            status = path.lstat()
            deleted = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0  # a whiteout (overlayfs)
            if deleted or not stat.S_ISDIR(status.st_mode):
                found["/" + path.relative_to(top).as_posix()] = "deleted" if deleted else "written"
        return found

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        timeout_s: float = 30.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Completed:
        """As `Host.run`, in ``/`` by default."""
        return super().run(argv, check=check, timeout_s=timeout_s, input=input, env=env, cwd=cwd or "/")

    def spawn(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Process:
        """As `Host.spawn`, in ``/`` by default."""
        return super().spawn(argv, input=input, env=env, cwd=cwd or "/")
