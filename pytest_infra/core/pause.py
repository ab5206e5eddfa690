"""A process that makes namespaces and holds them: ``python -I -S pause.py SOCKET KIND,KIND,… KIND,KIND,…``.

It makes namespaces of the first kinds. It sends descriptors of those and of its namespaces of the second kinds over the
socket, with its number in its own /proc, and then waits until the other end is closed. Some namespaces
need a process: a PID namespace its first one, a user namespace one that has a single thread (user_namespaces(7)).
This file is run by itself, so it imports nothing of the package.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import signal
import socket
import sys

__all__ = ["main"]

_FLAGS = {
    "net": 0x40000000, "pid": 0x20000000, "user": 0x10000000, "ipc": 0x08000000, "uts": 0x04000000,
    "cgroup": 0x02000000, "mnt": 0x00020000, "time": 0x00000080,
}  # fmt: skip
_MS_SLAVE_REC, _MS_BIND_REC, _MS_PLAIN = (1 << 19) | 16384, 4096 | 16384, 2 | 4 | 8


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(libc: ctypes.CDLL, source: str, target: str, kind: str | None, flags: int) -> None:
    _check(libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, None), f"mount {target}")


def _mounts(libc: ctypes.CDLL, kinds: list[str]) -> None:
    """A /proc of this PID namespace and a /sys of this network namespace; the machine's cgroups stay where they are."""
    _mount(libc, "none", "/", None, _MS_SLAVE_REC)
    with contextlib.suppress(OSError):  # refused in a user namespace of a container that hides parts of /proc or /sys
        if "pid" in kinds:
            _mount(libc, "proc", "/proc", "proc", _MS_PLAIN)
    with contextlib.suppress(OSError):
        groups = os.open("/sys/fs/cgroup", os.O_PATH)
        _mount(libc, "sysfs", "/sys", "sysfs", _MS_PLAIN)
        _mount(libc, f"/proc/self/fd/{groups}", "/sys/fs/cgroup", None, _MS_BIND_REC)


def _send(channel: socket.socket, kinds: list[str]) -> None:
    names = {"time": "time_for_children"}
    fds = array.array("i", [os.open(f"/proc/self/ns/{names.get(kind, kind)}", os.O_RDONLY) for kind in kinds])
    text = ",".join([os.readlink("/proc/self"), *kinds])
    channel.sendmsg([b"N" + text.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())])
    for fd in fds:
        os.close(fd)


def main() -> int:
    """Make the namespaces, send them, and hold them until the other end is closed."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    kinds = sys.argv[2].split(",")
    sent = list(dict.fromkeys([*kinds, *sys.argv[3].split(",")]))
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
        if "pid" in kinds and (child := os.fork()):
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if "mnt" in kinds:
            _mounts(libc, kinds)
        _send(channel, sent)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the first process of a PID namespace gets its orphans
    except OSError as error:
        channel.send(b"E" + str(error).encode())
        return 1
    channel.recv(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
