"""`Tunnel`: a wire between switches of two hosts that carries Ethernet frames in IP packets."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import Any, Literal

from ..core.errors import BadInput, Unavailable
from ..core.node import IPAddress
from ..core.resource import Facts
from . import messages
from .attributes import NESTED, attribute, link_message
from .link import Link
from .netlink import NetlinkError
from .port import Port
from .switch import Switch

__all__ = ["TUNNEL_KINDS", "Tunnel", "TunnelKind", "check_tunnel"]

TunnelKind = Literal["vxlan", "geneve", "gre"]
TUNNEL_KINDS = {"vxlan": (4789, 1 << 24), "geneve": (6081, 1 << 24), "gre": (0, 1 << 32)}
"""The kinds: their UDP port (RFC 7348, RFC 8926; GRE has none, RFC 2784), and how many keys there are."""

_OPTION = {"vxlan": "CONFIG_VXLAN", "geneve": "CONFIG_GENEVE", "gre": "CONFIG_NET_IPGRE"}
_NEWLINK, _CREATE, _EXCL = 16, 0x400, 0x200
_ADDRESS, _IFNAME, _MTU, _LINKINFO = 1, 3, 4, 18
_INFO_KIND, _INFO_DATA = 1, 2
_GRE_KEY = 0x2000


def check_tunnel(a: Any, b: Any, kind: TunnelKind, key: int) -> None:
    """Look at what ``lab.tunnel`` takes.

    Raises:
        BadInput: an end that is no switch of a host, both in one host, an unknown kind, or no such key.
    """
    for end in (a, b):
        if not isinstance(end, Switch) or end.host is None:
            raise BadInput(f"a tunnel ends at switches of hosts, as lab.bridge('br1', host=m1) makes them; got {end!r}")
    if a.host is b.host:
        raise BadInput(f"{a.name} and {b.name} are both in {a.host.name}: link them, a tunnel is between two hosts")
    if kind not in TUNNEL_KINDS:
        raise BadInput(f"no kind of tunnel {kind!r}; there are {', '.join(TUNNEL_KINDS)}")
    keys = TUNNEL_KINDS[kind][1]
    if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < keys:
        raise BadInput(f"key {key!r} cannot be used: a {kind} tunnel has 0 to {keys - 1}")


class Tunnel(Link):
    """A tunnel between two switches, made once both hosts have their addresses.

    The tunnel devices are the kernel's, and ports of the switches. The headers make packets longer: on a Linux bridge,
    one that no longer fits is answered with "fragmentation needed"; with Open vSwitch it is sent in fragments.

    Args:
        a: the port of one switch.
        b: the port of the other.
        kind: of `TUNNEL_KINDS`.
        key: the VXLAN or Geneve network identifier, the GRE key.
    """

    def __init__(self, a: Port, b: Port, kind: TunnelKind, key: int) -> None:
        super().__init__(a, b, (a, b))
        self.kind = kind
        self.key = key
        self.endpoints: tuple[IPAddress, ...] = ()
        """The addresses that the packets have, once it is made."""

    def __enter__(self) -> Tunnel:
        self.endpoints = self._endpoints()
        for port, local, remote in zip(self.ports, self.endpoints, reversed(self.endpoints), strict=True):
            self._make(port, local, remote)
        for port in self.ports:
            assert isinstance(port.node, Switch)
            port.node.attach([port])
        return self

    def __exit__(self, *exc: object) -> None:
        """The devices go with the namespaces they are in."""

    def await_ready(self) -> None:
        """Have the kernel deliver the carrier changes now."""
        for port in self.ports:
            with port.node.namespace.netlink() as netlink:
                netlink.request([port.sync()])

    def _endpoints(self) -> tuple[IPAddress, ...]:
        """An address of each host: of a subnet that both have where there is one, else the first; IPv4 before IPv6."""
        mine, theirs = ([ip for one in _host_ports(port) for ip in one.addresses] for port in self.ports)
        for version in (4, 6):
            ours = [ip for ip in mine if ip.version == version and not ip.is_link_local]
            others = [ip for ip in theirs if ip.version == version and not ip.is_link_local]
            near = [(ip.ip, other.ip) for ip in ours for other in others if ip.network == other.network]
            if near or (ours and others):
                return near[0] if near else (ours[0].ip, others[0].ip)
        raise BadInput(
            f"the tunnel {self} (declared at {self.declared_at}) has no way: its hosts have no addresses of the same "
            "IP version; link them, or both with the network between them"
        )

    def _make(self, port: Port, local: IPAddress, remote: IPAddress) -> None:
        port.index = port.node.namespace.next_index()
        what = f"make {port}, declared at {port.declared_at}, a {self.kind} tunnel from {local} to {remote}"
        request = _device(port, self.kind, self.key, local, remote)
        switch = port.node
        assert isinstance(switch, Switch)
        join = messages.set_link(port.index, up=True, master=switch.master_index() or None)
        try:
            with port.node.namespace.netlink() as netlink:
                netlink.request([(request, what), (join, what), port.sync()])
        except NetlinkError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            why = f"it has no {self.kind} tunnels ({_OPTION[self.kind]})"
            remedy = "use kind='vxlan', Open vSwitch's own with over=, or a kernel that has them"
            raise Unavailable("kernel", why, remedy) from error

    def describe(self) -> Facts:
        """Both ends, the kind and the key."""
        return {**super().describe(), "tunnel": self.kind, "key": self.key}


def _host_ports(port: Port) -> Sequence[Port]:
    host = getattr(port.node, "host", None)
    return host.ports if host is not None else ()


def _device(port: Port, kind: str, key: int, local: IPAddress, remote: IPAddress) -> bytes:
    """The request for one end (linux/if_link.h, linux/if_tunnel.h)."""
    ipv6 = local.version == 6
    if kind == "vxlan":
        items = {1: struct.pack("=I", key), 15: struct.pack("!H", TUNNEL_KINDS[kind][0])}
        items |= {16 if ipv6 else 2: remote.packed, 17 if ipv6 else 4: local.packed}
        name = "vxlan"
    elif kind == "geneve":
        items = {1: struct.pack("=I", key), 5: struct.pack("!H", TUNNEL_KINDS[kind][0])}
        items |= {7 if ipv6 else 2: remote.packed}
        name = "geneve"
    else:
        flag, packed = struct.pack("!H", _GRE_KEY), struct.pack("!I", key)
        items = {2: flag, 3: flag, 4: packed, 5: packed, 6: local.packed, 7: remote.packed, 10: b"\0"}
        name = "ip6gretap" if ipv6 else "gretap"
    data = b"".join(attribute(number, content) for number, content in items.items())
    info = attribute(_INFO_KIND, name.encode() + b"\0") + attribute(_INFO_DATA | NESTED, data)
    attributes = attribute(_IFNAME, port.name.encode() + b"\0")
    attributes += attribute(_ADDRESS, bytes.fromhex(port.mac.replace(":", "")))
    attributes += attribute(_MTU, struct.pack("=I", port.mtu)) + attribute(_LINKINFO | NESTED, info)
    return link_message(_NEWLINK, _CREATE | _EXCL, 0, port.index, attributes)
