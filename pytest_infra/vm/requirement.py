"""What virtual machines need of the machine."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass

from ..core.errors import InfraError
from ..core.requirement import Absent, Command, Present, find_program

__all__ = ["BUSYBOX", "DEPMOD", "QEMU", "VDE", "StaticCommand", "cache_directory", "mark_used", "store"]

_MOST_HEADER_BYTES = 1024


@dataclass(frozen=True)
class StaticCommand(Command):
    """A program that needs no shared library, so that it runs where there is nothing but itself."""

    def probe(self) -> Present | Absent:
        """Look for the program, and for the interpreter that a dynamic one names in its header (elf(5))."""
        found = super().probe()
        if not found:
            return found
        path = find_program(self.program or self.name) or ""
        try:
            with open(path, "rb") as file:
                dynamic = b"/ld-" in file.read(_MOST_HEADER_BYTES)
        except OSError as error:
            return Absent(f"{path} cannot be read: {error.strerror}")
        if dynamic:
            return Absent(f"{path} is not statically linked", f"apt-get install {self.packages['apt']}")
        return found


QEMU = Command("vm", program=f"qemu-system-{platform.machine()}", purpose="virtual machines", packages={
    "apt": "qemu-system-x86", "dnf": "qemu-system-x86-core", "pacman": "qemu-system-x86",
    "apk": "qemu-system-x86_64"})  # fmt: skip
BUSYBOX = StaticCommand("vm", program="busybox", purpose="the first programs of a guest", packages={
    "apt": "busybox-static", "dnf": "busybox", "pacman": "busybox", "apk": "busybox-static"})  # fmt: skip
DEPMOD = Command("depmod", purpose="kernels that are fetched as packages", packages={
    "apt": "kmod", "dnf": "kmod", "pacman": "kmod", "apk": "kmod"})  # fmt: skip
VDE = Command("vde", program="vde_switch", purpose="VDE networks between guests", packages={
    "apt": "vde2", "dnf": "vde2", "pacman": "vde2", "apk": "vde2"})  # fmt: skip


def cache_directory(*names: str) -> str:
    """A folder below the user's cache folder (XDG Base Directory Specification), made if needed."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(home, "pytest-infra", *names)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise InfraError(f"the folder {path} for what is kept cannot be made: {error.strerror}") from error
    return path


def store(path: str, content: bytes) -> None:
    """Write a file of the cache, whole or not at all.

    Raises:
        InfraError: it cannot be written; the text says why.
    """
    part = f"{path}.{os.getpid()}"
    try:
        with open(part, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(part)
        raise InfraError(
            f"{path} cannot be written: {error.strerror}; make room there, or set XDG_CACHE_HOME to another folder"
        ) from error


def mark_used(path: str) -> None:
    """Give a file of the cache the access time of now: those that were used the longest ago are deleted first.

    Its modification time stays, as what a snapshot was made from is told by that.
    """
    with suppress(OSError):
        os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))
