"""What a container can be made with, validated and put into the words of the Docker Engine API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..core.errors import BadInput
from ..core.units import duration_s, rate_bps, size_bytes
from .check_options import check_options
from .gpus import Gpus
from .volume import Mount

__all__ = ["ContainerOptions", "Health", "container_options"]


@dataclass(frozen=True)
class Health:
    """A command that the engine runs in the container again and again: exit status 0 means healthy."""

    command: Sequence[str]
    interval: str | float = "500 ms"
    timeout: str | float = "5 s"
    retries: int = 3
    start_period: str | float = 0
    """How long failures do not count."""

    def to_api(self) -> dict[str, Any]:
        """As the Docker Engine API has it: times in nanoseconds."""
        return {
            "test": ["CMD", *self.command],
            "interval": round(duration_s(self.interval) * 1e9),
            "timeout": round(duration_s(self.timeout) * 1e9),
            "retries": self.retries,
            "start_period": round(duration_s(self.start_period) * 1e9),
        }


@dataclass(frozen=True)
class ContainerOptions:
    """How a container is made; all of it can be given to ``lab.container`` by name."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables."""
    entrypoint: Sequence[str] | None = None
    """Instead of the image's."""
    user: str = ""
    """``NAME``, ``UID`` or ``UID:GID``; the image's by default."""
    workdir: str = ""
    hostname: str = ""
    """The node's name by default."""
    read_only: bool = False
    """Whether its root file system can only be read."""
    volumes: Mapping[str, Mount] = field(default_factory=dict)
    """What is mounted, by the path in the container: `Bind`, `Volume` or `Tmpfs`."""
    ports: Sequence[int | str] = ()
    """What is published, on a port of the engine's choice: ``80``, ``"53/udp"``. Only on Docker's networks."""
    memory: str | float | None = None
    """At most so much memory: ``"64 MiB"``, or bytes. There is no swap besides it."""
    cpus: float | None = None
    """At most so many CPUs' time: ``0.5``."""
    cpu_shares: int | None = None
    """Its weight when CPUs are short; 1024 by default, 2 at least."""
    cpuset: str = ""
    """The CPUs that it may use: ``"0-1"``."""
    pids: int | None = None
    """At most so many processes and threads."""
    read_rate: Mapping[str, str | float] = field(default_factory=dict)
    """At most so many bits per second read from a device: ``{"/dev/vda": "8 Mbit/s"}``."""
    write_rate: Mapping[str, str | float] = field(default_factory=dict)
    """The same for writing."""
    gpus: Gpus | None = None
    """GPUs that it sees: those that `infra_gpu` gave, UUIDs, CDI names (``"vendor.com/class=name"``), a number, or
    ``"all"``. A number or ``"all"`` holds them against no other test."""
    health: Health | None = None
    restart: str = "no"
    """What the engine does when it ends: ``no``, ``always``, ``on-failure``, ``on-failure:3``, ``unless-stopped``."""
    capabilities: Sequence[str] = ()
    """Capabilities besides the engine's usual ones: ``["NET_ADMIN"]``."""
    privileged: bool = False
    init: bool = False
    """Whether the engine's own first process reaps the orphans of the container."""
    sysctl: Mapping[str, str] = field(default_factory=dict)
    """Settings of its IPC namespace; for those of the network use the node's own `sysctl`."""
    extra_hosts: Mapping[str, str] = field(default_factory=dict)
    """More lines for its /etc/hosts: the address by name."""
    log_limit: str | float = "10 MiB"
    """How long its log may grow; the oldest half is dropped."""

    def host_config(self, scope: Mapping[str, str]) -> dict[str, Any]:
        """The part that concerns the machine: limits, mounts, restarts, the log; `scope` tells volumes apart."""
        bounds: dict[str, Any] = {}
        if self.memory is not None:
            bounds["mem_limit"] = bounds["memswap_limit"] = size_bytes(self.memory)
        if self.cpus is not None:
            bounds |= {"cpu_period": 100_000, "cpu_quota": round(self.cpus * 100_000)}
        bounds |= {"cpu_shares": self.cpu_shares, "cpuset_cpus": self.cpuset or None, "pids_limit": self.pids}
        bounds["device_read_bps"] = _rates(self.read_rate)
        bounds["device_write_bps"] = _rates(self.write_rate)
        name, _, count = self.restart.partition(":")
        half = max(1, size_bytes(self.log_limit) // 2)
        return {
            **{key: value for key, value in bounds.items() if value is not None},
            "mounts": [mount.to_api(target, scope) for target, mount in self.volumes.items()],
            "port_bindings": {str(port): None for port in self.ports},
            "restart_policy": {"Name": name, "MaximumRetryCount": int(count or 0)},
            "log_config": {"type": "json-file", "config": {"max-size": f"{half}b", "max-file": "2"}},
            "cap_add": list(self.capabilities),
            "privileged": self.privileged,
            "read_only": self.read_only,
            "init": self.init or None,
            "sysctls": dict(self.sysctl) or None,
            "extra_hosts": dict(self.extra_hosts) or None,
        }

    def config(self) -> dict[str, Any]:
        """The part that concerns the container itself."""
        return {
            "environment": dict(self.env),
            "entrypoint": None if self.entrypoint is None else list(self.entrypoint),
            "user": self.user or None,
            "working_dir": self.workdir or None,
            "healthcheck": self.health.to_api() if self.health else None,
            "ports": [tuple(str(port).split("/")) if "/" in str(port) else int(port) for port in self.ports],
        }


def _rates(rates: Mapping[str, str | float]) -> list[dict[str, Any]] | None:
    return [{"Path": path, "Rate": round(rate_bps(rate) / 8)} for path, rate in rates.items()] or None


def container_options(options: Mapping[str, Any]) -> ContainerOptions:
    """The options by their names.

    Raises:
        BadInput: one is unknown, or cannot be used.
    """
    known = [item.name for item in fields(ContainerOptions)]
    if unknown := sorted(set(options) - set(known)):
        raise BadInput(f"a container has no option {', '.join(unknown)}; there are {', '.join(known)}")
    made = ContainerOptions(**options)
    check_options(made)
    return made
