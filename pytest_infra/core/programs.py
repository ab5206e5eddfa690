"""Other people's programs that tests often run in a lab, so that ``infra_requires("nginx")`` knows their packages."""

from __future__ import annotations

from .requirement import Command, PythonModule, Requirement

__all__ = ["PROGRAMS"]

_NAMES = [
    "busybox",
    "curl",
    "dnsmasq",
    "docker-registry",
    "ethtool",
    "gcc",
    "haproxy",
    "ip",
    "iperf3",
    "iptables",
    "keepalived",
    "nft",
    "nginx",
    "ping",
    "podman",
    "qemu-img",
    "radvd",
    "redis-server",
    "socat",
    "sshd",
    "tcpdump",
    "wg",
    "wget",
    "wireguard-go",
]
_PACKAGE = {"ip": "iproute2", "nft": "nftables", "ping": "iputils", "sshd": "openssh", "wg": "wireguard-tools"}
_DEBIAN = {
    "busybox": "busybox-static",
    "dnsmasq": "dnsmasq-base",
    "gcc": "build-essential",
    "nginx": "nginx-light",
    "ping": "iputils-ping",
    "sshd": "openssh-server openssh-client",
    "qemu-img": "qemu-utils",
    "podman": "podman netavark aardvark-dns",  # which make its bridge
}
_FEDORA = {"ip": "iproute", "sshd": "openssh-server openssh-clients"}


def _packages(name: str) -> dict[str, str]:
    package = _PACKAGE.get(name, name)
    return {
        "apt": _DEBIAN.get(name, package),
        "dnf": _FEDORA.get(name, package),
        "pacman": package,
        "apk": package,
    }


_PURPOSE = "a program that tests run"
_POSTGRESQL = Command(
    "postgresql",
    purpose=_PURPOSE,
    program="postgres",
    folders=tuple(f"/usr/lib/postgresql/{version}/bin" for version in range(30, 8, -1)),
    packages={"apt": "postgresql", "dnf": "postgresql-server", "pacman": "postgresql", "apk": "postgresql"},
)

_OS_KEN = PythonModule("os-ken", module="os_ken", purpose="OpenFlow controllers in Python")

PROGRAMS: dict[str, Requirement] = {
    **{name: Command(name, purpose=_PURPOSE, packages=_packages(name)) for name in _NAMES},
    _POSTGRESQL.name: _POSTGRESQL,
    _OS_KEN.name: _OS_KEN,
}
"""By name. Nothing of this project needs them: only the doctor that is asked by name looks for them."""
