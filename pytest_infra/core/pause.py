"""A process that makes namespaces and holds them: ``pause.py SOCKET KIND,… KIND,… [WHAT=VALUE …]``.

It makes namespaces of the first kinds. It sends descriptors of those and of its namespaces of the second kinds over the
socket, with its number in its own /proc, and then waits until the other end is closed. Some namespaces
need a process: a PID namespace its first one, a user namespace one that has a single thread (user_namespaces(7)).
``clock=SECONDS`` moves the clocks of a new time namespace. Each ``lower=FOLDER`` is a layer, the top one first, of
the root file system that a new mount namespace gets, below a layer in memory that takes what is written; descriptors of
that layer and of the new root are sent too. Each ``file=PATH=TEXT`` is a file that others see as it is, and that has
this text in the new mount namespace. This file is run by itself, so it imports nothing of the package. Nor does it
import what brings `enum` and `functools`, such as `socket` and `signal`: those would double the time of its start.
Namespaces that need no process are made by `isolate` in a thread of the plugin's own process, without that start.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import ctypes
import os
import struct
import sys

__all__ = ["isolate", "main"]

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


def _path(fd: int) -> str:
    """The path of what a descriptor is of, from a /proc in which this thread is seen: the current folder."""
    return f"thread-self/fd/{fd}"


def _mounts(libc: ctypes.CDLL, kinds: list[str], proc: int) -> None:
    """A /proc of this PID namespace and a /sys of this network namespace; the machine's cgroups stay where they are.

    Both are refused in a user namespace of a container that hides parts of /proc or /sys, and then stay as they are.
    """
    _mount(libc, "none", "/", None, _MS_SLAVE_REC)
    if "pid" in kinds:
        _try_mount(libc, "proc", "/proc", "proc", _MS_PLAIN)
    if os.path.isdir("/sys/fs/cgroup"):
        groups = os.open("/sys/fs/cgroup", os.O_PATH)
        if _try_mount(libc, "sysfs", "/sys", "sysfs", _MS_PLAIN) == 0:
            os.fchdir(proc)
            _try_mount(libc, _path(groups), "/sys/fs/cgroup", None, _MS_BIND_REC)
        os.close(groups)


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
    path = _path(fd)
    top = os.path.join(folder, "")
    if not any(other.startswith(top) for other in lowers if other != folder):
        return path
    target = f"{_SCRATCH}/layer{fd}"
    os.mkdir(target)
    _mount(libc, "overlay", target, "overlay", 0, f"lowerdir={path}:{_SCRATCH}/empty")
    return target


def _new_root(libc: ctypes.CDLL, lowers: list[str], proc: int, found: dict[str, int]) -> None:
    """Move onto an overlay of the folders (overlayfs, pivot_root(2)); adds it and its top layer to what is found."""
    lowers = [os.path.realpath(lower) for lower in lowers]
    folders: list[int] = []
    try:
        folders += [os.open(lower, os.O_PATH | os.O_DIRECTORY) for lower in lowers]
        _mount(libc, "tmpfs", _SCRATCH, "tmpfs", 2, "mode=755")
        for name in ("upper", "work", "root", "empty"):
            os.mkdir(f"{_SCRATCH}/{name}")
        os.chmod(f"{_SCRATCH}/upper", 0o755)  # noqa: S103
        os.fchdir(proc)
        layers = [_layer(libc, lower, fd, lowers) for lower, fd in zip(lowers, folders, strict=True)]
        options = f"lowerdir={':'.join(layers)},upperdir={_SCRATCH}/upper,workdir={_SCRATCH}/work"
        _mount(libc, "overlay", f"{_SCRATCH}/root", "overlay", 0, options)
    finally:
        _close(folders)
    for name in ("upper", "root"):
        found[name] = os.open(f"{_SCRATCH}/{name}", os.O_PATH | os.O_DIRECTORY)
    _move_to(libc, f"{_SCRATCH}/root")


def _move_to(libc: ctypes.CDLL, root: str) -> None:
    """Give a new root what is mounted at the old one, and make it the root."""
    for name in ("proc", "sys", "dev"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
        _mount(libc, f"/{name}", f"{root}/{name}", None, _MS_BIND_REC)
    if os.path.isdir(root + _SHARED_MEMORY):  # what is written there is its own too (shm_overview(7))
        _mount(libc, "tmpfs", root + _SHARED_MEMORY, "tmpfs", _MS_NOSUID_NODEV, "mode=1777")
    os.chdir(root)
    _check(libc.pivot_root(b".", b"."), "pivot_root")
    _check(libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _lay_out(libc: ctypes.CDLL, kinds: list[str], settings: list[str], proc: int, found: dict[str, int]) -> None:
    """The mounts of a new mount namespace; adds descriptors of the folders that others ask for."""
    if lowers := _values("lower", settings):
        _mount(libc, "none", "/", None, _MS_SLAVE_REC)
        _new_root(libc, lowers, proc, found)
    _mounts(libc, kinds, proc)
    if files := _values("file", settings):
        _files(libc, files)


def _values(what: str, settings: list[str]) -> list[str]:
    return [text.removeprefix(f"{what}=") for text in settings if text.startswith(f"{what}=")]


def _unshare(libc: ctypes.CDLL, kinds: list[str]) -> None:
    flags = sum(_FLAGS[kind] for kind in kinds if kind != "user")
    _check(libc.unshare(flags), "namespaces " + ", ".join(kinds))


def _open(kinds: list[str], proc: int, found: dict[str, int]) -> None:
    """Add descriptors of the calling thread's namespaces; of time, those of its children."""
    names = {"time": "time_for_children"}
    for kind in kinds:
        found[kind] = os.open(f"thread-self/ns/{names.get(kind, kind)}", os.O_RDONLY, dir_fd=proc)


def isolate(kinds: list[str], settings: list[str], proc: int) -> dict[str, int]:
    """Move the calling thread into new namespaces, none of which needs a process of its own: mnt, uts, ipc, cgroup.

    Returns descriptors of them, and of the layers' folders. The current folder of the thread becomes ``/``.

    Args:
        kinds: their names under /proc/PID/ns.
        settings: ``lower=`` and ``file=``, as above.
        proc: a descriptor of the /proc in which this thread is seen, when the one that is mounted is another's.

    Raises:
        OSError: the kernel refuses one of them.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    found: dict[str, int] = {}
    try:
        _unshare(libc, kinds)
        if "mnt" in kinds:
            _lay_out(libc, kinds, settings, proc, found)
        os.chdir("/")
        _open(kinds, proc, found)
    except OSError:
        _close([*found.values()])
        raise
    return found


def _send(channel: _socket.socket, found: dict[str, int]) -> None:
    text = ",".join([os.readlink("/proc/self"), *found])
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(found)}i", *found.values()))
    channel.sendmsg([b"N" + text.encode()], [rights])
    _close([*found.values()])


def _become_root(libc: ctypes.CDLL, channel: _socket.socket) -> None:
    """Make a user namespace, whose maps the other end writes."""
    _check(libc.unshare(_FLAGS["user"]), "a user namespace")
    channel.send(b"U")
    channel.recv(1)
    os.setgid(0)
    os.setuid(0)


def main() -> int:
    """Make the namespaces, send them, and hold them until the other end is closed."""
    channel = _socket.socket(fileno=int(sys.argv[1]))
    kinds, settings = sys.argv[2].split(","), sys.argv[4:]
    sent = list(dict.fromkeys([*kinds, *sys.argv[3].split(",")]))
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if "user" in kinds:
            _become_root(libc, channel)
        _unshare(libc, kinds)
        for offset in _values("clock", settings):
            _set_clocks(offset)
        if "pid" in kinds and (child := os.fork()):
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        found: dict[str, int] = {}
        if "mnt" in kinds:
            _lay_out(libc, kinds, settings, proc, found)
        _open(sent, proc, found)
        os.close(proc)
        _send(channel, found)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the first process of a PID namespace gets its orphans
    except OSError as error:
        channel.send(b"E" + str(error).encode())
        return 1
    channel.recv(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
