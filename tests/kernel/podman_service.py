"""Podman's API in namespaces of its own, as `container.dockerd` has Docker's: for the tests of an engine that is there.

Its /run, its bridge and its published ports are private; its processes and mounts go with the guard.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from pytest_infra.container.dockerd import private_network, remove_groups
from pytest_infra.container.requirement import answers
from pytest_infra.core.guard import Guard
from pytest_infra.core.process import Process
from pytest_infra.core.requirement import PRIVILEGE, find_program
from pytest_infra.core.resource import Resource
from pytest_infra.core.wait import until

__all__ = ["SOCKET", "PodmanService"]

SOCKET = "/run/podman/podman.sock"
_GROUPS = "/libpod_parent"
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "netavark"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
# Root without CAP_SYS_RESOURCE may not raise limits, which Podman's usual ones do; crun refuses hybrid control groups.


class PodmanService(Resource):
    """``podman system service``; `guard` is the namespaces it runs in.

    Args:
        folder: for its images and containers.
    """

    requires = (PRIVILEGE,)

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _start(self, undo: ExitStack) -> None:
        (self._folder / "containers.conf").write_text(_CONFIGURATION)
        network = private_network()
        undo.callback(os.close, network)
        if not any(os.path.exists(f"/sys/fs/cgroup/{name}{_GROUPS}") for name in ("", "pids")):
            undo.callback(remove_groups, _GROUPS)
        self.guard = undo.enter_context(Guard("infra-podman", private=("/run",)))
        for name in ("podman", "libpod"):
            os.mkdir(f"{self.guard.root}/run/{name}")
        argv = [find_program("podman") or "podman", "--root", self._folder / "root", "--runroot", "/run/libpod"]
        argv += ["--storage-driver", "overlay", "system", "service", "--time=0", f"unix://{SOCKET}"]
        env = {**os.environ, "CONTAINERS_CONF": str(self._folder / "containers.conf")}
        popen = lambda argv, **options: self.guard.popen(argv, (network,), **options)  # noqa: E731
        self.process = Process(argv, where="Podman", popen=popen, env=env)
        undo.callback(self.process.close)
        until(
            lambda: answers(self.guard.root + SOCKET) or not self.process.running,
            within_s=60,
            what="an answer of Podman",
            last_words=lambda: self.process.stderr,
        )
