"""Where this machine has which controller: version 1, version 2, or some here and some there (cgroups(7))."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["CONTROLLERS", "V2_DEFAULT", "Layout", "controller_files", "folders_of", "read_layout"]

CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids", "io", "devices", "freezer", "hugetlb", "net_cls")
"""The controllers that the project knows, by their version 2 names (version 1 says ``blkio`` for ``io``)."""

V2_DEFAULT = ("cpu", "cpuset", "memory", "pids", "io")
"""The version 2 controllers that a group gets by itself; the others only when a limit asks for them."""

_V1_NAMES = {"blkio": "io"}


@dataclass(frozen=True)
class Layout:
    """The hierarchies that are mounted."""

    v1: Mapping[str, str] = field(default_factory=dict)
    """The mount point of each version 1 controller."""
    v2: str = ""
    """The mount point of version 2; empty where it is not mounted."""
    v2_controllers: frozenset[str] = frozenset()
    """The controllers that version 2 can have; those of version 1 are not among them."""
    own: Mapping[str, str] = field(default_factory=dict)
    """This process's own folder in each hierarchy, by mount point."""

    @property
    def mode(self) -> str:
        """``v1``, ``v2``, ``hybrid`` (limits in version 1, and version 2 beside it), or ``none``."""
        if self.v1:
            return "hybrid" if self.v2 else "v1"
        return "v2" if self.v2 else "none"

    def where(self, controller: str) -> int:
        """The version that has a controller; 0 where none has it."""
        return 1 if controller in self.v1 else 2 if controller in self.v2_controllers else 0

    def describe(self) -> str:
        """For people: which controllers are where."""
        parts = []
        if self.v1:
            parts.append("v1 " + " ".join(sorted(self.v1)))
        if self.v2:
            parts.append("v2 " + (" ".join(sorted(self.v2_controllers)) or "without controllers"))
        return ", ".join(parts) or "not mounted"


def _unescape(text: str) -> str:
    return text.encode("latin-1", "replace").decode("unicode_escape")


def _mounts(text: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """The control group mounts in a mountinfo file: kind, root, mount point, options (proc_pid_mountinfo(5))."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        words, kind = before.split(), after.split()[0]
        if kind in ("cgroup", "cgroup2"):
            yield kind, _unescape(words[3]), _unescape(words[4]), after.split()[2].split(",")


def _own_paths(text: str) -> dict[str, str]:
    """A process's path in each hierarchy, by controller, ``""`` for version 2 (/proc/PID/cgroup)."""
    paths = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[_V1_NAMES.get(name, name)] = path
    return paths


def _below(mount: str, root: str, path: str) -> str:
    """The folder under a mount point of a path in the hierarchy; the mount may show only the part below `root`."""
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return os.path.normpath(mount + "/" + path)


def _parse(mountinfo: str, cgroup: str) -> tuple[dict[str, str], str, dict[str, str]]:
    """The version 1 mounts, the version 2 mount, and a process's folder by controller."""
    v1: dict[str, str] = {}
    v2 = ""
    folders = {}
    paths = _own_paths(cgroup)
    for kind, root, mount, options in _mounts(mountinfo):
        if kind == "cgroup2":
            if not v2:
                v2 = mount
                folders[""] = _below(mount, root, paths.get("", "/"))
            continue
        for option in options:
            name = _V1_NAMES.get(option, option)
            if name in CONTROLLERS and name not in v1:
                v1[name] = mount
                folders[name] = _below(mount, root, paths.get(name, "/"))
    return v1, v2, folders


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def read_layout(mountinfo: str | None = None, cgroup: str | None = None) -> Layout:
    """The hierarchies of this machine, read now.

    Args:
        mountinfo: the content of /proc/self/mountinfo, if not this process's.
        cgroup: the content of /proc/self/cgroup, if not this process's.
    """
    v1, v2, folders = _parse(
        _read("/proc/self/mountinfo") if mountinfo is None else mountinfo,
        _read("/proc/self/cgroup") if cgroup is None else cgroup,
    )
    found = frozenset(_read(os.path.join(v2, "cgroup.controllers")).split()) if v2 else frozenset()
    own = {v1.get(name, v2): folder for name, folder in folders.items()}
    return Layout(v1, v2, found & frozenset(CONTROLLERS), own)


def folders_of(pid: int) -> dict[str, str]:
    """The folders of a process's control groups, by controller; ``""`` is version 2's.

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            content = file.read()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    _, v2, folders = _parse(_read("/proc/self/mountinfo"), content)
    if v2:
        for controller in _read(os.path.join(folders[""], "cgroup.controllers")).split():
            folders.setdefault(_V1_NAMES.get(controller, controller), folders[""])
    return folders


def controller_files(folder: str) -> frozenset[str]:
    """The version 2 controllers that a folder has: those that its parent hands down."""
    return frozenset(_read(os.path.join(folder, "cgroup.controllers")).split())
