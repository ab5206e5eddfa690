"""Addresses by router advertisement (RFC 4861, RFC 4862): asked for, waited for, and known to the lab."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from ..core.errors import BadInput, WaitTimeout
from ..core.process import Process
from ..core.report import Report, explain
from ..core.units import format_duration
from ..core.wait import until
from .dns import DNSMASQ
from .port import Port

__all__ = ["SlaacReport", "advertise", "configure_slaac"]

_SOLICITATION = bytes([133, 0, 0, 0, 0, 0, 0, 0])  # the kernel puts the checksum in
_ALL_ROUTERS = "ff02::2"
_AGAIN_S = 0.5


@dataclass(frozen=True)
class SlaacReport(Report):
    """What router advertisements have given a node's interface; times in seconds."""

    kind: ClassVar[str] = "slaac"

    node: str
    interface: str
    addresses: tuple[str, ...]
    """With their prefix lengths."""
    routers: tuple[str, ...]
    """The gateways of the default routes that it was told."""
    within_s: float

    @property
    def ok(self) -> bool:
        """Whether there is an address."""
        return bool(self.addresses)

    def explain(self) -> str:
        """What was given, or that nothing was."""
        where, routers = f"{self.node}:{self.interface}", ", ".join(self.routers)
        if self.ok:
            addresses = ", ".join(self.addresses)
            return explain(f"{where} has {addresses} by router advertisement", [("routers", routers)])
        heard = (
            f"an advertisement of {routers} without a prefix for addresses" if routers else "no router advertisement"
        )
        cause = "the router advertises no prefix" if routers else "no router advertises anything on this link"
        rows = [
            ("measured", heard),
            ("wanted", f"an address within {format_duration(self.within_s)}"),
            ("cause", f"{cause}, or {self.node} does not take it (accept_ra, autoconf)"),
            ("next", "have one advertise: router.advertise(link); and look at ICMPv6 on the way: lab.capture"),
        ]
        return explain(f"{where} got no address by router advertisement", rows)


def configure_slaac(port: Port, within_s: float) -> SlaacReport:
    """Ask the routers on a host's link, and wait until the kernel has made itself an address.

    Raises:
        CheckFailed: there is none in time.
    """
    node: Any = port.node
    settings = {"accept_ra": "2" if node.forwards else "1", "autoconf": "1"}
    for name, value in settings.items():
        node.sysctl[f"net/ipv6/conf/{port.name}/{name}"] = value
    asked = 0.0

    def there() -> bool:
        nonlocal asked
        if time.monotonic() - asked > _AGAIN_S:
            asked = time.monotonic()
            node.call(_solicit, port.name)
        return bool(_addresses(port))

    with suppress(WaitTimeout):
        until(there, within_s=within_s, what="an address")
    routes = [route for route in node.routes if route.protocol == "ra" and route.destination.prefixlen == 0]
    routers = tuple(dict.fromkeys(str(route.gateway) for route in routes if route.interface == port.name))
    found = _addresses(port)
    report = SlaacReport(node.name, port.name, tuple(map(str, found)), routers, within_s)
    report.demand()
    port.planned = (*(port.planned or ()), *(ip for ip in found if ip not in (port.planned or ())))
    return report


def _addresses(port: Port) -> list[Any]:
    """The addresses of the interface that it has made itself, and that are not of the link alone; usable ones."""
    mine = [item for item in port.node.addresses if item.interface == port.name and item.ip.version == 6]  # type: ignore[attr-defined]
    return [item.ip for item in mine if item.dynamic and not item.ip.is_link_local and not item.tentative]


def _solicit(interface: str) -> None:
    """Ask all routers of a link to advertise (RFC 4861 section 4.1)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.sendto(_SOLICITATION, (_ALL_ROUTERS, 0, 0, socket.if_nametoindex(interface)))


def advertise(port: Port) -> Process:
    """Have dnsmasq advertise a router's IPv6 subnets on one of its links, as long as the process that this gives runs.

    Raises:
        BadInput: the port has no IPv6 subnet of 64 bits (RFC 4862 section 5.5.3).
    """
    networks = [ip.network for ip in port.addresses if ip.version == 6 and not ip.is_link_local]
    wanted = [network for network in networks if network.prefixlen == 64]
    if not wanted:
        others = ", ".join(map(str, networks)) or "none"
        raise BadInput(f"{port} has no IPv6 subnet of 64 bits to advertise; it has {others} (RFC 4862 section 5.5.3)")
    argv = [DNSMASQ.path(), "--keep-in-foreground"]
    argv += ["--conf-file=/dev/null", "--pid-file=", "--port=0", "--user=", "--group=", "--dhcp-leasefile=/dev/null"]
    argv += [f"--interface={port.name}", "--bind-interfaces", "--enable-ra", "--log-facility=-"]
    ranges = [f"--dhcp-range={network.network_address},ra-only,64" for network in wanted]
    started: Process = port.node.spawn([*argv, *ranges])  # type: ignore[attr-defined]
    return started
