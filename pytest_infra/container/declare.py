"""Turning the arguments of ``lab.container`` into a container; everything from outside is validated here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.errors import BadInput
from ..core.units import duration_s
from .container import Container, ContainerLab
from .image import Image
from .options import container_options
from .ready import Condition
from .sandbox import Sandbox

__all__ = ["declare"]


def declare(
    name: str,
    image: Image | str,
    command: Sequence[str] | None,
    *,
    lab: ContainerLab,
    host: Any,
    sandbox: Sandbox,
    network: str | None,
    wait: Condition | Sequence[Condition],
    within: str | float,
    **options: Any,
) -> Container:
    """Make the container, which is not started yet.

    Raises:
        BadInput: an argument cannot be used.
    """
    if not isinstance(image, Image | str) or not str(image):
        raise BadInput(f"{image!r} is no image; give one of infra_image, or a name that the engine knows")
    conditions = (wait,) if isinstance(wait, Condition) else tuple(wait)
    for condition in conditions:
        if not isinstance(condition, Condition):
            raise BadInput(f"{condition!r} is nothing to wait for; give a condition of pytest_infra.ready")
    chosen = container_options(options)
    if chosen.ports and network is None:
        raise BadInput(
            f"container {name}: ports are published on Docker's networks only; give network='bridge', or leave ports "
            "out: every node of the lab reaches all ports of the container"
        )
    return Container(
        name,
        image,
        command,
        chosen,
        lab=lab,
        network=host,
        sandbox=sandbox,
        docker_network=network,
        ready=conditions,
        within_s=duration_s(within),
        declared_at=host.declared_at,
    )
