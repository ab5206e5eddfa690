"""Whether KVM works: found out by starting a kernel under it, because that the device is there says little."""

from __future__ import annotations

import os
from contextlib import suppress

from ..core.errors import InfraError, Unavailable, WaitTimeout
from ..core.process import Popen
from ..core.wait import until
from .console import Console
from .emulator import Emulator
from .initramfs import initramfs
from .kernel import Kernel
from .qemu import Machine
from .requirement import cache_directory
from .snapshot import locked

__all__ = ["choose_accel", "why_no_kvm"]

_DEVICE = "/dev/kvm"
_SPEAKS_S = 10.0
_MEMORY_BYTES = 512 << 20


def choose_accel(wanted: str, kernel: Kernel, popen: Popen) -> str:
    """``kvm`` or ``tcg``.

    Raises:
        Unavailable: KVM was asked for, and does not work.
    """
    if wanted == "tcg":
        return "tcg"
    why = why_no_kvm(kernel, popen)
    if why and wanted == "kvm":
        raise Unavailable("kvm", why, "leave accel out to have guests emulated where KVM does not work")
    return "tcg" if why else "kvm"


def why_no_kvm(kernel: Kernel, popen: Popen) -> str:
    """Why guests cannot be run by KVM here; empty where they can. The answer is kept until the machine boots again."""
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return f"{_DEVICE} is not there" if not os.path.exists(_DEVICE) else f"{_DEVICE} may not be opened"
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        boot = "unknown"
    path = os.path.join(cache_directory("kvm"), f"{boot}-{kernel.name}")
    with locked(path):
        with suppress(OSError), open(path, encoding="utf-8") as file:
            return file.read()
        why = _try(kernel, popen)
        with open(path, "w", encoding="utf-8") as file:
            file.write(why)
    return why


def _try(kernel: Kernel, popen: Popen) -> str:
    console = Console()
    machine = Machine(kernel.bootable(), initramfs(kernel), _MEMORY_BYTES, 1, "kvm", append="earlyprintk=ttyS0")
    try:
        with Emulator(machine, popen, console) as emulator:
            until(
                lambda: console.written_bytes or not emulator.running,
                within_s=_SPEAKS_S,
                what="a kernel under KVM writes to its console",
            )
            return "" if console.written_bytes else f"QEMU ended: {emulator.errors}"
    except WaitTimeout:
        return f"{_DEVICE} is there, but the kernel {kernel.name} writes nothing under it within {_SPEAKS_S:g} s"
    except InfraError as error:
        return f"{_DEVICE} is there, but QEMU cannot use it: {error}"
