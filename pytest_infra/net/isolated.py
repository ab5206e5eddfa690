"""`IsolatedHost`: a host that has more of its own than its network (namespaces(7))."""

from __future__ import annotations

import array
import os
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from ..core import linux, pause, process
from ..core.errors import BadInput, StartFailed
from ..core.requirement import Command
from .host import Host

__all__ = ["ISOLATIONS", "NSENTER", "IsolatedHost", "check_isolation"]

ISOLATIONS = {
    "mount": "mnt", "pid": "pid", "uts": "uts", "ipc": "ipc", "user": "user", "cgroup": "cgroup", "time": "time",
}  # fmt: skip
"""What a host can have of its own, and what the kernel calls it under /proc/PID/ns."""

_FIRST_UID, _UIDS = 100_000, 65_536  # the range that subuid(5) gives the first user by custom
_IN_FOLDER = 'cd "$0" && exec "$@"'
_THREADS_CAN_ENTER = ("mnt", "uts", "ipc", "cgroup")
_CLONE_FS = 0x200

NSENTER = Command("nsenter", purpose="hosts with more isolation than their network", packages={
    "apt": "util-linux", "dnf": "util-linux", "pacman": "util-linux", "apk": "util-linux-misc"})  # fmt: skip


def check_isolation(kinds: Iterable[str]) -> tuple[str, ...]:
    """The isolations, each once.

    Raises:
        BadInput: one of them is unknown.
    """
    chosen = tuple(dict.fromkeys([kinds] if isinstance(kinds, str) else kinds))
    for kind in chosen:
        if kind not in ISOLATIONS:
            raise BadInput(f"no isolation {kind!r}; there are {', '.join(ISOLATIONS)} (the network is always isolated)")
    return chosen


class IsolatedHost(Host):
    """A host with namespaces of its own besides the network's.

    Its commands run in all of them. `call` runs in its network, mount, UTS, IPC and cgroup namespaces: a thread can
    enter no other.
    """

    requires = (NSENTER,)

    def __init__(self, name: str, *, isolate: Sequence[str], **options: Any) -> None:
        super().__init__(name, **options)
        self.isolate = tuple(isolate)
        self._kinds = [ISOLATIONS[kind] for kind in isolate]
        self._fds: dict[str, int] = {}

    def _start(self, undo: ExitStack) -> None:
        super()._start(undo)
        kinds = [*self._kinds]
        if "user" in kinds:
            kinds.append("net")  # of the user namespace, so that its root may configure it
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.callback(mine.close)
        with theirs:
            argv = [sys.executable, "-I", "-S", pause.__file__, str(theirs.fileno()), ",".join(kinds)]
            holder = self._lab.guard().popen(argv, (self.namespace.fd,), pass_fds=(theirs.fileno(),), stdin=-3, cwd="/")
        undo.callback(_end, holder)
        mine.settimeout(10)
        for kind, fd in zip(kinds, self._receive(mine, holder.pid, len(kinds)), strict=True):
            undo.callback(os.close, fd)
            self._fds[kind] = fd
        undo.callback(self._fds.clear)
        if "net" in self._fds:
            self.namespace.replace(self._fds["net"])
        entered = [(self._fds[kind], kind) for kind in _THREADS_CAN_ENTER if kind in self._fds]
        if entered:
            self.namespace.on_enter = lambda: _enter(entered)

    def _receive(self, channel: socket.socket, pid: int, count: int) -> list[int]:
        while True:
            data, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(4 * count))
            if data == b"U":
                _write_maps(pid)
                channel.send(b"u")
            elif data == b"N":
                fds = array.array("i")
                for _, _, content in ancillary:
                    fds.frombytes(content)
                for fd in fds:
                    os.set_inheritable(fd, False)
                return list(fds)
            else:
                why = data[1:].decode(errors="replace") or "the process that makes them ended"
                raise StartFailed(f"host {self.name} ({self.declared_at}) cannot be isolated: {why}")

    def namespaces(self) -> dict[str, int]:
        """The descriptors of its namespaces, by their names under /proc/PID/ns."""
        return {**self._fds, **super().namespaces()}

    def _popen(self) -> process.Popen:
        self.observe()
        guard = self._lab.guard()

        def popen(argv: Sequence[str], *, cwd: str, **options: Any) -> Any:
            fds = self.namespaces()
            ways = {"mnt": "mount"}
            enter = [f"--{ways.get(kind, kind)}=/proc/self/fd/{fd}" for kind, fd in fds.items()]
            command = ["nsenter", *enter, "--", "/bin/sh", "-c", _IN_FOLDER, cwd, *argv]
            return guard.popen(command, (), cwd="/", pass_fds=tuple(fds.values()), **options)

        return popen


def _enter(entered: Sequence[tuple[int, str]]) -> None:
    linux.unshare(_CLONE_FS)
    for fd, _ in entered:
        linux.setns(fd)


def _write_maps(pid: int) -> None:
    """Map the ids of a new user namespace: a range of its own for real root, else one's own id (user_namespaces(7))."""
    whole = not linux.in_child_user_namespace()
    for kind, mine in (("uid", os.geteuid()), ("gid", os.getegid())):
        line = f"0 {_FIRST_UID} {_UIDS}" if whole else f"0 {mine} 1"
        if not whole and kind == "gid":
            with open(f"/proc/{pid}/setgroups", "w", encoding="ascii") as setgroups:
                setgroups.write("deny")
        with open(f"/proc/{pid}/{kind}_map", "w", encoding="ascii") as id_map:
            id_map.write(line)


def _end(holder: Any) -> None:
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
