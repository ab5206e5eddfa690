"""What DPDK applications need of the machine, and what other ways around the kernel would need, as data."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass

from ..core.linux import in_child_user_namespace
from ..core.requirement import Absent, Command, KernelFeature, Present, Requirement, find_program

__all__ = [
    "AF_XDP",
    "HUGEPAGES",
    "LIBDPDK",
    "NETMAP",
    "ODP",
    "ONLOAD",
    "PF_RING",
    "TESTPMD",
    "Bypass",
    "nr_hugepages",
]

_AF_XDP = 44  # linux/socket.h


def _everywhere(name: str, **others: str) -> dict[str, str]:
    return {manager: others.get(manager, name) for manager in ("apt", "dnf", "pacman", "apk")}


TESTPMD = Command(
    "dpdk",
    program="dpdk-testpmd",
    packages=_everywhere("dpdk", apt="dpdk librte-meta-net librte-meta-mempool librte-meta-bus"),
    purpose="DPDK processes in labs, lab.dpdk()",
)


class _Library(Command):
    """A library's headers, as pkg-config knows them."""

    def probe(self) -> Present | Absent:
        """Ask pkg-config."""
        if not (tool := super().probe()):
            return tool
        argv = [self.path(), "--modversion", "libdpdk"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode == 0:
            return Present(done.stdout.strip())
        remedy = f"pytest-infra doctor --install, or: apt-get install {self.packages['apt']}"
        return Absent("pkg-config knows no libdpdk: its headers are not installed", remedy)

    def path(self) -> str:
        """Pkg-config's path."""
        return find_program("pkg-config") or "pkg-config"


LIBDPDK = _Library(
    "dpdk-dev",
    program="pkg-config",
    packages=_everywhere(
        "dpdk-devel pkgconf gcc", apt="dpdk-dev libdpdk-dev pkg-config gcc libc6-dev", pacman="dpdk pkgconf gcc"
    ),
    purpose="building DPDK applications in tests",
)
"""The compiler and headers; no part of the package needs them, but its examples do."""


def _af_xdp() -> str:
    if in_child_user_namespace():
        return "an ordinary user may load no XDP program"
    try:
        socket.socket(_AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC).close()
    except OSError as error:
        return f"no AF_XDP socket can be opened: {error.strerror}"
    return ""


AF_XDP = KernelFeature(
    "af_xdp",
    purpose="AF_XDP devices of DPDK, lab.dpdk(vdev='af_xdp')",
    test=_af_xdp,
    remedy="run as root on a kernel with CONFIG_XDP_SOCKETS, or use the device af_packet",
)


def nr_hugepages(size_kib: int) -> str:
    """The file that says how many huge pages of a size the machine keeps (Documentation/admin-guide/mm/hugetlbpage)."""
    return f"/sys/kernel/mm/hugepages/hugepages-{size_kib}kB/nr_hugepages"


def _hugepages() -> str:
    path = nr_hugepages(2048)
    if not os.path.exists(path):
        return "the kernel has no huge pages of 2 MiB"
    if in_child_user_namespace() or not os.access(path, os.W_OK):
        return "only root may set huge pages aside"
    return ""


HUGEPAGES = KernelFeature(
    "hugepages",
    purpose="DPDK processes with huge pages, lab.dpdk(hugepages=…)",
    test=_hugepages,
    remedy="run as root on a machine whose /sys/kernel/mm/hugepages can be written, or leave hugepages= away",
)


@dataclass(frozen=True)
class Bypass(Requirement):
    """Another way around the kernel, which this project does not drive: is it there, and what does it need?"""

    signs: tuple[str, ...] = ()
    """Files, one of which is there where the machine has it."""
    needs: str = ""

    def probe(self) -> Present | Absent:
        """Look for its files."""
        for sign in self.signs:
            if os.path.exists(sign):
                return Present(sign)
        return Absent(f"none of {', '.join(self.signs)} is there", self.needs)


NETMAP = Bypass(
    "netmap",
    signs=("/dev/netmap",),
    needs="it needs its kernel module, built from source for this kernel (github.com/luigirizzo/netmap), "
    "and for speed a driver that it patches",
    purpose="netmap; only looked for, not driven",
)
PF_RING = Bypass(
    "pf_ring",
    signs=("/proc/net/pf_ring",),
    needs="it needs the kernel module pf_ring of ntop's own packages, and a licence for its zero copy drivers",
    purpose="PF_RING; only looked for, not driven",
)
ONLOAD = Bypass(
    "openonload",
    signs=("/dev/onload", "/usr/bin/onload"),
    needs="it needs a network card by Solarflare or AMD (or AF_XDP), its kernel modules and the program onload",
    purpose="OpenOnload; only looked for, not driven",
)
ODP = Bypass(
    "odp",
    signs=("/usr/lib/libodp-linux.so", "/usr/local/lib/libodp-linux.so", "/usr/lib/x86_64-linux-gnu/libodp-linux.so"),
    needs="it needs OpenDataPlane built from source (github.com/OpenDataPlane/odp); Debian has no package",
    purpose="OpenDataPlane; only looked for, not driven",
)
