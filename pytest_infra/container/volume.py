"""What a container can have mounted: a folder of the machine, a named volume, memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..core.units import size_bytes

__all__ = ["Bind", "Mount", "Tmpfs", "Volume"]


@dataclass(frozen=True)
class Bind:
    """A folder or file of the machine."""

    source: str | os.PathLike[str]
    read_only: bool = False

    def to_api(self, target: str, _labels: dict[str, str]) -> dict[str, Any]:
        """As the Docker Engine API has it."""
        source = os.path.abspath(self.source)
        return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": self.read_only}


@dataclass(frozen=True)
class Volume:
    """A volume of the engine, which containers of the same lab share by its name; it goes with the session.

    What the image has at that path is copied into it when it is empty.
    """

    name: str
    read_only: bool = False

    def to_api(self, target: str, labels: dict[str, str]) -> dict[str, Any]:
        """As the Docker Engine API has it."""
        options = {"Labels": labels}
        return {
            "Type": "volume",
            "Source": self.name,
            "Target": target,
            "ReadOnly": self.read_only,
            "VolumeOptions": options,
        }


@dataclass(frozen=True)
class Tmpfs:
    """A file system in memory, charged to the container that writes to it."""

    size: str | float | None = None
    """At most so much: ``"16 MiB"``, or bytes; half of the machine's memory by default (tmpfs(5))."""

    def to_api(self, target: str, _labels: dict[str, str]) -> dict[str, Any]:
        """As the Docker Engine API has it."""
        options = {} if self.size is None else {"SizeBytes": size_bytes(self.size)}
        return {"Type": "tmpfs", "Target": target, "TmpfsOptions": options}


Mount = Bind | Volume | Tmpfs
"""What can be mounted in a container."""
