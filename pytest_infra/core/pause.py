"""A process that makes namespaces and holds them: ``pause.py SOCKET KIND,… KIND,… [WHAT=VALUE …]``.

It makes namespaces of the first kinds. It sends descriptors of those and of its namespaces of the second kinds over the
socket, with its number in its own /proc, and then waits until the other end is closed. Some namespaces
need a process: a PID namespace its first one, a user namespace one that has a single thread (user_namespaces(7)).
``clock=SECONDS`` moves the clocks of a new time namespace. Each ``lower=FOLDER`` is a layer, the top one first, of
the root file system that a new mount namespace gets, below a layer in memory that takes what is written; descriptors of
that layer and of the new root are sent too. Each ``file=PATH=TEXT`` is a file that others see as it is, and that has
this text in the new mount namespace. This file is run by itself, so it imports nothing of the package. Nor does it
import what brings `enum` and `functools`, such as `socket` and `signal`: those would double the time of its start.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import ctypes
import os
import struct
import sys

__all__ = ["main"]

_FLAGS = {
    "net": 0x40000000, "pid": 0x20000000, "user": 0x10000000, "ipc": 0x08000000, "uts": 0x04000000,
    "cgroup": 0x02000000, "mnt": 0x00020000, "time": 0x00000080,
}  # fmt: skip
_MS_BIND, _MS_BIND_REC = 4096, 4096 | 16384
_MS_SLAVE_REC, _MS_PLAIN = (1 << 19) | 16384, 2 | 4 | 8
_MS_NOSUID_NODEV = 2 | 4
_MNT_DETACH = 2
_SHARED_MEMORY = "/dev/shm"  # noqa: S108
_SCRATCH = "/tmp"  # noqa: S108 - a place to mount something, in a mount namespace that nobody else sees


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _try_mount(libc: ctypes.CDLL, source: str, target: str, kind: str | None, flags: int, options: str = "") -> int:
    """mount(2): 0, or -1 and errno."""
    result: int = libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, options.encode() or None)
    return result


def _mount(libc: ctypes.CDLL, source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    _check(_try_mount(libc, source, target, kind, flags, options), f"mount {target}")


def _mounts(libc: ctypes.CDLL, kinds: list[str]) -> None:
    """A /proc of this PID namespace and a /sys of this network namespace; the machine's cgroups stay where they are.

    Both are refused in a user namespace of a container that hides parts of /proc or /sys, and then stay as they are.
    """
    _mount(libc, "none", "/", None, _MS_SLAVE_REC)
    if "pid" in kinds:
        _try_mount(libc, "proc", "/proc", "proc", _MS_PLAIN)
    if os.path.isdir("/sys/fs/cgroup"):
        groups = os.open("/sys/fs/cgroup", os.O_PATH)
        if _try_mount(libc, "sysfs", "/sys", "sysfs", _MS_PLAIN) == 0:
            _try_mount(libc, f"/proc/self/fd/{groups}", "/sys/fs/cgroup", None, _MS_BIND_REC)


def _files(libc: ctypes.CDLL, files: list[str]) -> None:
    """Lay files in memory over those that are there; a link is followed (resolv.conf is one on many machines)."""
    _mount(libc, "tmpfs", _SCRATCH, "tmpfs", _MS_PLAIN, "mode=755")
    for number, file in enumerate(files):
        path, _, text = file.partition("=")
        with open(f"{_SCRATCH}/{number}", "w", encoding="utf-8") as target:
            target.write(text)
        os.chmod(target.name, 0o644)
        _mount(libc, target.name, path, None, _MS_BIND)
    _check(libc.umount2(_SCRATCH.encode(), _MNT_DETACH), f"umount {_SCRATCH}")


def _set_clocks(offset: str) -> None:
    """Before any process is in the new time namespace (time_namespaces(7))."""
    with open("/proc/self/timens_offsets", "w", encoding="ascii") as offsets:
        offsets.write(f"monotonic {offset} 0\nboottime {offset} 0\n")


def _layer(libc: ctypes.CDLL, folder: str, fd: int, lowers: list[str]) -> str:
    """The path of a layer. Overlayfs takes none that lies in another one, so the outer one gets an overlay of its own.

    That one can only be read; it needs two layers, so the second one is empty.
    """
    path = f"/proc/self/fd/{fd}"
    top = os.path.join(folder, "")
    if not any(other.startswith(top) for other in lowers if other != folder):
        return path
    target = f"{_SCRATCH}/layer{fd}"
    os.mkdir(target)
    _mount(libc, "overlay", target, "overlay", 0, f"lowerdir={path}:{_SCRATCH}/empty")
    return target


def _new_root(libc: ctypes.CDLL, lowers: list[str]) -> dict[str, int]:
    """Move onto an overlay of the folders (overlayfs, pivot_root(2)); returns it and its top layer as descriptors."""
    lowers = [os.path.realpath(lower) for lower in lowers]
    folders = [os.open(lower, os.O_PATH | os.O_DIRECTORY) for lower in lowers]
    _mount(libc, "tmpfs", _SCRATCH, "tmpfs", 2, "mode=755")
    for name in ("upper", "work", "root", "empty"):
        os.mkdir(f"{_SCRATCH}/{name}")
    os.chmod(f"{_SCRATCH}/upper", 0o755)  # noqa: S103
    layers = [_layer(libc, lower, fd, lowers) for lower, fd in zip(lowers, folders, strict=True)]
    options = f"lowerdir={':'.join(layers)},upperdir={_SCRATCH}/upper,workdir={_SCRATCH}/work"
    root = f"{_SCRATCH}/root"
    _mount(libc, "overlay", root, "overlay", 0, options)
    found = {name: os.open(f"{_SCRATCH}/{name}", os.O_PATH | os.O_DIRECTORY) for name in ("upper", "root")}
    for name in ("proc", "sys", "dev"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
        _mount(libc, f"/{name}", f"{root}/{name}", None, _MS_BIND_REC)
    if os.path.isdir(root + _SHARED_MEMORY):  # what is written there is its own too (shm_overview(7))
        _mount(libc, "tmpfs", root + _SHARED_MEMORY, "tmpfs", _MS_NOSUID_NODEV, "mode=1777")
    os.chdir(root)
    _check(libc.pivot_root(b".", b"."), "pivot_root")
    _check(libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")
    for fd in folders:
        os.close(fd)
    return found


def _send(channel: _socket.socket, kinds: list[str], folders: dict[str, int]) -> None:
    names = {"time": "time_for_children"}
    spaces = [os.open(f"/proc/self/ns/{names.get(kind, kind)}", os.O_RDONLY) for kind in kinds]
    fds = [*spaces, *folders.values()]
    text = ",".join([os.readlink("/proc/self"), *kinds, *folders])
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))
    channel.sendmsg([b"N" + text.encode()], [rights])
    for fd in fds:
        os.close(fd)


def main() -> int:
    """Make the namespaces, send them, and hold them until the other end is closed."""
    channel = _socket.socket(fileno=int(sys.argv[1]))
    kinds = sys.argv[2].split(",")
    sent = list(dict.fromkeys([*kinds, *sys.argv[3].split(",")]))
    lowers = [value.removeprefix("lower=") for value in sys.argv[4:] if value.startswith("lower=")]
    files = [value.removeprefix("file=") for value in sys.argv[4:] if value.startswith("file=")]
    clocks = [value.removeprefix("clock=") for value in sys.argv[4:] if value.startswith("clock=")]
    folders: dict[str, int] = {}
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if "user" in kinds:
            _check(libc.unshare(_FLAGS["user"]), "a user namespace")
            channel.send(b"U")
            channel.recv(1)  # the maps have been written
            os.setgid(0)
            os.setuid(0)
        flags = sum(_FLAGS[kind] for kind in kinds if kind != "user")
        _check(libc.unshare(flags), "namespaces " + ", ".join(kinds))
        for offset in clocks:
            _set_clocks(offset)
        if "pid" in kinds and (child := os.fork()):
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if "mnt" in kinds:
            if lowers:
                _mount(libc, "none", "/", None, _MS_SLAVE_REC)
                folders = _new_root(libc, lowers)
            _mounts(libc, kinds)
            if files:
                _files(libc, files)
        _send(channel, sent, folders)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the first process of a PID namespace gets its orphans
    except OSError as error:
        channel.send(b"E" + str(error).encode())
        return 1
    channel.recv(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
