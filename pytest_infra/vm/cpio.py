"""The archive that a kernel unpacks as its first file system (kernel document "initramfs buffer format", newc)."""

from __future__ import annotations

import os
import stat

__all__ = ["Archive"]

_NAME_FIELD_BYTES = 110


class Archive:
    """A cpio archive of the newc format, built up in memory: folders come by themselves."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._made: set[str] = set()

    def __contains__(self, path: str) -> bool:
        return path.strip("/") in self._made

    def _add(self, path: str, mode: int, content: bytes, mtime: int = 0, device: tuple[int, int] = (0, 0)) -> None:
        name = path.strip("/").encode() + b"\0"
        numbers = (len(self._made), mode, 0, 0, 1, mtime, len(content), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % number for number in numbers) + name
        header += b"\0" * (-len(header) % 4)
        self._parts += [header, content, b"\0" * (-len(content) % 4)]
        self._made.add(path.strip("/"))

    def folder(self, path: str) -> None:
        """A folder, and those above it."""
        path = path.strip("/")
        if path and path not in self._made:
            self.folder(os.path.dirname(path))
            self._add(path, stat.S_IFDIR | 0o755, b"")

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        if path not in self:
            self.folder(os.path.dirname(path.strip("/")))
            self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        """A character device."""
        self.folder(os.path.dirname(path.strip("/")))
        self._add(path, stat.S_IFCHR | 0o600, b"", device=(major, minor))

    def file(self, path: str, content: bytes, mode: int = 0o644, mtime: int = 0) -> None:
        """A file."""
        if path not in self:
            self.folder(os.path.dirname(path.strip("/")))
            self._add(path, stat.S_IFREG | mode, content, mtime)

    def content(self) -> bytes:
        """The archive."""
        trailer = Archive()
        trailer._add("TRAILER!!!", 0, b"")
        data = b"".join([*self._parts, *trailer._parts])
        return data + b"\0" * (-len(data) % 512)
