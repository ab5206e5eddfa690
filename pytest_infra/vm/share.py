"""Inside a guest: another file system as the root, the machine's or a disk's, and what an ordinary system mounts."""

from __future__ import annotations

import os
from contextlib import suppress

from ..core import linux
from ..core.errors import StartFailed, WaitTimeout
from ..core.wait import until
from .agent import Agent

__all__ = ["CACHE_TAG", "ROOT_TAG", "become_host_root", "mount_disk"]

ROOT_TAG, CACHE_TAG = "root", "artifacts"
_MS_RDONLY, _MS_MOVE = 1, 8192
_9P = "trans=virtio,version=9p2000.L,msize=1048576,cache=loose"
_9P_WRITABLE = "trans=virtio,version=9p2000.L,msize=262144,cache=none"
_OURS = "/infra-root"
_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb")
_DISK_TYPES = ("ext4", "xfs", "btrfs", "squashfs", "vfat")
_BLOCK_DEVICES = "/sys/class/block"
_PLUGGED_S, _SCANNED_S = 60.0, 2.0
_MODPROBE = """#!/infra/bin/busybox sh
exec /infra/bin/busybox chroot "/proc/{pid}/root" /sbin/modprobe "$@"
"""


def _to_real_root(agent: Agent) -> None:
    os.fchdir(agent.root)
    os.chroot(".")


def _overlay(lower: str, at: str) -> None:
    """A writable layer in memory over a file system that stays as it is."""
    linux.mount("layer", f"{_OURS}/layer", "tmpfs", 0, "size=80%")
    for name in ("upper", "work"):
        os.mkdir(f"{_OURS}/layer/{name}")
    options = f"lowerdir={lower},upperdir={_OURS}/layer/upper,workdir={_OURS}/layer/work"
    linux.mount("overlay", at, "overlay", 0, options)


def _system_mounts(root: str) -> None:
    """What an ordinary system has mounted."""
    for source, at, kind, options in (
        ("proc", "proc", "proc", ""),
        ("sysfs", "sys", "sysfs", ""),
        ("dev", "dev", "devtmpfs", ""),
        ("devpts", "dev/pts", "devpts", "mode=620,ptmxmode=666"),
        ("shm", "dev/shm", "tmpfs", ""),
        ("run", "run", "tmpfs", "mode=755"),
        ("cgroup2", "sys/fs/cgroup", "cgroup2", "nsdelegate"),
        ("bpf", "sys/fs/bpf", "bpf", ""),
        ("tracefs", "sys/kernel/tracing", "tracefs", ""),
        ("debugfs", "sys/kernel/debug", "debugfs", ""),
    ):
        target = os.path.join(root, at)
        with suppress(OSError):  # an old kernel may not have the last ones
            os.makedirs(target, exist_ok=True)
            linux.mount(source, target, kind, 0, options)
    for name in ("netns", "lock"):
        os.makedirs(os.path.join(root, "run", name), exist_ok=True)
    with suppress(OSError), open(os.path.join(root, "sys/fs/cgroup/cgroup.subtree_control"), "w") as file:
        for controller in _CONTROLLERS:
            with suppress(OSError):
                file.write(f"+{controller}")
                file.flush()


def become_host_root(agent: Agent, modules_folder: str, artifacts: str) -> None:
    """Make the machine's files this guest's root: read-only below, a layer in memory on top.

    Args:
        agent: its commands, and this process itself, have that root from then on.
        modules_folder: where the machine has this kernel's modules; empty for nowhere.
        artifacts: a folder of the machine that is writable in the guest, too; empty for none.
    """
    _to_real_root(agent)
    for name in ("lower", "layer", "new"):
        os.makedirs(f"{_OURS}/{name}")
    linux.mount(ROOT_TAG, f"{_OURS}/lower", "9p", _MS_RDONLY, _9P)
    _overlay(f"{_OURS}/lower", f"{_OURS}/new")
    new = f"{_OURS}/new"
    if modules_folder:
        target = f"{new}/lib/modules/{os.uname().release}"
        os.makedirs(target, exist_ok=True)
        linux.mount(f"{_OURS}/lower{modules_folder}", target, flags=linux.MS_BIND)
    _system_mounts(new)
    _find_modprobe()
    os.chdir(new)
    linux.mount(".", "/", flags=_MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    if artifacts:
        os.makedirs(artifacts, exist_ok=True)
        linux.mount(CACHE_TAG, artifacts, "9p", 0, _9P_WRITABLE)
    agent.new_root()


def _find_modprobe() -> None:
    """The kernel runs modprobe with the root of the first process, which keeps the initramfs."""
    with open("/infra/modprobe", "w", encoding="ascii") as file:
        file.write(_MODPROBE.format(pid=os.getpid()))
    os.chmod("/infra/modprobe", 0o700)
    with open("/proc/sys/kernel/modprobe", "w", encoding="ascii") as file:
        file.write("/infra/modprobe")


def mount_disk(agent: Agent, device: str) -> str:
    """Make a disk's file system the root of this guest's commands, with a layer in memory over it; returns its type.

    Args:
        agent: its commands have that root from then on; the agent itself stays where it is.
        device: ``vda``, or ``vda1`` of a disk with partitions.
    """
    _to_real_root(agent)
    try:
        for name in ("lower", "layer", "new"):
            os.makedirs(f"{_OURS}/{name}", exist_ok=True)
        kind = _mount_one(device, f"{_OURS}/lower")
        _overlay(f"{_OURS}/lower", f"{_OURS}/new")
        _system_mounts(f"{_OURS}/new")
        os.close(agent.root)
        agent.root = os.open(f"{_OURS}/new", os.O_PATH | os.O_CLOEXEC)
        agent.restart_spawner()
        return kind
    finally:
        os.chroot("/infra")
        os.chdir("/")


def _mount_one(device: str, at: str) -> str:
    """Mount the first file system of a disk: those of its partitions come first, the last one before all others."""
    tried: list[str] = []

    def mounted() -> str:
        tried.clear()
        names = sorted(name for name in os.listdir(_BLOCK_DEVICES) if name.startswith(device))
        for name in reversed(names):
            for kind in _DISK_TYPES:
                try:
                    linux.mount(f"/dev/{name}", at, kind, _MS_RDONLY)
                    return kind
                except OSError as error:
                    tried.append(f"{name} as {kind}: {os.strerror(error.errno or 0)}")
        return ""

    plugged = os.path.join(_BLOCK_DEVICES, device)
    until(lambda: os.path.exists(plugged), within_s=_PLUGGED_S, what=f"the guest finds its disk {device}")
    try:
        return until(mounted, within_s=_SCANNED_S, what="the disk is mounted")
    except WaitTimeout:
        raise StartFailed(
            f"the guest finds no file system on its disk ({'; '.join(tried[:5])}); "
            "modules=['xfs'] loads the driver of another than ext4"
        ) from None
