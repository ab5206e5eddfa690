"""Removing what a session made on an engine: by its label, when the session has died."""

from __future__ import annotations

from contextlib import suppress

from ..core.errors import InfraError
from .requirement import answers

__all__ = ["remove_session"]


def remove_session(address: str, label: str) -> None:
    """Remove the containers, networks, volumes and images that carry a label; an engine that has gone has none.

    Args:
        address: the engine's.
        label: ``NAME=VALUE``.

    Raises:
        InfraError: the engine refused to remove something.
    """
    import docker
    import requests

    kind, _, path = address.partition("://")
    if kind == "unix" and not answers(path):
        return
    try:
        client = docker.APIClient(base_url=address, version="1.40", timeout=30)
        client.ping()
    except (docker.errors.DockerException, requests.RequestException):
        return
    wanted = {"label": [label]}
    errors = []
    try:
        for method, items in (
            (
                lambda name: client.remove_container(name, v=True, force=True),
                client.containers(all=True, filters=wanted),
            ),
            (client.remove_network, client.networks(filters=wanted)),
            (lambda name: client.remove_volume(name, force=True), client.volumes(filters=wanted)["Volumes"] or ()),
            (lambda name: client.remove_image(name, force=True), client.images(filters=wanted)),
        ):
            for item in items:
                with suppress(docker.errors.NotFound):
                    try:
                        method(item.get("Id") or item["Name"])
                    except docker.errors.APIError as error:
                        if error.status_code != 404:
                            errors.append(str(error.explanation))
    except (docker.errors.DockerException, requests.RequestException) as error:
        errors.append(str(error))
    finally:
        client.close()
    if errors:
        raise InfraError(f"on the engine at {address}: {'; '.join(errors)}")
