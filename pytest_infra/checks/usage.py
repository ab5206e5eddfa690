"""`measure_usage`: what a group, a node or a process's group has used."""

from __future__ import annotations

import os

from ..cgroup.group import Group
from ..cgroup.layout import folders_of, read_layout
from ..cgroup.usage import Usage, read_usage
from ..core.errors import BadInput
from ..core.node import Confined

__all__ = ["Target", "measure_usage", "name_of"]


Target = Group | Confined | int
"""A group, a node that has a control group, or a process id."""


def name_of(target: Target) -> str:
    """What to call a target in a report."""
    return f"process {target}" if isinstance(target, int) else target.name


def measure_usage(target: Target, *, since: Usage | None = None) -> Usage:
    """Read what a control group has used, from the kernel's counters.

    Args:
        target: a group; a node whose commands are in a group (`Group.adopt`) or that has one of its own, as containers
            have; or a process id, whose groups are read whatever else is in them.
        since: an earlier reading, which is subtracted: counters are what has happened since then, while what is a
            state or a peak is that of now.

    Raises:
        BadInput: the node has no control group, there is no such process, or `since` is of another target.
    """
    usage = _now(target)
    if since is None:
        return usage
    if since.target != usage.target:
        raise BadInput(f"since is a reading of {since.target}, not of {usage.target}")
    return usage - since


def _now(target: Target) -> Usage:
    if isinstance(target, Group):
        return target.usage()
    if not isinstance(target, int | Confined):
        raise BadInput(f"{target!r} is no group, node or process id")
    name = name_of(target)
    if not isinstance(target, int):
        group = target.control_group
        if isinstance(group, Group):
            return _of(name, group.folders)
        if not isinstance(group, int):
            raise BadInput(
                f"{name} has no control group of its own; put it in one before its commands: group.adopt({name})"
            )
        target = group
    return _of(name, _folders(target))


def _of(name: str, folders: dict[str, str]) -> Usage:
    return read_usage(name, folders, frozenset(read_layout().v1))


def _folders(pid: int) -> dict[str, str]:
    if isinstance(pid, bool) or pid < 1:
        raise BadInput(f"{pid!r} is no process id")
    try:
        found = folders_of(pid)
    except ProcessLookupError as error:
        raise BadInput(f"{error}: it has ended, or never was") from None
    return {name: folder for name, folder in found.items() if os.path.isdir(folder)}
