"""What containers need of the machine, as data."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..core.linux import in_child_user_namespace
from ..core.requirement import Absent, Command, Present, PythonModule, Requirement

__all__ = ["DOCKER", "DockerEngine", "answers", "dockerd", "engine_addresses"]

_PACKAGES = {"apt": "docker.io", "dnf": "moby-engine", "pacman": "docker", "apk": "docker"}


def dockerd() -> Command:
    """The daemon's program, which is needed only where no engine answers."""
    return Command("docker", program="dockerd", packages=_PACKAGES)


def engine_addresses() -> list[str]:
    """Where an engine may answer: what DOCKER_HOST says and nothing else, or the usual sockets that are there.

    With PYTEST_INFRA_ENGINE=private there is none, and the session starts its own.
    """
    if os.environ.get("PYTEST_INFRA_ENGINE") == "private":
        return []
    if host := os.environ.get("DOCKER_HOST"):
        return [host]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "/run/nowhere")
    sockets = ("/run/docker.sock", "/run/podman/podman.sock", f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock")
    return [f"unix://{path}" for path in sockets if os.access(path, os.R_OK | os.W_OK)]


def answers(path: str) -> bool:
    """Whether the Docker Engine API answers at a socket."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(5)
        try:
            channel.connect(path)
            channel.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in channel.recv(64)
        except OSError:
            return False


@dataclass(frozen=True)
class DockerEngine(Requirement):
    """An engine that may answer, or what it takes to start a private one."""

    def probe(self) -> Present | Absent:
        """Look for the client, a socket, and the daemon's program; nothing is started."""
        client = PythonModule("docker", extra="docker").probe()
        if isinstance(client, Absent):
            return client
        if addresses := engine_addresses():
            return Present(addresses[0])
        if os.geteuid() != 0 or in_child_user_namespace():
            why = "no engine answers, and a private one needs root"
            return Absent(why, "run as root, or set DOCKER_HOST to an engine that you may use")
        if isinstance(daemon := dockerd().probe(), Absent):
            return Absent(f"no engine answers and {daemon.why}", daemon.remedy)
        return Present("private dockerd")


DOCKER = DockerEngine("docker", purpose="containers: lab.container(), infra_image", packages=_PACKAGES)
