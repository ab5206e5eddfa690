"""Under sudo: what a run has written into the user's tree is given to that user when it ends."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress

import pytest

__all__ = ["give_files_to_user"]

_CLOCK_S = 2.0  # file systems' clocks may be behind


def give_files_to_user(config: pytest.Config, environment: Mapping[str, str] = os.environ) -> None:
    """Where sudo(8) started this run as root, give what it writes below the rootdir and the current folder to the user.

    That is what belongs to root and is new since now, in folders of the user: caches, reports, evidence, coverage.
    Nothing else is touched, and no link is followed.
    """
    user, group = (environment.get(name, "") for name in ("SUDO_UID", "SUDO_GID"))
    if os.geteuid() != 0 or not (user.isdecimal() and group.isdecimal()) or int(user) == 0:
        return
    began_s = time.time() - _CLOCK_S
    folders = {os.path.realpath(path) for path in (config.rootpath, config.invocation_params.dir)}

    def give() -> None:
        for folder in folders:
            if os.stat(folder).st_uid == int(user):
                _give(folder, int(user), int(group), began_s)

    config.add_cleanup(give)


def _give(top: str, user: int, group: int, began_s: float) -> None:
    """Walk by descriptors, so that a folder which somebody replaces by a link meanwhile leads nowhere else."""
    for _, folders, files, descriptor in os.fwalk(top, follow_symlinks=False):
        for name in [*folders, *files]:
            with suppress(OSError):  # gone again
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                linked = stat.S_ISREG(found.st_mode) and found.st_nlink > 1  # it may be another file's second name
                if found.st_uid == 0 and found.st_ctime >= began_s and not linked:
                    os.chown(name, user, group, dir_fd=descriptor, follow_symlinks=False)
