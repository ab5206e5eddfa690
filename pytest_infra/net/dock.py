"""`Dock`: the machine's side of a guest's network cards.

It is a network namespace in which the emulator runs. A link of the lab ends there, and a bridge joins it with the tap
(tuntap kernel document) whose other side is the guest's card: so a guest can move to another emulator, which opens a
second tap, as it would move to another machine.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, ClassVar

from ..core.errors import Unavailable
from ..core.node import IPNetwork
from . import messages
from .guest import GuestInterface, GuestNetwork, GuestRoute, configure
from .host import Host
from .plan import Hop
from .port import Port
from .router import Router

__all__ = ["Dock"]

_TUNSETIFF, _SIOCSIFHWADDR, _SIOCGIFINDEX = 0x400454CA, 0x8924, 0x8933
_TAP, _NO_PACKET_INFO, _VNET_HEADER = 0x0002, 0x1000, 0x4000
_ETHER = 1


class Dock(Host):
    """The namespace of a guest's emulator. The lab plans the guest's ports here, and the guest configures them.

    Args:
        name: the guest's name.
        forwards: whether the guest is a router.
        options: as of `Host`.
    """

    kind = "dock"
    sysctl_defaults: ClassVar[Mapping[str, str]] = {
        **Host.sysctl_defaults,
        "net.ipv6.conf.default.disable_ipv6": "1",  # what passes here is the guest's own
        "net.ipv6.conf.all.disable_ipv6": "1",
    }

    def __init__(self, name: str, *, forwards: bool = False, **options: Any) -> None:
        super().__init__(name, **options)
        self.forwards = forwards
        self._bridges: dict[Port, int] = {}
        self._numbers = count()
        self._told: tuple[GuestRoute, ...] = ()

    def tap(self, port: Port) -> int:
        """A new tap on the wire of this port; returns the descriptor that its guest's card lives on.

        Raises:
            Unavailable: the kernel has no taps.
        """
        number = next(self._numbers)
        if port not in self._bridges:
            self._bridges[port] = self._bridge(port, number)
        name = f"tap{number}"
        fd, index = self.namespace.within(_open_tap, name)
        request = messages.set_link(index, up=True, mtu=port.mtu, master=self._bridges[port])
        try:
            with self.namespace.netlink() as netlink:
                netlink.request([(request, f"make the tap of {port}")])
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _bridge(self, port: Port, number: int) -> int:
        index, rest = self.namespace.next_index(), port.mac[2:]
        self.namespace.within(_set_mac, port.name, f"06{rest}")  # the guest has the port's own
        requests = [
            (messages.add_bridge(f"br{number}", index=index, mac=f"0a{rest}"), f"make the bridge of {port}"),
            (messages.set_link(port.index, up=True, master=index), f"put {port} into it"),
        ]
        with self.namespace.netlink() as netlink:
            netlink.request(requests)
        return index

    def network(self, call: Callable[..., Any]) -> GuestNetwork:
        """What the guest has, read by functions that `call` runs in it."""
        return GuestNetwork(call, self.name)

    def configure(self, call: Callable[..., Any], ports: Sequence[Port], others: Sequence[GuestInterface] = ()) -> None:
        """Have the guest configure these ports, which are plugged in, and its routes.

        Args:
            call: runs a function in the guest.
            ports: the lab's.
            others: its interfaces that are not the lab's.
        """
        interfaces = [GuestInterface(port.mac, port.name, port.mtu, port.addresses) for port in ports]
        hops: Mapping[IPNetwork, Hop] = self.planned_routes
        names = {port.name for port in ports}
        routes = tuple(
            GuestRoute(network, hop.gateway, hop.port.name) for network, hop in hops.items() if hop.port.name in names
        )
        settings = dict(Router.sysctl_defaults if self.forwards else Host.sysctl_defaults)
        dropped = [route for route in self._told if route not in routes]
        call(configure, [*interfaces, *others], routes, settings, dropped)
        self._told = routes


def _open_tap(name: str) -> tuple[int, int]:
    """Make a tap in this thread's namespace: its descriptor, and the index of its interface."""
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        why = f"/dev/net/tun cannot be opened: {error.strerror}"
        raise Unavailable("tap", why, "load the module tun, or allow the device") from error
    try:
        flags = _TAP | _NO_PACKET_INFO | _VNET_HEADER
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock, _SIOCGIFINDEX, struct.pack("16s24x", name.encode()))
        return fd, struct.unpack_from("i", answer, 16)[0]
    except BaseException:
        os.close(fd)
        raise


def _set_mac(name: str, mac: str) -> None:
    address = bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFHWADDR, struct.pack("16sH6s16x", name.encode(), _ETHER, address))
