"""`IsolatedHost`: a host that has more of its own than its network (namespaces(7))."""

from __future__ import annotations

import array
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from ..core import linux, pause, process
from ..core.errors import BadInput, StartFailed
from ..core.keep import Holdings
from ..core.requirement import Command
from ..core.worker import Worker
from .host import Host

__all__ = ["ISOLATIONS", "NSENTER", "IsolatedHost", "check_files", "check_isolation"]

ISOLATIONS = {
    "mount": "mnt", "pid": "pid", "uts": "uts", "ipc": "ipc", "user": "user", "cgroup": "cgroup", "time": "time",
}  # fmt: skip
"""What a host can have of its own, and what the kernel calls it under /proc/PID/ns."""

_FIRST_UID, _UIDS = 100_000, 65_536  # the range that subuid(5) gives the first user by custom
_HELD = ("pid", "mnt")  # entered by every command, the guard's where the host has none of its own
_A_CALL_ENTERS = ("mnt", "uts", "ipc", "cgroup")
_A_COMMAND_ENTERS = ("pid", *_A_CALL_ENTERS)
_A_PROGRAM_ENTERS = {"user": "user", "time": "time_for_children"}  # a thread among others cannot: nsenter(1) does
_A_THREAD_MAKES = {"mnt", "uts", "ipc", "cgroup"}  # the others need a process: see `core.pause`
_CLONE_FS = 0x200
_ANSWER_S = 10.0
_LONGEST_FILE = 100_000  # one argument of a command has at most 128 KiB (execve(2))

NSENTER = Command("nsenter", purpose="hosts with more isolation than their network", packages={
    "apt": "util-linux", "dnf": "util-linux", "pacman": "util-linux", "apk": "util-linux-misc"})  # fmt: skip


def check_isolation(kinds: Iterable[str]) -> tuple[str, ...]:
    """The isolations, each once.

    Raises:
        BadInput: one of them is unknown.
    """
    if not isinstance(kinds, Iterable):
        raise BadInput(f"isolate is a list of {', '.join(ISOLATIONS)}; got {kinds!r}")
    chosen = tuple(dict.fromkeys([kinds] if isinstance(kinds, str) else kinds))
    for kind in chosen:
        if kind not in ISOLATIONS:
            raise BadInput(f"no isolation {kind!r}; there are {', '.join(ISOLATIONS)} (the network is always isolated)")
    return chosen


def check_files(files: Mapping[str, str]) -> dict[str, str | Callable[[], str]]:
    """Files of a host's own, by path.

    Raises:
        BadInput: a path that is not absolute, or that no file of the machine has; or a text that is none.
    """
    if not isinstance(files, Mapping):
        raise BadInput(f"files says which path has which text, {{'/etc/hosts': '…'}}; got {files!r}")
    for path, text in files.items():
        if not isinstance(path, str) or not os.path.isabs(path) or "=" in path or not os.path.isfile(path):
            raise BadInput(
                f"files: {path!r} is not the absolute path of a file of this machine, which it can stand for"
            )
        if not isinstance(text, str) or "\0" in text or len(text.encode()) > _LONGEST_FILE:
            raise BadInput(f"files: {path} needs a text without NUL of at most {_LONGEST_FILE} bytes")
    return dict(files)


class IsolatedHost(Host):
    """A host with namespaces of its own besides the network's.

    Its commands run in all of them. `call` runs in its network, mount, UTS, IPC and cgroup namespaces: a thread can
    enter no other. With a user or time namespace, a program that is not there ends with status 127.
    """

    requires = (NSENTER,)

    def __init__(
        self,
        name: str,
        *,
        isolate: Sequence[str],
        clock_offset_s: int = 0,
        files: Mapping[str, str | Callable[[], str]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._files = dict(files or {})
        self.isolate = tuple(isolate)
        self._setup = [f"clock={clock_offset_s}"] if clock_offset_s else []
        self._kinds = [ISOLATIONS[kind] for kind in isolate]
        self._fds: dict[str, int] = {}
        self._pause: socket.socket | None = None

    def _start(self, undo: ExitStack) -> None:
        super()._start(undo)
        if _A_THREAD_MAKES.issuperset(self._kinds):
            self._make_in_a_thread(undo)
        else:
            self._make_in_a_process(undo)
        if "net" in self._fds:
            self.namespace.replace(self._fds["net"])
        self.namespace.on_enter = self._enter_call
        self._spawner = Worker(f"infra-{self.name}-spawner", self._enter_command)
        undo.callback(self._spawner.stop)

    def _make_in_a_thread(self, undo: ExitStack) -> None:
        undo.callback(self._let_go)
        maker = Worker(f"infra-{self.name}-maker")
        try:
            maker.call_whole(self._isolate, self._lab.guard().pid)
        except OSError as error:
            raise self._refused(str(error)) from error
        finally:
            maker.stop()

    def _let_go(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])

    def _isolate(self, guard: int) -> None:
        """Take hold of new namespaces, and of the guard's where the host has none of its own."""
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        try:
            for kind in _HELD:
                self._fds[kind] = os.open(f"/proc/{guard}/ns/{kind}", os.O_RDONLY)
            linux.setns(self.namespace.fd)
            linux.unshare(_CLONE_FS)
            linux.setns(self._fds["mnt"])
            made = pause.isolate(self._kinds, [*self._setup, *self._file_setup()], proc)
        finally:
            os.close(proc)
        for kind in made.keys() & self._fds.keys():
            os.close(self._fds[kind])
        self._fds.update(made)

    def _make_in_a_process(self, undo: ExitStack) -> None:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kinds = [*self._kinds, *(["net"] if "user" in self._kinds else [])]  # its root may configure its network
        with theirs:
            undo.callback(mine.close)
            argv = [sys.executable, "-I", "-S", pause.__file__, str(theirs.fileno()), ",".join(kinds), ",".join(_HELD)]
            argv += [*self._setup, *self._file_setup()]
            holder = self._lab.guard().popen(argv, (self.namespace.fd,), pass_fds=(theirs.fileno(),), stdin=-3, cwd="/")
        self._pause, self._kept = mine, False
        undo.callback(self._end, holder)
        undo.callback(self._fds.clear)
        mine.settimeout(_ANSWER_S)
        self._receive(undo, mine, holder.pid)

    def _file_setup(self) -> list[str]:
        texts = {path: text if isinstance(text, str) else text() for path, text in self._files.items()}
        return [f"file={os.path.realpath(path)}={text}" for path, text in texts.items()]

    def hand_over(self, holdings: Holdings) -> None:
        """Its namespaces, and the other end of the pipe of the process that made them."""
        super().hand_over(holdings)
        holdings.descriptors += self._fds.values()
        if self._pause is not None:
            holdings.descriptors.append(self._pause.fileno())
            holdings.taken.append(lambda: setattr(self, "_kept", True))

    def _end(self, holder: Any) -> None:
        if not self._kept:
            os.killpg(holder.pid, signal.SIGKILL)
            holder.wait()

    def _receive(self, undo: ExitStack, channel: socket.socket, pid: int) -> None:
        """Answer what the holder asks, until it has sent its namespaces and where it sees itself in /proc."""
        while True:
            try:
                room = socket.CMSG_SPACE(4 * len(ISOLATIONS) + 12)
                data, ancillary, _, _ = channel.recvmsg(4096, room, socket.MSG_CMSG_CLOEXEC)
            except TimeoutError:
                raise self._refused(f"no answer within {_ANSWER_S:g} s") from None
            fds = array.array("i")
            for _, _, content in ancillary:
                fds.frombytes(content)
            undo.callback(_close_all, fds)
            if data == b"U":
                _write_maps(pid)
                channel.send(b"u")
            elif data.startswith(b"N"):
                self._holder, *kinds = data[1:].decode().split(",")
                if len(fds) < len(kinds):
                    raise self._refused("too many open files in this process (ulimit -n)")
                self._fds.update(zip(kinds, fds, strict=True))
                return
            else:
                raise self._refused(data[1:].decode(errors="replace") or "the process that makes them ended")

    def _refused(self, why: str) -> StartFailed:
        return StartFailed(f"it cannot be isolated: {why}")

    def _enter_call(self) -> None:
        self._enter([kind for kind in _A_CALL_ENTERS if kind in self._kinds])

    def _enter_command(self) -> None:
        linux.setns(self.namespace.fd)
        self._enter([kind for kind in _A_COMMAND_ENTERS if kind in self._fds])

    def _enter(self, kinds: Sequence[str]) -> None:
        if "mnt" in kinds:
            linux.unshare(_CLONE_FS)
        for kind in kinds:
            linux.setns(self._fds[kind])

    def namespaces(self) -> dict[str, int]:
        """The descriptors of its namespaces, by their names under /proc/PID/ns."""
        spaces = {kind: fd for kind, fd in self._fds.items() if kind not in ("upper", "root")}
        return {**spaces, **super().namespaces()}

    def _popen(self) -> process.Popen:
        self.observe()
        guard = self._lab.guard()
        ways = [
            f"--{kind}=/proc/{self._holder}/ns/{file}"
            for kind, file in _A_PROGRAM_ENTERS.items()
            if kind in self._kinds
        ]

        if ways and linux.in_child_user_namespace():
            ways.append("--preserve-credentials")  # the id that is mapped is one's own already

        def popen(argv: Sequence[str], **options: Any) -> Any:
            enter = [NSENTER.path(), *ways, "--"] if ways else []
            command = [*enter, *self.prefix, *argv]
            return start(command, **options)

        def in_namespaces(argv: Sequence[str], **options: Any) -> Any:
            return self._spawner.call_whole(guard.popen_here, argv, **options)

        start = self._confined(in_namespaces)  # nsenter may fork: the group is joined before it
        return popen


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


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
