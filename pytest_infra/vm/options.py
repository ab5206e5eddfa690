"""What ``lab.vm`` takes; everything from outside is validated here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import BadInput
from ..core.units import duration_s, size_bytes
from .kernel import KERNEL, Kernel, find_kernel
from .nic import MODELS, Nic, check_nics
from .qemu import SLOTS

__all__ = ["VmOptions", "vm_options"]

_LEAST_BYTES = 32 << 20
_MOST_CPUS = 255
_ACCELS = ("auto", "kvm", "tcg")


@dataclass(frozen=True)
class VmOptions:
    """What a virtual machine is made of."""

    kernel: Kernel
    initrd: str
    """The path of the user's own initramfs; empty for ours."""
    host_root: bool
    disk: str
    memory_bytes: int
    cpus: int
    nics: tuple[Nic, ...]
    accel: str
    model: str
    vhost: bool | None
    modules: tuple[str, ...]
    ready_s: float
    append: str


def vm_options(
    *,
    kernel: str | os.PathLike[str] | None = None,
    initrd: str | os.PathLike[str] | None = None,
    rootfs: str | None = None,
    disk: str | os.PathLike[str] | None = None,
    memory: str | int = "512 MiB",
    cpus: int = 1,
    nics: Nic | Sequence[Nic] = (),
    accel: str = "auto",
    model: str = "virtio-net",
    vhost: bool | None = None,
    modules: Sequence[str] = (),
    ready_within: str | float = "5 min",
    append: str = "",
) -> VmOptions:
    """Check the arguments of ``lab.vm``.

    Raises:
        BadInput: one of them cannot be used, or two exclude each other.
    """
    given = [name for name, value in (("initrd", initrd), ("rootfs", rootfs), ("disk", disk)) if value is not None]
    if len(given) > 1:
        raise BadInput(f"a guest has one root file system: give {' or '.join(given)}, and not both")
    if rootfs not in (None, "host"):
        raise BadInput(f"rootfs {rootfs!r} cannot be used; allowed is 'host', the machine's files (or initrd=, disk=)")
    if isinstance(cpus, bool) or not isinstance(cpus, int) or not 1 <= cpus <= _MOST_CPUS:
        raise BadInput(f"cpus {cpus!r} cannot be used; allowed are 1 to {_MOST_CPUS}")
    return VmOptions(
        kernel=_kernel(kernel, modules),
        initrd=_file(initrd, "initrd"),
        host_root=rootfs == "host",
        disk=_file(disk, "disk"),
        memory_bytes=_memory(memory),
        cpus=cpus,
        nics=_cards(nics),
        accel=_one_of(accel, _ACCELS, "accel"),
        model=_one_of(model, tuple(MODELS), "model"),
        vhost=vhost,
        modules=tuple(modules),
        ready_s=duration_s(ready_within),
        append=append,
    )


def _one_of(value: str, allowed: Sequence[str], what: str) -> str:
    if value not in allowed:
        raise BadInput(f"{what} {value!r} is not known; there are {', '.join(allowed)}")
    return value


def _kernel(wanted: str | os.PathLike[str] | None, modules: Sequence[str]) -> Kernel:
    if wanted is None:
        KERNEL.demand()
    found = find_kernel(wanted)
    if unknown := [name for name in modules if found.modules.lacks(name)]:
        raise BadInput(f"the kernel {found.name} has no module {', '.join(unknown)}")
    return found


def _cards(nics: Nic | Sequence[Nic]) -> tuple[Nic, ...]:
    cards = check_nics(nics)
    if len(cards) > SLOTS:
        raise BadInput(f"a guest takes {SLOTS} network cards and disks together; got {len(cards)} cards")
    return cards


def _memory(memory: str | int) -> int:
    found = size_bytes(memory)
    if found < _LEAST_BYTES:
        raise BadInput(f"memory {memory!r} is too little for any kernel here; at least 32 MiB, 512 MiB is the default")
    return found


def _file(path: Any, what: str) -> str:
    if path is None:
        return ""
    full: str = os.path.abspath(os.fspath(path))
    if not os.path.isfile(full) or not os.access(full, os.R_OK):
        raise BadInput(f"{what} {os.fspath(path)!r} is no file that can be read")
    return full
