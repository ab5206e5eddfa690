"""Network namespaces that are held by a descriptor only: the kernel frees them when this process ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import count
from typing import Any, TypeVar

from ..core import linux
from ..core.errors import StartFailed
from ..core.keep import Holdings
from ..core.requirement import PRIVILEGE
from ..core.resource import Resource
from ..core.worker import Worker
from .netlink import NetlinkSocket
from .sysctl import read_all_sysctl, write_sysctl

__all__ = ["Entrance", "NetNamespace"]

T = TypeVar("T")
_SPARE_FILES = 400  # what settling opens for a while, and the test itself
_FIRST_INDEX = 100_000  # above what the kernel chooses for interfaces that others make here


class Entrance(Resource):
    """The thread that makes network namespaces and steps into them and back, so that no other thread has to.

    Each namespace is an open file: this process's soft limit of those (getrlimit(2)) is raised as they become many.
    """

    requires = (PRIVILEGE,)

    def __init__(self) -> None:
        self._indices = count(_FIRST_INDEX)
        self._settings: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    def _start(self, undo: ExitStack) -> None:
        self._worker = Worker("infra-entrance")
        undo.callback(self._worker.stop)
        self._home = self._worker.call(self._find_home)
        undo.callback(os.close, self._home)

    def _find_home(self) -> int:
        """Where the thread returns to: the machine's namespace, or a new one where a user may not enter that."""
        machine = linux.open_namespace("net")
        try:
            linux.setns(machine, linux.CLONE_NEWNET)
            return machine
        except BaseException as error:
            os.close(machine)
            if not isinstance(error, PermissionError):
                raise
        linux.unshare(linux.CLONE_NEWNET)
        return linux.open_namespace("net")

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function` in the thread, in no node's network namespace."""
        return self._worker.call_whole(function, *args)

    def within(self, fd: int, function: Callable[..., T], *args: Any) -> T:
        """Run `function` in the thread, in the network namespace behind `fd`."""
        value: T = self._worker.call_whole(self._within, fd, function, args)
        return value

    def next_index(self) -> int:
        """An interface index that no interface has in any namespace made here.

        The two ends of a veth must not have the same one: the kernel would take each for a device without a link, and
        report its carrier up to a second late (net/core/link_watch.c).
        """
        return next(self._indices)

    def make(self, setup: Callable[[], None]) -> int:
        """Make a network namespace, run `setup` in it, and return the descriptor that holds it."""
        return self._worker.call_whole(self._make, setup)

    def settings(self, made_with: Mapping[str, str], setup: Callable[[], None]) -> dict[str, str]:
        """All kernel settings of a new namespace after `setup`, which writes `made_with`; read once for each."""
        key = tuple(made_with.items())
        if key not in self._settings:
            found: dict[str, str] = {}

            def look() -> None:
                setup()
                found.update(read_all_sysctl())

            os.close(self.make(look))
            self._settings[key] = found
        return self._settings[key]

    def _within(self, fd: int, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        linux.setns(fd, linux.CLONE_NEWNET)
        try:
            return function(*args)
        finally:
            linux.setns(self._home, linux.CLONE_NEWNET)

    def _make(self, setup: Callable[[], None]) -> int:
        linux.unshare(linux.CLONE_NEWNET)
        try:
            setup()
            fd = linux.open_namespace("net")
        finally:
            linux.setns(self._home, linux.CLONE_NEWNET)
        _make_room_beyond(fd)
        return fd


def _make_room_beyond(fd: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if fd + _SPARE_FILES > soft and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * soft, hard), hard))


class NetNamespace(Resource):
    """A network namespace without a name (network_namespaces(7)).

    Args:
        name: for messages and thread names.
        entrance: the thread that makes it.
        sysctl: kernel settings written when it is made, before any interface is there.
    """

    fd = -1
    on_enter: Callable[[], None] = staticmethod(lambda: None)
    """Called in the namespace's thread when it enters; for a host that has more namespaces."""

    def __init__(self, name: str, entrance: Entrance, sysctl: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._entrance = entrance
        self._sysctl = dict(sysctl or {})
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []

    def _start(self, undo: ExitStack) -> None:
        self.fd = self._entrance.make(self._write_sysctl)
        undo.callback(self._close)

    def _write_sysctl(self) -> None:
        for name, value in self._sysctl.items():
            try:
                write_sysctl(name, value)
            except FileNotFoundError:
                if not name.startswith("net.ipv6."):  # a kernel without IPv6 has no such settings
                    raise

    def _close(self) -> None:
        self._idle.clear()
        while self._workers:
            self._workers.pop().stop()
        os.close(self.fd)
        self.fd = -1

    def hand_over(self, holdings: Holdings) -> None:
        """Whoever has its descriptor keeps it."""
        if self.fd >= 0:
            holdings.descriptors.append(self.fd)

    def next_index(self) -> int:
        """An index for a new interface here, chosen by us so that nothing needs to be read back."""
        return self._entrance.next_index()

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `function` in a thread that lives in the namespace; such a thread is made when none is idle.

        One call does not wait for another. A thread whose call was interrupted and runs on (a test's time limit,
        Ctrl-C) is not used again.
        """
        if any(worker.is_current for worker in tuple(self._workers)):
            return function(*args, **kwargs)
        worker = self._idle_worker() or self._entrance.call(self._make_worker)
        try:
            return worker.call(function, *args, **kwargs)
        finally:
            if worker.abandoned:
                self._workers.discard(worker)
                worker.stop(join_s=0.0)
            elif worker in self._workers:
                self._idle.append(worker)

    def _idle_worker(self) -> Worker | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _make_worker(self) -> Worker:
        self._check_open()
        worker = Worker(f"infra-{self.name}", self._enter)
        self._workers.add(worker)
        return worker

    def _check_open(self) -> None:
        if self.fd < 0:
            raise StartFailed(f"the network namespace of {self.name} is not there: its lab has ended")

    def _enter(self) -> None:
        linux.setns(self.fd, linux.CLONE_NEWNET)
        self.on_enter()

    def replace(self, fd: int) -> None:
        """Hold another namespace instead, which somebody else made; `fd` stays theirs."""
        self._entrance.within(fd, self._write_sysctl)
        os.dup2(fd, self.fd, inheritable=False)

    def within(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function`, which ends at once, in the namespace; unlike `call`, it does not wait for other calls."""
        self._check_open()
        return self._entrance.within(self.fd, function, *args)

    def settings_when_made(self) -> dict[str, str]:
        """All kernel settings as they are in a namespace that is made as this one was, before it has interfaces."""
        return self._entrance.settings(self._sysctl, self._write_sysctl)

    def netlink(self) -> NetlinkSocket:
        """A new rtnetlink socket in the namespace."""
        return self.within(NetlinkSocket)
