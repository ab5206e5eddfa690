"""Other people's programs that tests often run in a lab, so that ``infra_requires("nginx")`` knows their packages."""

from __future__ import annotations

from .requirement import Command

__all__ = ["PROGRAMS"]

_NAMES = ("curl", "dnsmasq", "ethtool", "haproxy", "iperf3", "keepalived", "nft", "nginx", "socat", "tcpdump", "wget")
_PACKAGE = {"nft": "nftables"}
_DEBIAN = {"dnsmasq": "dnsmasq-base", "nginx": "nginx-light"}


def _packages(name: str) -> dict[str, str]:
    package = _PACKAGE.get(name, name)
    return {"apt": _DEBIAN.get(name, package), "dnf": package, "pacman": package, "apk": package}


PROGRAMS = {name: Command(name, purpose="a program that tests run", packages=_packages(name)) for name in _NAMES}
"""By name. Nothing of this project needs them: only the doctor that is asked by name looks for them."""
