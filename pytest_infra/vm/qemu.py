"""QEMU's command line, as data (qemu(1))."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .initramfs import AGENT_PORT
from .requirement import QEMU
from .share import CACHE_TAG, ROOT_TAG

__all__ = ["SLOTS", "Machine", "argv"]

SLOTS = 8
"""How many devices (network cards, a disk) can be plugged into a running guest."""

_KERNEL_OPTIONS = (
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check random.trust_cpu=on cryptomgr.notests "
    "rcupdate.rcu_expedited=1 psi=1 rdinit=/infra/init"
)


@dataclass(frozen=True)
class Machine:
    """What a guest is started as; what is plugged in later is not part of it, so that snapshots can be shared."""

    kernel: str
    """The path of the kernel image."""
    initrd: str
    """The path of the initramfs."""
    memory_bytes: int
    cpus: int
    accel: str
    """``kvm`` or ``tcg``."""
    shares_root: bool = False
    """Whether it can mount the machine's files, read-only."""
    artifacts: str = ""
    """A folder of the machine that it can write to; empty for none."""
    append: str = ""
    """Further kernel options."""

    def identity(self) -> tuple[object, ...]:
        """What two guests must have in common for one to be started from the other's snapshot."""
        shares = (self.shares_root, bool(self.artifacts))
        return self.kernel, self.initrd, self.memory_bytes, self.cpus, self.accel, self.append, *shares


def argv(
    machine: Machine, *, qmp: int, agent: int, io: int = -1, incoming: str = "", devices: Sequence[str] = ()
) -> list[str]:
    """The command line.

    Args:
        machine: what to start.
        qmp: the descriptor of the connected socket for QMP.
        agent: of that for the agent in the guest.
        io: of that for a further port ``pytest-infra.io``, -1 for one that leads nowhere.
        incoming: where the state of a guest comes from, ``defer`` to be told later; empty for a fresh start.
        devices: further arguments for devices that an incoming guest has.
    """
    cpu = "host" if machine.accel == "kvm" else "max"
    words = [QEMU.path(), "-machine", f"q35,accel={machine.accel}", "-cpu", cpu, "-smp", str(machine.cpus)]
    words += ["-m", f"{machine.memory_bytes >> 20}M", "-nodefaults", "-no-user-config", "-display", "none"]
    words += ["-no-reboot", "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    words += ["-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control"]
    words += ["-kernel", machine.kernel, "-initrd", machine.initrd]
    words += ["-append", f"{_KERNEL_OPTIONS} {machine.append}".strip()]
    words += ["-device", "virtio-rng-pci", "-device", "virtio-balloon-pci,id=balloon"]
    words += ["-device", "virtio-serial-pci,id=serial,max_ports=8"]
    words += ["-chardev", f"socket,id=agent,fd={agent}"]
    words += ["-device", f"virtserialport,chardev=agent,name={AGENT_PORT},nr=1"]
    words += ["-chardev", f"socket,id=io,fd={io}" if io >= 0 else "null,id=io"]
    words += ["-device", "virtserialport,chardev=io,name=pytest-infra.io,nr=2"]
    for slot in range(SLOTS):
        words += ["-device", f"pcie-root-port,id=slot{slot},chassis={slot + 1},slot={slot + 1}"]
    if machine.shares_root:
        words += _share("share0", "/", ROOT_TAG, readonly=True)
    if machine.artifacts:
        words += _share("share1", machine.artifacts, CACHE_TAG, readonly=False)
    words += devices
    return [*words, *(["-incoming", incoming] if incoming else [])]


def _share(name: str, path: str, tag: str, *, readonly: bool) -> list[str]:
    mode = ",readonly=on" if readonly else ""
    escaped = path.replace(",", ",,")
    return [
        "-fsdev",
        f"local,id={name},path={escaped},security_model=none,multidevs=remap{mode}",
        "-device",
        f"virtio-9p-pci,fsdev={name},mount_tag={tag}",
    ]
