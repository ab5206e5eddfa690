"""The first file system of a guest: busybox, the modules it needs, and a Python with the agent in it.

What is ours lies below ``/infra``, and the agent runs with that as its root; so a user's own initramfs can be laid
beside it, whatever libraries it has.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pkgutil import walk_packages

from ..core.errors import Unavailable
from .closure import add_files, python_files
from .cpio import Archive
from .kernel import Kernel
from .requirement import BUSYBOX, cache_directory, mark_used, store

__all__ = ["AGENT_PORT", "HOST_MODULES", "STEP", "check_kernel", "initramfs"]

AGENT_PORT = "pytest-infra.agent"
"""The name of the virtio-serial port that the agent speaks through."""
STEP = "infra-step: "
"""What the guest writes to its console before each step of starting."""
HOST_MODULES = ("9p", "9pnet_virtio", "overlay")
"""What a guest that shares the machine's files needs."""

_NEEDED = ("virtio_pci", "virtio_console")
_WANTED = (
    *HOST_MODULES,
    "virtio_net",
    "e1000",
    "virtio_blk",
    "virtio_balloon",
    "virtio_rng",
    "ext4",
    "crc32c_generic",
    "af_packet",
)
_CONFIG = {
    "virtio_pci": "CONFIG_VIRTIO_PCI",
    "virtio_console": "CONFIG_VIRTIO_CONSOLE",
    "9p": "CONFIG_9P_FS",
    "9pnet_virtio": "CONFIG_NET_9P_VIRTIO",
    "overlay": "CONFIG_OVERLAY_FS",
}
_BELOW = "/infra"
_IMPORTS = (
    *("encodings.ascii", "encodings.latin_1", "encodings.idna", "stringprep", "pickle", "ctypes", "json"),
    *("pytest_infra.vm.agent", "pytest_infra.vm.share", "pytest_infra.net.guest", "pytest_infra.checks"),
    *(f"pyroute2.netlink.rtnl.{name}" for name in ("ifinfmsg", "ifaddrmsg", "rtmsg", "ndmsg")),
)
_WARM = (
    *("pytest", "xdist.remote", "xdist.plugin", "execnet.gateway_base", "pytest_infra.vm.worker"),
    *("pytest_infra.plugin", "pytest_infra.session", "pytest_infra.doctor", "runpy", "plistlib"),
)
_NOT_WARM = ("cli", "evidence", "testinfra", "__main__")
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "etc", "root", "infra/proc", "infra/sys", "infra/dev", "infra/run")

_INIT = """#!/infra/bin/busybox sh
export PATH=/infra/bin:/bin HOME=/root
step() {{ echo "{step}$1" > /dev/console; }}
for at in "" /infra; do
    mount -t proc proc $at/proc; mount -t sysfs sysfs $at/sys; mount -t devtmpfs dev $at/dev
done
step "loading modules"
while read -r module; do insmod "/infra/modules/$module" || echo "cannot load $module" > /dev/console; done \\
    < /infra/modules/order
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run
ln -sf /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -sf "/proc/self/fd/${{number%%:*}}" "/dev/${{number##*:}}"; done
ip link set lo up
step "starting the agent"
chroot /infra {python} &
agent=$!
case " $(cat /proc/cmdline) " in *" infra.init="*)
    step "starting the init of the given initramfs"
    exec $(sed 's/.*infra.init=\\([^ ]*\\).*/\\1/' /proc/cmdline)
esac
wait $agent
step "the agent has ended with status $?"
echo o > /proc/sysrq-trigger
sleep 60
"""
_START = (
    "import sys; sys.path[:] = {path!r}; sys.executable = {executable!r}; from pytest_infra.vm.agent import main; "
    "main({imports!r})"
)


def _python_command(imports: Sequence[str], files: Sequence[str]) -> str:
    """The command that starts the agent; of the folders to import from, only those that its files are in."""
    path = dict.fromkeys(os.path.abspath(entry) for entry in sys.path if entry)
    used = [entry for entry in path if any(file.startswith(f"{entry}/") for file in files)]
    code = _START.format(path=used, executable=sys.executable, imports=tuple(imports))
    quoted = code.replace('"', '\\"')
    return f'{sys.executable} -I -S -c "{quoted}"'


def _applets(busybox: str) -> list[str]:
    done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def check_kernel(kernel: Kernel, needed: Sequence[str] = ()) -> None:
    """See to it that a kernel can be a guest at all.

    Raises:
        Unavailable: it has no driver for what a guest needs; the text has its name in the kernel's configuration.
    """
    lacking = [name for name in (*_NEEDED, *needed) if kernel.modules.lacks(name)]
    if lacking:
        options = ", ".join(_CONFIG.get(name, name) for name in lacking)
        what = "cannot share the machine's files" if set(lacking) <= set(needed) else "cannot be spoken to"
        raise Unavailable(
            "vm",
            f"the kernel {kernel.name} has no {', '.join(lacking)}: as a guest it {what}",
            f"use a kernel with {options}, such as the distribution's: pytest-infra kernel fetch amd64",
        )


def _ours() -> list[str]:
    """The modules of this package that are imported where it is asked what a machine lacks: nearly all."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = walk_packages([package], "pytest_infra.")
    return [module.name for module in found if module.name.split(".")[1] not in _NOT_WARM]


def _plugins() -> list[str]:
    """The modules of the pytest plugins that are installed: they take longer to import than most tests to run."""
    from importlib.metadata import entry_points

    return sorted({point.module for point in entry_points(group="pytest11")} - {"xdist.looponfail"})


@lru_cache(maxsize=8)
def initramfs(kernel: Kernel, *, warm: bool = False, tools: bool = True) -> str:
    """The path of the initramfs for a kernel; it is kept in the user's cache.

    Args:
        kernel: the kernel whose modules go in.
        warm: whether pytest goes in too, for tests that run in the guest.
        tools: whether the programs of busybox are in its ``/bin``; not beside a user's own initramfs.

    Raises:
        Unavailable: the kernel lacks what a guest needs, or busybox is not installed.
    """
    check_kernel(kernel)
    imports = (*_IMPORTS, *((*_WARM, *_ours(), *_plugins()) if warm else ()))
    files = python_files(imports)
    busybox = BUSYBOX.path()
    start = _INIT.format(step=STEP, python=_python_command(imports, files))
    stamp = hashlib.sha256(repr((kernel, start, tools)).encode())
    for file in (busybox, kernel.image, *files):
        status = os.stat(file)
        stamp.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    path = os.path.join(cache_directory("initramfs"), f"{kernel.name}-{stamp.hexdigest()[:16]}.cpio")
    if os.path.exists(path):
        mark_used(path)
    else:
        store(path, _archive(kernel, files, busybox, start, tools))
    return path


def _archive(kernel: Kernel, files: Sequence[str], busybox: str, start: str, tools: bool) -> bytes:
    archive = Archive()
    for folder in _FOLDERS:
        archive.folder(folder)
    archive.device("dev/console", 5, 1)
    archive.file("infra/init", start.encode(), 0o755)
    with open(busybox, "rb") as program:
        archive.file("infra/bin/busybox", program.read(), 0o755)
    for name in _applets(busybox):
        if name != "busybox":
            archive.link(f"infra/bin/{name}", "busybox")
        if tools:
            archive.link(f"bin/{name}", "/infra/bin/busybox")
    modules = kernel.modules.load_order((*_NEEDED, *_WANTED))
    for name, content in modules:
        archive.file(f"infra/modules/{name}.ko", content)
    archive.file("infra/modules/order", "".join(f"{name}.ko\n" for name, _ in modules).encode())
    if tools:
        archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        archive.file("etc/group", b"root:x:0:\n")
        archive.link("sbin", "bin")
    add_files(archive, files, _BELOW)
    return archive.content()
