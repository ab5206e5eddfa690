"""`Dockerd`: a private Docker daemon that takes everything of its own with it, however its owner ends.

It runs in a PID namespace and a mount namespace that die with this process (`core.guard`), in a network namespace of
its own: its bridge, its firewall rules and its published ports are there, and not the machine's. Only its data folder
and its control group outlive a SIGKILL; both are on the lease.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, suppress

from ..core import linux
from ..core.errors import StartFailed
from ..core.guard import Guard
from ..core.lease import Lease
from ..core.process import Process
from ..core.progress import taking_long
from ..core.requirement import PRIVILEGE
from ..core.resource import Facts, Resource
from ..core.wait import until
from ..core.worker import Worker
from .requirement import answers, dockerd

__all__ = ["JOINS", "MACHINE_PROC", "RUNTIME", "SOCKET", "Dockerd", "private_network", "remove_groups"]

SOCKET, JOINS, MACHINE_PROC, RUNTIME = "/run/docker.sock", "/run/infra-joins", "/run/infra-proc", "infra"
"""Within the daemon's file system: its socket; a file per container that joins a network namespace, holding that
namespace's path; the machine's /proc, in which such a path is found. And the name of the runtime that reads them."""

_RUNTIME_PROGRAM, _CONFIG, _CDI = "/run/infra-runc", "/run/infra-docker.json", "/run/cdi"
_RUNTIME_SCRIPT = f"""#!/bin/sh
case " $* " in *" create "*)
    for word do
        case $before in --bundle | -b) bundle=$word ;; esac
        before=$word
    done
    if read -r path 2>/dev/null <{JOINS}/"${{bundle##*/}}"; then
        sed -i -e 's#{{"type":"network"}}#{{"type":"network","path":"'"$path"'"}}#' \\
            -e 's#{{"path":"/proc/[0-9]*/exe","args":\\["libnetwork-setkey"[^]]*\\]}}##' "$bundle/config.json"
    fi ;;
esac
exec runc "$@"
"""
# An OCI runtime joins the network namespace whose path its config.json gives (OCI runtime specification, "Linux
# namespaces"); the Docker API has no way to say so. The hook that is taken out would have the daemon take the namespace
# for one that it has made, and switch IPv6 off there.

_START_S = 60.0


class Dockerd(Resource):
    """A private Docker daemon."""

    requires = (PRIVILEGE,)

    def _start(self, undo: ExitStack) -> None:
        lease = undo.enter_context(Lease())
        group = f"/pytest-infra-{os.getpid()}"
        lease.add("docker-groups", group=group)
        undo.callback(remove_groups, group)
        data = f"/var/tmp/pytest-infra-docker-{os.getpid()}-{os.urandom(4).hex()}"  # noqa: S108 - made below, or fails
        lease.add("directory", path=data)
        os.mkdir(data, 0o711)
        network = private_network()
        undo.callback(os.close, network)
        self.guard = undo.enter_context(Guard("infra-dockerd", private=("/run",), machine_proc=MACHINE_PROC))
        self._prepare()
        argv = [dockerd().path(), "--data-root", data, "--exec-root", "/run/docker", "--host", f"unix://{SOCKET}"]
        argv += ["--pidfile", "/run/docker.pid", "--cgroup-parent", group, "--exec-opt", "native.cgroupdriver=cgroupfs"]
        argv += ["--add-runtime", f"{RUNTIME}={_RUNTIME_PROGRAM}", "--log-level", "warn", "--config-file", _CONFIG]
        popen = lambda argv, **options: self.guard.popen(argv, (network,), **options)  # noqa: E731
        self.process = Process(argv, where="the private Docker engine", popen=popen)
        undo.callback(self.process.close)  # before the guard: its first process ends only when this one is reaped
        socket_path = self.guard.root + SOCKET
        with taking_long("starting the private Docker engine"):
            until(
                lambda: answers(socket_path) or not self.process.running,
                within_s=_START_S,
                what="an answer of the private Docker daemon",
                last_words=self._log,
            )
        if not self.process.running:
            raise StartFailed(f"dockerd ended with {self.process.returncode}: {self._log()}")

    def _prepare(self) -> None:
        os.mkdir(self.guard.root + JOINS)
        path = self.guard.root + _RUNTIME_PROGRAM
        with open(path, "w", encoding="ascii") as file:
            file.write(_RUNTIME_SCRIPT)
        os.chmod(path, 0o755)  # noqa: S103
        with open(self.guard.root + _CONFIG, "w", encoding="ascii") as file:
            file.write('{"features": {"cdi": true}}')  # heeded since Docker 25
        if os.path.isdir(_CDI):  # its own /run hides what generators of CDI specifications write there
            shutil.copytree(_CDI, self.guard.root + _CDI)
        else:
            os.mkdir(self.guard.root + _CDI)

    def _log(self) -> str:
        return " | ".join(self.process.stderr.splitlines()[-5:])

    def describe(self) -> Facts:
        """The first process of its PID namespace, through which everything of it is found."""
        return {"pid": self.guard.pid}


def private_network() -> int:
    """A network namespace with its loopback up, in which the daemon runs."""
    maker = Worker("infra-docker-network")
    try:
        return maker.call(_unshare_network)
    finally:
        maker.stop()


def _unshare_network() -> int:
    import fcntl
    import socket
    import struct

    linux.unshare(linux.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        fcntl.ioctl(channel, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP (netdevice(7))
    return linux.open_namespace("net")


def remove_groups(group: str) -> None:
    """Remove the control groups of a daemon that has ended, in every hierarchy; they may be gone.

    Raises:
        OSError: a process is still in one.
    """
    top = "/sys/fs/cgroup"
    with suppress(FileNotFoundError):
        for folder in (top, *(os.path.join(top, name) for name in os.listdir(top))):
            for path, _, _ in os.walk(folder + group, topdown=False):
                with suppress(FileNotFoundError):
                    os.rmdir(path)
