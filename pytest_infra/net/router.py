"""`Router`: a host that forwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from ..core.process import Process
from .host import Host

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Router"]


class Router(Host):
    """A host that forwards IPv4 and IPv6 between its links; the lab works out its routes and those of its hosts.

    The limits on how many ICMP errors it sends a second are off (RFC 1812 section 4.3.2.8), so that
    a traceroute gives the same answer however often it is asked.
    """

    kind = "router"
    forwards = True
    sysctl_defaults: ClassVar[Mapping[str, str]] = {
        **Host.sysctl_defaults,
        "net.ipv4.ip_forward": "1",
        "net.ipv6.conf.all.forwarding": "1",
        "net.ipv4.icmp_ratemask": "0",  # icmp_ratelimit = 0 would use up the tokens of "net unreachable" as well
        "net.ipv6.icmp.ratelimit": "0",
    }

    def advertise(self, link: Link | None = None) -> Process:
        """Advertise itself and its IPv6 subnets on a link, so that hosts make themselves addresses (RFC 4861).

        Args:
            link: one that ends here; the only one by default.

        Returns:
            The process, dnsmasq(8), which advertises until it is stopped.

        Raises:
            BadInput: a link that does not end here, or one without a subnet of 64 bits.
            Unavailable: dnsmasq is not installed.
        """
        from .slaac import advertise

        port = self._port_of("advertise", link)
        self.observe()
        return advertise(port)
