"""`Port`: one end of a link, an interface in a host or on a switch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..core.node import Interface, IPAddress, IPInterface, IPNetwork
from . import messages, replies
from .namespace import NetNamespace
from .vlan import VlanMembership

if TYPE_CHECKING:
    from .bond import Bond
    from .link import Link

__all__ = ["SMALLEST_MTU_IPV6", "Port", "PortOwner"]

SMALLEST_MTU_IPV6 = 1280
"""In bytes (RFC 8200 section 5)."""


class PortOwner(Protocol):
    """A host or a switch: something with a network namespace and ports."""

    name: str
    namespace: NetNamespace
    ports: list[Port]

    def observe(self) -> None:
        """See to it that everything declared is there."""


class Port:
    """One end of a link.

    Args:
        node: the host or switch it belongs to.
        name: the interface's name there.
        mac: its MAC address.
        mtu: in bytes.
        addresses: those asked for; None to have them chosen.
        declared_at: the line of the test that made it.
        vlans: which VLANs it carries, where it is a switch's and some were named.
    """

    def __init__(
        self,
        node: PortOwner,
        name: str,
        *,
        mac: str,
        mtu: int,
        addresses: tuple[IPInterface, ...] | None,
        declared_at: str,
        vlans: VlanMembership | None = None,
    ) -> None:
        self.node = node
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.planned = addresses
        """The addresses; None while they are still to be chosen."""
        self.declared_at = declared_at
        self.vlans = vlans
        self.bond: Bond | None = None
        """The bond that it is a member of, on a switch."""
        self.index = 0
        self.router: IPAddress | None = None
        """The node's default route by this port, where DHCP has given it one."""
        self.table = messages.MAIN_TABLE
        """The routing table of what arrives by it: another one in a VRF."""
        self.vrf_routes: dict[IPNetwork, IPAddress] = {}
        """The gateways of the routes by this port that the lab has put into its VRF."""
        self.link: Link
        self.restore: Callable[[Port], None]

    def __repr__(self) -> str:
        return f"<Port {self}>"

    def __str__(self) -> str:
        return f"{self.node.name}:{self.name}"

    @property
    def addresses(self) -> tuple[IPInterface, ...]:
        """The addresses that the lab gives it; where they are still to be chosen, the lab is settled first."""
        if self.planned is None:
            self.node.observe()
        return self.planned or ()

    @property
    def peer(self) -> Port:
        """The port at the other end of the wire."""
        return self.link.b if self.link.a is self else self.link.a

    @property
    def interface(self) -> Interface:
        """The interface as the kernel has it now."""
        self.node.observe()
        with self.node.namespace.netlink() as netlink:
            found = netlink.request([(messages.get_link(self.index), f"read {self}")])
        return next(iter(replies.parse_interfaces(found).values()))

    @property
    def carrier(self) -> bool:
        """Whether there is a signal on the wire now: this end and the other one are up."""
        return self.interface.carrier

    def up(self) -> None:
        """Set this end up, and give it back the addresses and routes that the kernel dropped while it was down."""
        self.set_state(True)
        self.restore(self)

    def down(self) -> None:
        """Set this end down (the administrative state); the other end loses its carrier."""
        self.set_state(False)

    def set_state(self, up: bool) -> None:
        """Set the administrative state, and have both ends know of the carrier when this returns."""
        self.node.observe()
        state = "up" if up else "down"
        with self.node.namespace.netlink() as netlink:
            netlink.request([(messages.set_link(self.index, up=up), f"set {self} {state}"), self.sync()])
        with self.peer.node.namespace.netlink() as netlink:
            netlink.request([self.peer.sync()])

    def sync(self) -> tuple[bytes, str]:
        """The request that makes the kernel deliver this port's carrier change now instead of within a second."""
        return messages.get_link(self.index), f"read {self}"
