"""`Engine`: the Docker Engine API that the session's containers come from, the machine's or a private one."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

from ..core.errors import InfraError, StartFailed, Unavailable
from ..core.resource import Facts, Resource
from ..core.selfrun import module_argv
from ..core.wait import until
from .clean import remove_session
from .dockerd import JOINS, MACHINE_PROC, RUNTIME, SOCKET
from .holder import connection_name, same_user
from .requirement import DOCKER, answers, dockerd, engine_addresses

__all__ = ["SESSION_LABEL", "Engine", "EngineError"]

T = TypeVar("T")

SESSION_LABEL = "pytest-infra.session"
"""The label of everything that a session makes on an engine; its value names the session's lease."""

_DETACHED = '"$@" </dev/null >/dev/null 2>&1 &'
_API_VERSION = "1.40"  # Docker 19.03 (2019) and later, Podman 3 and later
_START_S = 90.0


class EngineError(InfraError):
    """The engine refused a request; the text is its own."""


class Engine(Resource):
    """The engine that answers; where none does, a private one that the processes of a session share.

    Args:
        key: the session's key: processes with the same one share an engine.
        session: the value of `SESSION_LABEL` for what this process makes.
    """

    requires = (DOCKER,)

    def __init__(self, key: str, session: str) -> None:
        self._key = key
        self.labels = {SESSION_LABEL: session}
        self.private = False
        """Whether it is a private one."""
        self.podman = False
        """Whether it is Podman, which speaks Docker's language with an accent."""
        self.proc = "/proc"
        """The folder in which the engine's process ids are found."""
        self._root = ""
        self._idle: list[Any] = []
        self._change = threading.Lock()

    def _start(self, undo: ExitStack) -> None:
        undo.callback(self._close_clients)
        addresses = engine_addresses()
        for address in addresses:
            self.address = address
            kind, _, path = address.partition("://")
            if kind == "unix" and not answers(path):  # the client leaks a socket when it cannot connect
                continue
            with suppress(EngineError):
                self.ask("ping")
                break
        else:
            if os.environ.get("DOCKER_HOST"):
                raise Unavailable("docker", f"no engine answers at DOCKER_HOST={addresses[0]}", "start it, or unset it")
            self._start_private(undo)
        found = self.ask("version")
        self.version = str(found["Version"])
        self.podman = any("Podman" in part["Name"] for part in found.get("Components") or ())

    def _start_private(self, undo: ExitStack) -> None:
        dockerd().demand()
        greeting = until(
            lambda: self._join_session(undo), within_s=_START_S, what="the session's private Docker engine"
        )
        if "error" in greeting:
            raise StartFailed(f"the private Docker engine: {greeting['error']}")
        self.private = True
        self._root = f"/proc/{greeting['pid']}/root"
        self.proc = f"{self._root}/proc"
        self.address = f"unix://{self._root}{SOCKET}"
        self.pid = int(greeting["pid"])

    def _join_session(self, undo: ExitStack) -> dict[str, Any]:
        """Connect to the process that holds the engine; where there is none, start one. Empty: try again."""
        import json

        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        channel.settimeout(_START_S)
        try:
            channel.connect(connection_name(self._key))
            greeting = channel.recv(65536) if same_user(channel) else b""
        except ConnectionRefusedError:
            channel.close()
            argv = module_argv("pytest_infra.container.holder", self._key)
            subprocess.run(["/bin/sh", "-c", _DETACHED, "sh", *argv], check=True, start_new_session=True, cwd="/")
            return {}
        except OSError:
            greeting = b""
        if not greeting:  # it is on its way out
            channel.close()
            return {}
        undo.callback(_leave, channel)
        _close_in_children(channel)
        found: dict[str, Any] = json.loads(greeting)
        return found

    # -- asking ------------------------------------------------------------------------------------------------

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A `docker.APIClient` for the moment; it is not safe to share one between threads."""
        with self._change:
            client = self._idle.pop() if self._idle else None
        client = client or self.new_client()
        try:
            yield client
        finally:
            with self._change:
                self._idle.append(client)

    def new_client(self) -> Any:
        """A `docker.APIClient` that the caller closes."""
        import docker

        try:
            client = docker.APIClient(base_url=self.address, version=_API_VERSION, timeout=120)
        except docker.errors.DockerException as error:
            raise EngineError(f"the engine at {self.address}: {error}") from error
        client.headers["Connection"] = "close"  # the client keeps a connection for each path that it has asked for
        return client

    def ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client.

        Raises:
            EngineError: the engine refused it, or is not there.
        """
        if self.private and not os.path.exists(self._root):  # the client leaks a socket when it cannot connect
            raise EngineError("the session's private engine has ended: somebody or something killed it")
        with self.client() as client:
            return self.translate(getattr(client, method), *args, **kwargs)

    def translate(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function that talks to the engine, and raise its errors as `EngineError`."""
        import docker.errors
        import requests

        try:
            return function(*args, **kwargs)
        except docker.errors.APIError as error:
            raise EngineError(str(error.explanation or error)) from error
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise EngineError(f"the engine at {self.address} does not answer: {error}") from error

    def _close_clients(self) -> None:
        while self._idle:
            self._idle.pop().close()

    # -- processes and namespaces ------------------------------------------------------------------------------

    def namespace(self, pid: int, kind: str, container: str) -> int:
        """A new descriptor of a namespace of the first process of a container.

        Raises:
            InfraError: the engine's processes cannot be seen from here.
        """
        try:
            with open(f"{self.proc}/{pid}/cgroup", encoding="utf-8") as groups:
                if not self.private and container not in groups.read():
                    raise ProcessLookupError(0, "another process has that number here")
            return os.open(f"{self.proc}/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            why = error.strerror or str(error)
            raise InfraError(
                f"process {pid} of the engine at {self.address} cannot be entered from here: {why}"
            ) from None

    def kill_group(self, leader: int, number: int) -> None:
        """Send a signal to a process of the engine and those of its group; they may have ended."""
        for name in os.listdir(self.proc):
            if not name.isdigit():
                continue
            with suppress(OSError), open(f"{self.proc}/{name}/stat", encoding="utf-8", errors="replace") as stat:
                if int(stat.read().rpartition(")")[2].split()[2]) != leader:  # its process group (proc_pid_stat(5))
                    continue
                process = os.open(f"{self.proc}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    signal.pidfd_send_signal(process, number)  # takes a folder of /proc too (pidfd_send_signal(2))
                finally:
                    os.close(process)

    def machine_pid(self, pid: int) -> int:
        """The id that the machine gives a process which the engine calls `pid`.

        Raises:
            InfraError: it cannot be seen from here.
        """
        if not self.private:
            return pid
        for name in os.listdir("/proc"):
            with suppress(OSError):
                if name.isdigit() and os.path.samefile(f"/proc/{name}/ns/pid", f"{self.proc}/{pid}/ns/pid"):
                    with open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as status:
                        line = next((line for line in status if line.startswith("NSpid:")), "")
                    if str(pid) in line.split()[2:]:
                        return int(name)
        raise InfraError(f"process {pid} of the private engine cannot be seen from here: it has ended")

    def join(self, container: str, fd: int) -> Callable[[], None]:
        """Have a container, made and not started, live in the network namespace behind `fd`; returns the undoing.

        It does so each time it is started, by whomever.
        """
        path = f"{self._root}{JOINS}/{container}"
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{MACHINE_PROC}/{os.getpid()}/fd/{fd}\n")

        def undo() -> None:
            with suppress(OSError):  # the engine has gone, and its files with it
                os.unlink(path)

        return undo

    def joining_options(self) -> Mapping[str, Any]:
        """What a container of a private engine must be made with so that it can `join` a network namespace."""
        return {"network_mode": "none", "runtime": RUNTIME}

    def network(self) -> int:
        """A new descriptor of the network namespace that the engine runs in, where it publishes ports.

        Raises:
            InfraError: it is not on this machine.
        """
        kind, _, path = self.address.partition("://")
        if kind != "unix":
            raise InfraError(f"the engine at {self.address} is not on this machine")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(path)
            pid, _, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def remove_mine(self) -> None:
        """Remove what this process has made on it: containers, networks, volumes, images."""
        ((name, value),) = self.labels.items()
        remove_session(self.address, f"{name}={value}")

    def describe(self) -> Facts:
        """Where it is, what it is, and its version."""
        kind = "Podman" if self.podman else "Docker"
        return {"address": self.address, "kind": kind, "version": self.version, "private": self.private}


def _leave(channel: socket.socket) -> None:
    """Tell the holder that this process needs the engine no longer; the last one waits until the engine is gone."""
    with channel, suppress(OSError):
        channel.shutdown(socket.SHUT_WR)
        channel.recv(1)


def _close_in_children(channel: socket.socket) -> None:
    known = weakref.ref(channel)

    def close() -> None:
        if (mine := known()) is not None:
            mine.close()

    os.register_at_fork(after_in_child=close)
