"""What is wrong with the options of a container, said before anything is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..core.errors import BadInput
from ..core.units import size_bytes
from .gpus import check_gpus
from .volume import Bind, Tmpfs, Volume

if TYPE_CHECKING:
    from .options import ContainerOptions

__all__ = ["check_options"]

_RESTART = re.compile(r"no|always|unless-stopped|on-failure(:[1-9][0-9]*)?")
_PORT = re.compile(r"([1-9][0-9]{0,4})(/(tcp|udp|sctp))?")
_CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LISTS = ("entrypoint", "ports", "capabilities")
_MAPPINGS = ("env", "volumes", "read_rate", "write_rate", "sysctl", "extra_hosts")
_BOUNDS = {"cpus": (0.01, 10_000), "cpu_shares": (2, 262_144), "pids": (1, 4_194_304)}
"""What Docker takes as a limit. A number below it would mean "no limit" there, and the test would not know."""


def check_options(options: ContainerOptions) -> None:
    """Look at what a type cannot say.

    Raises:
        BadInput: what is wrong, and what is allowed.
    """
    _check_kinds(options)
    _check_limits(options)
    _check_process(options)
    _check_files(options)
    if options.gpus is not None:
        check_gpus(options.gpus)
    for port in options.ports:
        found = _PORT.fullmatch(str(port))
        if not found or int(found[1]) > 65_535:
            raise BadInput(f"port {port!r} cannot be published; give a number to 65535, or a text such as '53/udp'")


def _check_kinds(options: ContainerOptions) -> None:
    from .options import Health

    for name in _LISTS:
        if isinstance(value := getattr(options, name), str | bytes):
            raise BadInput(f"{name} is a list, not a text: write [{value!r}]")
    for name in _MAPPINGS:
        if not isinstance(value := getattr(options, name), Mapping):
            raise BadInput(f"{name} is a mapping, {{NAME: VALUE}}; got {value!r}")
    if options.health is not None and not isinstance(options.health, Health):
        raise BadInput(f"health {options.health!r} is no health command; write Health(['PROGRAM', 'ARGUMENT'])")


def _check_limits(options: ContainerOptions) -> None:
    for name, (least, most) in _BOUNDS.items():
        value = getattr(options, name)
        kinds = int | float if name == "cpus" else int
        known = isinstance(value, kinds) and not isinstance(value, bool)
        if value is not None and not (known and least <= value <= most):
            kind = "number" if name == "cpus" else "whole number"
            raise BadInput(f"{name} {value!r} is not allowed; give a {kind} from {least} to {most}")
    if options.memory is not None and size_bytes(options.memory) < 6 << 20:
        raise BadInput(f"memory {options.memory!r} is too little: Docker needs at least 6 MiB")
    if options.cpuset and not _CPUS.fullmatch(options.cpuset):
        raise BadInput(f"cpuset {options.cpuset!r} is no list of CPUs; write '0-1,3'")


def _check_process(options: ContainerOptions) -> None:
    if not _RESTART.fullmatch(options.restart):
        allowed = "no, always, unless-stopped, on-failure and on-failure:NUMBER"
        raise BadInput(f"restart {options.restart!r} is not allowed; allowed are {allowed}")
    for name, value in options.env.items():
        if not isinstance(name, str) or not name or "=" in name or not isinstance(value, str):
            raise BadInput(f"env {{{name!r}: {value!r}}} is no variable; both are texts, and there is no '=' in a name")
    if options.hostname and not _HOSTNAME.fullmatch(options.hostname):
        raise BadInput(f"hostname {options.hostname!r} is not allowed; give at most 64 letters, digits, '-', '.', '_'")
    if options.workdir and not options.workdir.startswith("/"):
        raise BadInput(f"workdir {options.workdir!r} must begin with '/'")


def _check_files(options: ContainerOptions) -> None:
    for target, mount in options.volumes.items():
        if not target.startswith("/"):
            raise BadInput(f"the path {target!r} of a volume in the container must begin with '/'")
        if not isinstance(mount, Bind | Volume | Tmpfs):
            raise BadInput(f"{mount!r} cannot be mounted at {target}; give a Bind, a Volume or a Tmpfs")
