"""How an engine is asked for the GPUs of a container: Docker's device requests, and CDI.

With NVIDIA's container toolkit, Docker gives GPUs by UUID or number (``docker run --gpus``). The Container Device
Interface names devices of any vendor, ``nvidia.com/gpu=0``, from specifications in /etc/cdi and /run/cdi.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import BadInput, Unavailable
from ..core.requirement import find_program

if TYPE_CHECKING:
    from .engine import Engine, EngineError

__all__ = ["Device", "Gpus", "check_gpus", "device_requests", "raise_refusal"]

_UUID = re.compile(r"(GPU|MIG)-[\w/-]+", re.ASCII)
_CDI = re.compile(r"[A-Za-z][\w.-]*/[A-Za-z][\w.-]*=[A-Za-z0-9]([\w.:-]*[A-Za-z0-9])?", re.ASCII)
_WAYS = "give a number, 'all', GPUs of infra_gpu, their UUIDs, or CDI names such as 'vendor.com/class=name'"
_PODMAN_KNOWN = (5, 4)
_PODMAN = "Podman 5.4 or newer, or Docker"
_TOOLKIT = "install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker, and restart Docker"
_SPECIFICATION = "put its specification into /etc/cdi; NVIDIA's: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
_SWITCH_ON = 'Docker 25 or newer, with "features": {"cdi": true} in /etc/docker/daemon.json'


class Device(Protocol):
    """What has a UUID: a GPU of `infra_gpu`."""

    @property
    def uuid(self) -> str:
        """What names it for good."""


Gpus = int | str | Device | Sequence[str | Device]


def check_gpus(gpus: Gpus) -> None:
    """Look at what a container is to get.

    Raises:
        BadInput: it names no GPU.
    """
    if isinstance(gpus, int):
        if isinstance(gpus, bool) or gpus < 1:
            raise BadInput(f"gpus {gpus!r} is no number of GPUs; {_WAYS}")
        return
    names = _names(gpus)
    for name in names:
        if name.startswith("opencl-"):
            raise BadInput(f"{name} is a device of OpenCL: no engine hands it over; ask infra_gpu(backend='cuda')")
    if not names or not (gpus == "all" or all(_UUID.fullmatch(name) or _CDI.fullmatch(name) for name in names)):
        raise BadInput(f"gpus {gpus!r} names no GPU; {_WAYS}")


def _names(gpus: Gpus) -> list[str]:
    """UUIDs, CDI names, numbers or ``all``."""
    if isinstance(gpus, int):
        return [str(number) for number in range(gpus)]
    items = gpus if isinstance(gpus, Sequence) and not isinstance(gpus, str) else [gpus]
    return [item if isinstance(item, str) else str(getattr(item, "uuid", "")) for item in items]


def device_requests(gpus: Gpus | None, engine: Engine) -> dict[str, Any]:
    """The part of a container's host configuration that asks for them (HostConfig.DeviceRequests of the API).

    Raises:
        Unavailable: the engine might start the container and give it nothing.
    """
    if gpus is None:
        return {}
    if engine.podman and tuple(int(part) for part in re.findall(r"\d+", engine.version)[:2]) < _PODMAN_KNOWN:
        why = f"Podman {engine.version} heeds no device requests: it would start the container without"
        raise Unavailable("gpu", why, _PODMAN)
    names = _names(gpus)
    by_cdi = [name for name in names if "=" in name]
    by_toolkit = [name for name in names if "=" not in name]
    if by_toolkit and not _has_toolkit(engine):
        by_cdi, by_toolkit = [name if "=" in name else f"nvidia.com/gpu={name}" for name in names], []
    requests: list[dict[str, Any]] = [{"Driver": "cdi", "DeviceIDs": by_cdi}] if by_cdi else []
    if by_toolkit:
        count = gpus if isinstance(gpus, int) else -1
        which = {"Count": count} if isinstance(gpus, int) or gpus == "all" else {"DeviceIDs": by_toolkit}
        requests.append({"Driver": "nvidia", **which, "Capabilities": [["gpu"]]})
    return {"device_requests": requests}


def _has_toolkit(engine: Engine) -> bool:
    """Whether the engine gives NVIDIA's GPUs by itself, or at least knows no CDI either."""
    if engine.podman:
        return False
    info = engine.ask("info")
    hook = find_program("nvidia-container-runtime-hook")  # Docker looks for it when it starts
    return bool("nvidia" in (info.get("Runtimes") or {}) or hook or not info.get("CDISpecDirs"))


def raise_refusal(gpus: Gpus | None, engine: Engine, error: EngineError, name: str) -> None:
    """Say what is missing, where an engine's refusal is about GPUs.

    Raises:
        Unavailable: it is; the text has the engine's words.
    """
    text = str(error)
    if gpus is None or not re.search(r"device driver|\bCDI\b", text):
        return
    remedy = _SWITCH_ON if 'device driver "cdi"' in text else _SPECIFICATION if "CDI" in text else _TOOLKIT
    maker = "Podman" if engine.podman else "Docker"
    raise Unavailable("gpu", f"{maker} {engine.version} gives container {name} none: {text}", remedy) from error
