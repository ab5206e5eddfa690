"""Kernels: those found on the machine and those that were fetched as packages, by name or path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..core.errors import BadInput, InfraError
from ..core.requirement import Absent, Present, Requirement
from .image import has_pvh_entry, release_of, uncompressed
from .modules import Modules
from .requirement import cache_directory, mark_used, store

__all__ = ["KERNEL", "GuestKernel", "Kernel", "find_kernel", "kernels", "kernels_folder"]


@dataclass(frozen=True)
class GuestKernel(Requirement):
    """A kernel that guests can be started with."""

    def probe(self) -> Present | Absent:
        """Look for those that were fetched, and for the machine's own."""
        found = kernels()
        if found:
            return Present(", ".join(kernel.name for kernel in found[-3:]))
        return Absent("no kernel for guests is here", "pytest-infra kernel fetch amd64")


KERNEL = GuestKernel("vm", purpose="virtual machines")
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True)
class Kernel:
    """A kernel that a guest can be started with."""

    name: str
    """Its release, as ``uname -r`` says it."""
    image: str
    """The path of the bzImage or vmlinux."""
    modules_folder: str
    """The path of its modules; empty where it has none."""

    @cached_property
    def modules(self) -> Modules:
        """Its modules."""
        return Modules(self.modules_folder)

    def bootable(self) -> str:
        """The path of what QEMU starts: the uncompressed kernel where it can be had, which saves seconds of emulation.

        It is kept in the user's cache.
        """
        status = os.stat(self.image)
        key = f"{self.name}-{status.st_size}-{status.st_mtime_ns}.vmlinux"
        path = os.path.join(cache_directory("vmlinux"), key)
        if os.path.exists(path):
            mark_used(path)
            return path
        with open(self.image, "rb") as file:
            content = uncompressed(file.read())
        if not content or not has_pvh_entry(content):
            return self.image
        store(path, content)
        return path


def kernels_folder() -> str:
    """Where fetched kernels are: ``~/.cache/pytest-infra/kernels``."""
    return cache_directory("kernels")


def kernels() -> list[Kernel]:
    """The kernels that are here: fetched ones, and those of the machine; the newest last."""
    roots = ["/", *(entry.path for entry in os.scandir(kernels_folder()) if entry.is_dir())]
    found = {kernel.name: kernel for root in roots for kernel in _in_tree(root)}
    return sorted(found.values(), key=lambda kernel: _order(kernel.name))


def _order(name: str) -> tuple[list[int], int, str]:
    """By number; of one number the plainest last: ``amd64`` has more than ``cloud-amd64``."""
    return [int(number) for number in _NUMBERS.findall(name)], -name.count("-"), name


def _in_tree(root: str) -> Iterator[Kernel]:
    """The kernels of a file system, as a distribution lays them out."""
    boot = os.path.join(root, "boot")
    for name in sorted(os.listdir(boot)) if os.path.isdir(boot) else ():
        path = os.path.join(boot, name)
        if name.startswith("vmlinuz-") and os.access(path, os.R_OK):
            release = name.removeprefix("vmlinuz-")
            yield Kernel(release, path, _modules_of(release, root))


def _modules_of(release: str, *roots: str) -> str:
    for root in roots:
        for lib in ("lib/modules", "usr/lib/modules"):
            folder = os.path.join(root, lib, release)
            if os.path.isdir(os.path.join(folder, "kernel")):
                return folder
    return ""


def find_kernel(wanted: str | os.PathLike[str] | None = None) -> Kernel:
    """The kernel of that name or path; the newest one that is here by default.

    Args:
        wanted: a release (``"6.1.0-56-amd64"``), its beginning or what follows its numbers (``"6.1"``, ``"amd64"``: the
            newest of them), the path of a bzImage or vmlinux, or of a folder that has ``boot`` and ``lib/modules``.

    Raises:
        BadInput: there is none, or the file is no kernel.
    """
    if wanted is not None and (not isinstance(wanted, str | os.PathLike) or not os.fspath(wanted)):
        raise BadInput(f"kernel {wanted!r} cannot be used; give a path, or a name of 'pytest-infra kernel list'")
    name = os.fspath(wanted) if wanted is not None else ""
    if os.sep in name:
        return _of_path(name)
    known = kernels()
    exact = [kernel for kernel in known if kernel.name == name]
    some = re.compile(rf"{re.escape(name)}(\W.*)?|\d.*\d-{re.escape(name)}")
    matching = exact or [kernel for kernel in known if not name or some.fullmatch(kernel.name)]
    if matching:
        return matching[-1]
    here = ", ".join(kernel.name for kernel in known) or "none"
    what = f"no kernel {name!r} is here" if name else "no kernel is here"
    raise BadInput(
        f"{what} (here: {here}); fetch one with 'pytest-infra kernel fetch {name or 'amd64'}', or give the path of one"
    )


def _of_path(path: str) -> Kernel:
    full = os.path.abspath(path)
    if os.path.isdir(full):
        inside = list(_in_tree(full))
        if not inside:
            raise BadInput(f"no kernel in {path}: a folder needs boot/vmlinuz-RELEASE and lib/modules/RELEASE")
        return inside[-1]
    try:
        with open(full, "rb") as file:
            release = release_of(file.read(), path)
    except OSError as error:
        raise BadInput(f"no kernel {path}: {error.strerror}") from None
    except (IndexError, ValueError) as error:
        if isinstance(error, InfraError):
            raise
        raise BadInput(f"{path} is no Linux kernel: {error}") from None
    above = os.path.dirname(os.path.dirname(full))
    return Kernel(release, full, _modules_of(release, above, "/"))
