"""Inside a guest: its interfaces get their names, addresses and routes, and what it has is read.

These functions run in the guest's own Python (`vm.channel.Channel.call`).
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..core.node import Address, Interface, IPAddress, IPInterface, IPNetwork, Neighbour, Route
from ..core.wait import until
from . import messages, replies
from .netlink import NetlinkError, NetlinkSocket
from .reading import read_addresses, read_interfaces, read_neighbours, read_routes
from .sysctl import Sysctl, write_sysctl

__all__ = ["GuestInterface", "GuestNetwork", "GuestRoute", "configure"]

_SIOCSIFNAME = 0x8923
_PLUGGED_S = 60.0
_USABLE_S = 30.0


@dataclass(frozen=True)
class GuestInterface:
    """An interface as it shall be."""

    mac: str
    name: str
    mtu: int
    addresses: tuple[IPInterface, ...]


@dataclass(frozen=True)
class GuestRoute:
    """A route as it shall be."""

    destination: IPNetwork
    gateway: IPAddress
    interface: str


def configure(
    interfaces: Sequence[GuestInterface],
    routes: Sequence[GuestRoute],
    settings: Mapping[str, str],
    dropped: Sequence[GuestRoute] = (),
) -> None:
    """Make this machine's network what was planned; what is so already stays.

    Args:
        interfaces: those that were plugged in, told by their MAC addresses.
        routes: the routes.
        settings: kernel settings.
        dropped: routes of an earlier plan.
    """
    for name, value in settings.items():
        with suppress(FileNotFoundError):  # a kernel without IPv6
            write_sysctl(name, value)
    with NetlinkSocket() as netlink:
        netlink.request([(messages.set_link(1, up=True), "set the loopback up")])
        indices = _name(interfaces, [_await_card(netlink, wanted.mac) for wanted in interfaces])
        for wanted in interfaces:
            found = indices[wanted.name]
            netlink.request(
                [
                    (messages.set_link(found, up=True, mtu=wanted.mtu), f"set {wanted.name} up"),
                    *((messages.add_address(found, ip), f"give it {ip}") for ip in wanted.addresses),
                ]
            )
        for old in dropped:
            with suppress(NetlinkError, KeyError):
                request = messages.delete_route(old.destination, old.gateway, indices[old.interface])
                netlink.request([(request, f"delete the route to {old.destination}")])
        for route in routes:
            request = messages.add_route(route.destination, route.gateway, indices[route.interface])
            netlink.request([(request, f"add the route to {route.destination}")])
        _await_usable(netlink, list(indices.values()))


def _await_usable(netlink: NetlinkSocket, indices: Sequence[int]) -> None:
    request = messages.dump_addresses(6)
    until(
        lambda: not replies.pending_ipv6(netlink.dump(request, "list the addresses"), indices),
        within_s=_USABLE_S,
        what="IPv6 addresses become usable",
    )


def _await_card(netlink: NetlinkSocket, mac: str) -> Interface:
    found = until(lambda: _with_mac(netlink, mac), within_s=_PLUGGED_S, what=f"the network card {mac} appears")
    assert found is not None
    return found


def _with_mac(netlink: NetlinkSocket, mac: str) -> Interface | None:
    found = read_interfaces(netlink, fresh=False)
    return next((item for item in found.values() if item.mac.lower() == mac.lower()), None)


def _name(wanted: Sequence[GuestInterface], found: Sequence[Interface]) -> dict[str, int]:
    """Give the cards their names, by way of others that nobody has; returns their indices."""
    wrong = [(item, new) for item, new in zip(found, wanted, strict=True) if item.name != new.name]
    for number, (item, _) in enumerate(wrong):
        _rename(item.name, f"card-{number}")
    for number, (_, new) in enumerate(wrong):
        _rename(f"card-{number}", new.name)
    return {new.name: item.index for item, new in zip(found, wanted, strict=True)}


def _rename(old: str, new: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFNAME, struct.pack("16s16s", old.encode(), new.encode()))


def _interfaces() -> dict[str, Interface]:
    with NetlinkSocket() as netlink:
        return read_interfaces(netlink)


def _addresses() -> list[Address]:
    with NetlinkSocket() as netlink:
        return read_addresses(netlink)


def _routes() -> list[Route]:
    with NetlinkSocket() as netlink:
        return read_routes(netlink)


def _neighbours() -> list[Neighbour]:
    with NetlinkSocket() as netlink:
        return read_neighbours(netlink)


class GuestNetwork:
    """What a guest's kernel has, read from outside.

    Args:
        call: runs a function in the guest.
        name: the guest's name.
    """

    def __init__(self, call: Callable[..., Any], name: str) -> None:
        self._call = call
        self.sysctl = Sysctl(call, name)
        """The kernel settings, by dotted name."""

    def interfaces(self) -> dict[str, Interface]:
        """The network interfaces now, by name."""
        found: dict[str, Interface] = self._call(_interfaces)
        return found

    def addresses(self) -> list[Address]:
        """The IP addresses now."""
        found: list[Address] = self._call(_addresses)
        return found

    def routes(self) -> list[Route]:
        """The routes of the main table now."""
        found: list[Route] = self._call(_routes)
        return found

    def neighbours(self) -> list[Neighbour]:
        """The ARP and neighbour discovery tables now."""
        found: list[Neighbour] = self._call(_neighbours)
        return found
