"""`Content`: what a container has written and has in its files, seen from outside; no tool is needed in it."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..core import linux
from ..core.errors import BadInput, InfraError
from ..core.worker import Worker
from .engine import Engine, EngineError
from .image import Image, changes, local_name
from .state import read_state

__all__ = ["Content"]

_CLONE_FS = 0x200


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
        """The content of a file in the container, as its processes see it; no tool is needed in it.

        Of a container that does not run, what is in its own files: not in volumes in memory, nor in /proc.

        Raises:
            BadInput: there is no such file, or it is a folder.
        """
        self._demand()
        try:
            with self._mounts() as inside:
                return self._archived(path) if inside is None else inside.call(_read, path)
        except (EngineError, FileNotFoundError) as error:
            raise BadInput(f"no file {path!r} in the container {self.name}: {error}") from error
        except OSError as error:
            raise BadInput(f"{path!r} in the container {self.name} cannot be read: {error.strerror}") from error

    def _archived(self, path: str) -> bytes:
        chunks, _ = self.engine.ask("get_archive", self.id, path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as content:
            file = content.extractfile(content.getmembers()[0])
            if file is None:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            return file.read()

    def write_file(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file in the container, owned by root; its folder must be there.

        Into a container that does not run, below its volumes in memory.

        Raises:
            BadInput: there is no such folder, or it cannot be written to.
        """
        self._demand()
        data = content.encode() if isinstance(content, str) else content
        try:
            with self._mounts() as inside:
                if inside is not None:
                    inside.call(_write, path, data, mode)
                    return
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w") as tar:
                item = tarfile.TarInfo(os.path.basename(path))
                item.size, item.mode = len(data), mode
                tar.addfile(item, io.BytesIO(data))
            self.engine.ask("put_archive", self.id, os.path.dirname(path) or "/", archive.getvalue())
        except (EngineError, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise BadInput(f"{path!r} cannot be written in the container {self.name}: {why}") from error

    @contextmanager
    def _mounts(self) -> Iterator[Worker | None]:
        """A thread in the mount namespace of its first process; None where it does not run, or not on this machine."""
        state = read_state(self._inspect())
        try:
            fd = self.engine.namespace(state.pid, "mnt", self.id) if state.pid else -1
        except InfraError:
            fd = -1
        if fd < 0:
            yield None
            return
        try:
            worker = Worker(f"infra-{self.name}-files", partial(_enter, fd))
        finally:
            os.close(fd)
        try:
            yield worker
        finally:
            worker.stop()

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


def _enter(fd: int) -> None:
    linux.unshare(_CLONE_FS)  # setns(2): a root folder that threads share cannot be changed
    linux.setns(fd)


def _open(path: str, flags: int) -> int:
    """Open a regular file, from the root folder on; what is none, such as a pipe, may never answer."""
    fd = os.open(os.path.join("/", path), flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file")
    return fd


def _read(path: str) -> bytes:
    with open(_open(path, os.O_RDONLY), "rb") as file:
        return file.read()


def _write(path: str, data: bytes, mode: int) -> None:
    with open(_open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
