"""What the machine must have for control groups: the folders to make groups in, and each controller."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..core.linux import in_child_user_namespace
from ..core.requirement import LINUX, Absent, Present, Requirement
from .layout import Layout, read_layout

__all__ = [
    "CGROUP",
    "CPU",
    "CPUSET",
    "DEVICES",
    "HUGETLB",
    "IO",
    "MEMORY",
    "NET_CLS",
    "PIDS",
    "CgroupController",
    "ControlGroups",
    "can_filter_devices",
    "can_hold_groups",
    "v2_home",
]

_DELEGATE = "run it as root, or in a delegated group: systemd-run --user --scope -p Delegate=yes pytest --infra …"


def can_hold_groups(folder: str) -> bool:
    """Whether this process may make groups in a folder and move processes there."""
    return os.access(folder, os.W_OK) and os.access(os.path.join(folder, "cgroup.procs"), os.W_OK)


def v2_home(layout: Layout) -> str:
    """The version 2 folder to make groups in; empty where there is none.

    For root the hierarchy's root; for others the nearest folder above their own that was delegated to them
    and hands its controllers down, because a group that has processes itself cannot do that (cgroups(7)).
    """
    if not layout.v2:
        return ""
    if can_hold_groups(layout.v2):
        return layout.v2
    folder, best, most = layout.own.get(layout.v2, ""), "", -1
    while folder.startswith(layout.v2) and folder != layout.v2:
        if can_hold_groups(folder):
            controllers = _handed_down(folder)
            if controllers > most:
                best, most = folder, controllers
        folder = os.path.dirname(folder)
    return best


def can_filter_devices(layout: Layout) -> bool:
    """Whether version 2 can hold device rules here: real root may load the BPF program for it."""
    return bool(layout.v2) and can_hold_groups(layout.v2) and not in_child_user_namespace()


def _handed_down(folder: str) -> int:
    with open(os.path.join(folder, "cgroup.subtree_control"), encoding="ascii") as file:
        return len(file.read().split())


def _why_not(layout: Layout) -> Absent:
    if layout.mode == "none":
        return Absent("no control group file system is mounted", "mount -t cgroup2 none /sys/fs/cgroup")
    if layout.mode == "v1":
        return Absent("control groups are version 1 here, which only root can use", "run it as root")
    who = "a user namespace" if in_child_user_namespace() else "this user"
    own = layout.own.get(layout.v2, layout.v2)
    return Absent(f"{who} may make no group in {own} or above it: it was not delegated", _DELEGATE)


@dataclass(frozen=True)
class ControlGroups(Requirement):
    """A place to make control groups in."""

    def probe(self) -> Present | Absent:
        """Look for a folder that this process may make groups in."""
        if not (linux := LINUX.probe()):
            return linux
        layout = read_layout()
        if v2_home(layout) or any(can_hold_groups(mount) for mount in layout.v1.values()):
            return Present(layout.describe())
        return _why_not(layout)


@dataclass(frozen=True)
class CgroupController(Requirement):
    """One controller of control groups, in whichever version has it."""

    controller: str = ""

    def probe(self) -> Present | Absent:
        """Look which version has the controller, and whether this process may use it."""
        if not (there := CGROUP.probe()):
            return there
        layout = read_layout()
        version = layout.where(self.controller)
        if version == 0 and self.controller == "devices" and can_filter_devices(layout):
            return Present(f"v2 {layout.v2} (BPF)")
        if version == 0:
            return Absent(
                f"the {self.controller} controller is in no mounted hierarchy: {layout.describe()}", self._cure()
            )
        if version == 1:
            mount = layout.v1[self.controller]
            return (
                Present(f"v1 {mount}")
                if can_hold_groups(mount)
                else Absent(f"{mount} cannot be written", "run it as root")
            )
        return self._in_v2(layout)

    def _in_v2(self, layout: Layout) -> Present | Absent:
        home = v2_home(layout)
        if not home:
            return _why_not(layout)
        if home == layout.v2 and _is_real_root(home):
            return Present(f"v2 {home}")
        with open(os.path.join(home, "cgroup.subtree_control"), encoding="ascii") as file:
            if self.controller in file.read().split():
                return Present(f"v2 {home}")
        return Absent(f"{home} does not hand the {self.controller} controller down to the groups in it", _DELEGATE)

    def _cure(self) -> str:
        if self.controller in ("devices", "net_cls"):
            mount = f"mount -t cgroup -o {self.controller} none /sys/fs/cgroup/{self.controller}"
            return f"{mount} (version 2 has no such files)"
        return "use a kernel that has it"


def _is_real_root(folder: str) -> bool:
    """Whether this is the root of all version 2 groups; a container's own root is an ordinary group below it."""
    return not os.path.exists(os.path.join(folder, "cgroup.type"))


CGROUP = ControlGroups("cgroup", purpose="limits and accounting")
CPU = CgroupController("cgroup-cpu", purpose="CPU quota and weight", controller="cpu")
CPUSET = CgroupController("cgroup-cpuset", purpose="pinning to CPUs", controller="cpuset")
MEMORY = CgroupController("cgroup-memory", purpose="memory limits and accounting", controller="memory")
PIDS = CgroupController("cgroup-pids", purpose="limits on processes", controller="pids")
IO = CgroupController("cgroup-io", purpose="limits and accounting of devices", controller="io")
DEVICES = CgroupController("cgroup-devices", purpose="which devices may be opened", controller="devices")
HUGETLB = CgroupController("cgroup-hugetlb", purpose="limits on huge pages", controller="hugetlb")
NET_CLS = CgroupController("cgroup-net_cls", purpose="classes of packets by group", controller="net_cls")
