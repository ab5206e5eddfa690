"""`Guard`: a PID namespace that dies with this process, so that no child can outlive it.

Its first process waits on a pipe whose other end only this process holds. When this process ends, even by
SIGKILL, the kernel closes the pipe, that process ends, and the kernel kills everything else in the
namespace: daemons, their children, whatever called setsid (pid_namespaces(7)). A mount namespace beside it
gives the processes a /proc that shows only themselves, and takes its mounts with it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

from . import linux
from .errors import CleanupFailed, StartFailed
from .keep import Holdings
from .process import await_end
from .requirement import PRIVILEGE
from .resource import Resource
from .worker import Worker

__all__ = ["Guard"]

_END_S = 10.0
_INIT = """
mount -t proc proc /proc 2>/dev/null
exec 3<&0
echo ready
until cat <&3 >/dev/null & wait $!; do [ $? -gt 128 ] || exit; done
"""
# The pipe's end ends it; where a process of the namespace kills cat, another one is started. A shell that waits for
# one child reaps any other too: also those that the namespace's processes leave behind.


@lru_cache(maxsize=1)
def _lifelines() -> set[int]:
    """The pipe ends that keep guards alive. A process forked from this one closes them, as it may live on."""
    lifelines: set[int] = set()

    def let_go() -> None:
        while lifelines:
            os.close(lifelines.pop())

    os.register_at_fork(after_in_child=let_go)
    return lifelines


def _cut(lifeline: int) -> None:
    _lifelines().discard(lifeline)
    os.close(lifeline)


class Guard(Resource):
    """A PID namespace and a mount namespace whose processes cannot outlive this one.

    Args:
        name: for the names of its threads.
        private: folders over which an empty file system of the guard's own is mounted.
        machine_proc: a folder, below one of `private`, at which its processes find the /proc of this process.
    """

    requires = (PRIVILEGE,)

    def __init__(self, name: str = "guard", private: Sequence[str] = (), machine_proc: str = "") -> None:
        self.name = name
        self.private = tuple(private)
        self._machine_proc = machine_proc
        self._children: set[subprocess.Popen[bytes]] = set()
        self._kept = False

    def _start(self, undo: ExitStack) -> None:
        self._spawner = Worker(f"{self.name}-spawner", self._enter)
        undo.callback(self._spawner.stop)
        waiting, lifeline = os.pipe2(os.O_CLOEXEC)
        self._lifeline = lifeline
        try:
            _lifelines().add(lifeline)
            undo.callback(_cut, lifeline)
            self._init = self._spawner.call(self._start_init, waiting)
        finally:
            os.close(waiting)
        with self._init.stdout as stdout:  # type: ignore[union-attr]
            undo.callback(self._kill)
            if stdout.readline() != b"ready\n":
                raise StartFailed(f"{self.name}: the first process of a PID namespace did not come up")

    def _enter(self) -> None:
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWPID)  # the first child is the PID namespace's first process
        linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
        for folder in self.private:
            linux.mount("tmpfs", folder, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
        if self._machine_proc:
            os.mkdir(self._machine_proc)
            linux.mount("/proc", self._machine_proc, flags=linux.MS_BIND)

    @staticmethod
    def _start_init(waiting: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/sh", "-c", _INIT],
            stdin=waiting,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def _kill(self) -> None:
        """Kill the first process: the kernel kills the others, and lets it be reaped when all of them have been."""
        if self._kept:
            return
        self._init.kill()
        for child in (*self._children, self._init):
            if not await_end(child.pid, _END_S):
                raise CleanupFailed(f"{self.name}: process {child.pid} has been killed and does not end")
            child.wait()

    def hand_over(self, holdings: Holdings) -> None:
        """Whoever has the other end of its pipe keeps its processes."""
        holdings.descriptors.append(self._lifeline)
        holdings.taken.append(self._let_go)

    def _let_go(self) -> None:
        self._kept = True
        for child in (*self._children, self._init):
            if child.poll() is None:
                child.returncode = 0  # nobody here waits for it: Popen would warn

    @property
    def pid(self) -> int:
        """The process id, outside, of the namespace's first process."""
        return self._init.pid

    @property
    def root(self) -> str:
        """The path, outside, of the file system that the processes see."""
        return f"/proc/{self._init.pid}/root"

    def popen(self, argv: Sequence[str], enter: Sequence[int] = (), **options: Any) -> subprocess.Popen[bytes]:
        """Start a process in the guard and in the namespaces behind the descriptors `enter`.

        `options` are those of `subprocess.Popen`. The process is a child of this one, in a session of its own.
        """
        if "cwd" not in options:
            options["cwd"] = os.getcwd()
        options.setdefault("start_new_session", True)
        return self._spawner.call_whole(self._enter_and_popen, argv, enter, options)

    def _enter_and_popen(
        self, argv: Sequence[str], enter: Sequence[int], options: dict[str, Any]
    ) -> subprocess.Popen[bytes]:
        for fd in enter:
            linux.setns(fd)
        return self.popen_here(argv, **options)

    def popen_here(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process from the calling thread, which lives in the guard's PID namespace or in one below it."""
        for child in tuple(self._children):
            if child.returncode is not None:
                self._children.discard(child)
        child = subprocess.Popen(argv, **options)
        self._children.add(child)
        return child
