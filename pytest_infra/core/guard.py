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
from typing import Any

from . import linux
from .requirement import PRIVILEGE
from .resource import Resource
from .worker import Worker, in_thread

__all__ = ["Guard"]

_INIT = """
mount -t proc proc /proc 2>/dev/null
trap '' CHLD
echo ready
exec cat
"""
# Ignoring SIGCHLD survives exec, and makes the kernel reap what the namespace's orphans leave.


class Guard(Resource):
    """A PID namespace and a mount namespace whose processes cannot outlive this one.

    Args:
        name: for the names of its threads.
        private: folders over which an empty file system of the guard's own is mounted.
    """

    requires = (PRIVILEGE,)

    def __init__(self, name: str = "guard", private: Sequence[str] = ()) -> None:
        self.name = name
        self.private = tuple(private)

    def _start(self, undo: ExitStack) -> None:
        self._init = in_thread(self._start_init)
        undo.callback(self._end)
        assert self._init.stdout is not None
        if self._init.stdout.readline() != b"ready\n":
            raise RuntimeError("the first process of a PID namespace did not come up")
        self._pid_fd = os.open(f"/proc/{self._init.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, self._pid_fd)
        self._mnt_fd = os.open(f"/proc/{self._init.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, self._mnt_fd)
        self._spawner = Worker(f"{self.name}-spawner", self._enter)
        undo.callback(self._spawner.stop)

    def _start_init(self) -> subprocess.Popen[bytes]:
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWPID)
        linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
        for folder in self.private:
            linux.mount("tmpfs", folder, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
        return subprocess.Popen(
            ["/bin/sh", "-c", _INIT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def _end(self) -> None:
        self._init.kill()  # the kernel kills the rest of the namespace before this can be reaped
        for stream in (self._init.stdin, self._init.stdout):
            if stream is not None:
                stream.close()
        self._init.wait()

    def _enter(self) -> None:
        linux.unshare(linux.CLONE_NEWNS)  # setns() into a mount namespace needs a root and cwd of the thread's own
        linux.setns(self._mnt_fd, linux.CLONE_NEWNS)
        linux.setns(self._pid_fd, linux.CLONE_NEWPID)

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
        options.setdefault("cwd", os.getcwd())
        options.setdefault("start_new_session", True)
        return self._spawner.call(self._popen, argv, enter, options)

    @staticmethod
    def _popen(argv: Sequence[str], enter: Sequence[int], options: dict[str, Any]) -> subprocess.Popen[bytes]:
        for fd in enter:
            linux.setns(fd)
        return subprocess.Popen(argv, **options)
