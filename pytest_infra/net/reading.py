"""What the kernel has now in a network namespace, as data."""

from __future__ import annotations

from ..core.node import Address, Interface, IPNetwork, Neighbour, Route
from . import messages, replies
from .netlink import NetlinkSocket

__all__ = ["read_addresses", "read_interfaces", "read_local_routes", "read_neighbours", "read_routes"]


def read_interfaces(netlink: NetlinkSocket, fresh: bool = True) -> dict[str, Interface]:
    """The interfaces by name; `fresh` brings their carrier states up to date first."""
    if fresh:
        netlink.request([(messages.get_link(index), f"read {name}") for index, name in _names(netlink).items()])
    return replies.parse_interfaces(netlink.dump(messages.dump_links(), "list the interfaces"))


def _names(netlink: NetlinkSocket) -> dict[int, str]:
    return replies.parse_names(netlink.dump(messages.dump_links(), "list the interfaces"))


def read_addresses(netlink: NetlinkSocket) -> list[Address]:
    """The IP addresses."""
    names = _names(netlink)
    return replies.parse_addresses(netlink.dump(messages.dump_addresses(), "list the addresses"), names)


def read_routes(netlink: NetlinkSocket) -> list[Route]:
    """The routes of the main table, IPv4 before IPv6."""
    names = _names(netlink)
    found = [reply for version in (4, 6) for reply in netlink.dump(messages.dump_routes(version), "list the routes")]
    return replies.parse_routes(found, names)


def read_local_routes(netlink: NetlinkSocket) -> list[IPNetwork]:
    """What somebody told the kernel to take for its own, besides its addresses."""
    found = [reply for version in (4, 6) for reply in netlink.dump(messages.dump_routes(version), "list the routes")]
    return replies.parse_local_routes(found)


def read_neighbours(netlink: NetlinkSocket) -> list[Neighbour]:
    """The neighbour table, ARP and neighbour discovery."""
    names = _names(netlink)
    return replies.parse_neighbours(netlink.dump(messages.dump_neighbours(), "list the neighbours"), names)
