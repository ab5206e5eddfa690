"""The Linux system calls that Python 3.10 does not have: setns, unshare, mount, … (man pages of section 2)."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import Any

__all__ = [
    "CLONE_NEWCGROUP",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWTIME",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_REC",
    "MS_SLAVE",
    "die_with_parent",
    "effective_capabilities",
    "has_capability",
    "in_child_user_namespace",
    "mount",
    "open_namespace",
    "pidfd_getfd",
    "setns",
    "unshare",
]

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19

_PIDFD_GETFD = 438  # on every architecture
_CAP_NUMBERS = {"net_admin": 12, "net_raw": 13, "sys_admin": 21, "sys_resource": 24}


@lru_cache(maxsize=1)
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def setns(fd: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace behind `fd` (setns(2)); `kind` is its CLONE_NEW… flag, 0 for any."""
    _check(_libc().setns(fd, kind), "setns")


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (unshare(2))."""
    _check(_libc().unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system in the calling thread's mount namespace (mount(2))."""
    _check(
        _libc().mount(source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None),
        f"mount {kind or source} on {target}",
    )


def die_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    _check(_libc().prctl(1, number, 0, 0, 0), "prctl")


def pidfd_getfd(process: int, number: int) -> int:
    """A copy of another process's descriptor, from its pidfd (pidfd_getfd(2))."""
    if (copy := int(_libc().syscall(_PIDFD_GETFD, process, number, 0))) < 0:
        _check(copy, "pidfd_getfd")
    return copy


def open_namespace(kind: str) -> int:
    """Open the calling thread's own namespace (`net`, `mnt`, `pid`, …) and return the descriptor."""
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def effective_capabilities() -> int:
    """The effective capability set of this process as a bit mask (capabilities(7)); 0 where there is no /proc."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("CapEff:"):
                    return int(line.split()[1], 16)
    except OSError:
        pass
    return 0


def has_capability(*names: str) -> bool:
    """Whether this process has each of the named capabilities (``"sys_admin"``, ``"net_admin"``, …)."""
    mask = effective_capabilities()
    return all(mask >> _CAP_NUMBERS[name] & 1 for name in names)


def in_child_user_namespace() -> bool:
    """Whether this process runs in a user namespace below the machine's first one (user_namespaces(7))."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        with open("/proc/self/uid_map", encoding="ascii") as uid_map:
            return uid_map.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False
