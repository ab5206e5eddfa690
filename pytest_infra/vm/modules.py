"""Kernel modules: those that a guest needs before anything can be asked of it, with all that they need themselves."""

from __future__ import annotations

import lzma
import os
import re
import subprocess
import zlib
from collections.abc import Iterable

from ..core.errors import Unavailable
from ..core.requirement import find_program

__all__ = ["Modules"]

_SUFFIX = re.compile(r"\.ko(\.(xz|gz|zst))?$")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def _key(name: str) -> str:
    return name.replace("-", "_")


class Modules:
    """The modules of one kernel.

    Args:
        folder: ``/lib/modules/RELEASE`` or a copy of it; empty where the kernel has none, and all must be built in.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files: dict[str, str] = {}
        self._builtin: set[str] = set()
        for at, _, names in os.walk(os.path.join(folder, "kernel")) if folder else ():
            for name in names:
                if _SUFFIX.search(name):
                    self._files[_key(_SUFFIX.sub("", name))] = os.path.join(at, name)
        if folder and os.path.exists(listed := os.path.join(folder, "modules.builtin")):
            with open(listed, encoding="ascii") as lines:
                self._builtin = {_key(_SUFFIX.sub("", os.path.basename(line.strip()))) for line in lines}

    def lacks(self, name: str) -> bool:
        """Whether this kernel has it neither as a module nor built in; of a kernel without a list nothing is known."""
        return bool(self._builtin) and _key(name) not in self._files and _key(name) not in self._builtin

    def load_order(self, names: Iterable[str]) -> list[tuple[str, bytes]]:
        """Name and content of each module that must be loaded for these, in the order in which they can be."""
        found: dict[str, bytes] = {}
        for name in names:
            self._add(_key(name), found)
        return list(found.items())

    def _add(self, name: str, found: dict[str, bytes]) -> None:
        if name in found or name not in self._files:
            return
        content = _content(self._files[name])
        depends = _DEPENDS.search(content)
        for other in depends.group(1).decode().split(",") if depends else ():
            if other:
                self._add(_key(other), found)
        found[name] = content


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read()
    if path.endswith(".xz"):
        return lzma.decompress(content)
    if path.endswith(".gz"):
        return zlib.decompress(content, wbits=31)
    if path.endswith(".zst"):
        if find_program("zstd") is None:
            raise Unavailable("vm", f"{path} is compressed with zstd, which is not installed", "apt-get install zstd")
        return subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
    return content
