"""`Content`: what a container has written and has in its files, seen from outside; no tool is needed in it."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from typing import Any

from ..core.errors import BadInput
from .engine import Engine, EngineError
from .image import Image, changes, local_name

__all__ = ["Content"]


class Content:
    """The log, the files and the published ports of a container on an engine."""

    name: str
    id: str
    engine: Engine

    def _demand(self) -> None:
        """See to it that the container is there."""

    def _inspect(self) -> Mapping[str, Any]:
        self._demand()
        found: Mapping[str, Any] = self.engine.ask("inspect_container", self.id)
        return found

    def logs(self, tail: int | None = None) -> str:
        """What it has written to standard output and error, in this order of time; or only the last `tail` lines."""
        self._demand()
        content: bytes = self.engine.ask("logs", self.id, tail="all" if tail is None else tail)
        return content.decode(errors="replace")

    def read_file(self, path: str) -> bytes:
        """The content of a file in the container; no tool is needed in it.

        Raises:
            BadInput: there is no such file, or it is a folder.
        """
        self._demand()
        try:
            chunks, _ = self.engine.ask("get_archive", self.id, path)
            archive = b"".join(chunks)
        except EngineError as error:
            raise BadInput(f"no file {path!r} in the container {self.name}: {error}") from error
        with tarfile.open(fileobj=io.BytesIO(archive)) as content:
            file = content.extractfile(content.getmembers()[0])
            if file is None:
                raise BadInput(f"{path!r} in the container {self.name} is no file")
            return file.read()

    def write_file(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file in the container, owned by root; its folder must be there."""
        self._demand()
        data = content.encode() if isinstance(content, str) else content
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            item = tarfile.TarInfo(os.path.basename(path))
            item.size, item.mode = len(data), mode
            tar.addfile(item, io.BytesIO(data))
        self.engine.ask("put_archive", self.id, os.path.dirname(path) or "/", archive.getvalue())

    def changes(self) -> dict[str, str]:
        """What differs from its image: ``added``, ``changed`` or ``deleted``, by path."""
        self._demand()
        words = ("changed", "added", "deleted")
        return {item["Path"]: words[item["Kind"]] for item in self.engine.ask("diff", self.id) or ()}

    def commit(self, name: str, **config: Any) -> Image:
        """Its files as a new layer on its image; the new image goes with the session.

        Args:
            name: for people.
            config: as ``infra_image.from_tree`` takes it.
        """
        self._demand()
        lines = [*changes(config), *(f"LABEL {label}={value}" for label, value in self.engine.labels.items())]
        image = Image(self.engine, local_name(name, self.id[:12]))
        repository, _, tag = image.tag.rpartition(":")
        self.engine.ask("commit", self.id, repository, tag, changes=lines)
        return image

    def published(self, port: int | str) -> int:
        """The port at which a published port of the container can be reached on the engine's own addresses.

        Raises:
            BadInput: it is not published.
        """
        key = str(port) if "/" in str(port) else f"{port}/tcp"
        found = self._inspect()["NetworkSettings"]["Ports"] or {}
        if not found.get(key):
            raise BadInput(f"port {port} of {self.name} is not published; published are {', '.join(found) or 'none'}")
        return int(found[key][0]["HostPort"])
