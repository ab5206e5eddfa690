"""What a container can have mounted: a folder of the machine, a named volume, memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.units import size_bytes

__all__ = ["Bind", "Mount", "Tmpfs", "Volume"]


@dataclass(frozen=True)
class Bind:
    """A folder or file of the machine."""

    source: str | os.PathLike[str]
    read_only: bool = False

    def to_api(self, target: str, _scope: Mapping[str, str]) -> dict[str, Any]:
        """As the Docker Engine API has it."""
        source = os.path.abspath(self.source)
        return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": self.read_only}


@dataclass(frozen=True)
class Volume:
    """A volume of the engine, which containers of the same lab share by its name; it goes with the last of them.

    What the image has at that path is copied into it when it is empty.
    """

    name: str
    read_only: bool = False

    def full_name(self, scope: Mapping[str, str]) -> str:
        """Its name on the engine, which nobody else uses; `scope` is the labels of the container."""
        digest = hashlib.sha256(repr((sorted(scope.items()), self.name)).encode()).hexdigest()
        return f"pytest-infra-{digest[:24]}"

    def to_api(self, target: str, scope: Mapping[str, str]) -> dict[str, Any]:
        """As the Docker Engine API has it."""
        options = {"Labels": dict(scope)}
        return {
            "Type": "volume",
            "Source": self.full_name(scope),
            "Target": target,
            "ReadOnly": self.read_only,
            "VolumeOptions": options,
        }


@dataclass(frozen=True)
class Tmpfs:
    """A file system in memory, charged to the container that writes to it."""

    size: str | float | None = None
    """At most so much: ``"16 MiB"``, or bytes; half of the machine's memory by default (tmpfs(5))."""

    def to_api(self, target: str, _scope: Mapping[str, str]) -> dict[str, Any]:
        """As the Docker Engine API has it."""
        options = {} if self.size is None else {"SizeBytes": size_bytes(self.size)}
        return {"Type": "tmpfs", "Target": target, "TmpfsOptions": options}


Mount = Bind | Volume | Tmpfs
"""What can be mounted in a container."""
