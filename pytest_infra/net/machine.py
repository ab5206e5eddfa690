"""`Machine`: the machine's own network namespace, to look at and never to change."""

from __future__ import annotations

from ..core.node import Address, Interface, Neighbour, Route
from .netlink import NetlinkSocket
from .reading import read_addresses, read_interfaces, read_neighbours, read_routes

__all__ = ["Machine"]


class Machine:
    """What the machine itself has: its interfaces, addresses, routes and neighbours, read now.

    It is no node: nothing can be run, linked or changed here.
    """

    name = "the machine"

    def _netlink(self) -> NetlinkSocket:
        return NetlinkSocket()  # the thread of the test has never left the machine's namespace

    @property
    def interfaces(self) -> dict[str, Interface]:
        """The network interfaces now, by name."""
        with self._netlink() as netlink:
            return read_interfaces(netlink)

    @property
    def addresses(self) -> list[Address]:
        """The IP addresses now."""
        with self._netlink() as netlink:
            return read_addresses(netlink)

    @property
    def routes(self) -> list[Route]:
        """The routes of the main table now, IPv4 before IPv6."""
        with self._netlink() as netlink:
            return read_routes(netlink)

    @property
    def neighbours(self) -> list[Neighbour]:
        """The ARP and neighbour discovery tables now."""
        with self._netlink() as netlink:
            return read_neighbours(netlink)
