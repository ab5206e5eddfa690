"""Asking for a neighbour as the kernel does, when one chooses: an ARP request, or a neighbour solicitation.

A kernel that has got no answer asks once a second (RFC 4861, 10), which is too seldom for somebody who is watching.
"""

from __future__ import annotations

import ipaddress
import struct

from ..core.node import IPAddress, IPInterface, NodePort
from .icmp import checksum
from .tap import Tap, ethernet

__all__ = ["solicit"]

_ARP, _IPV6 = 0x0806, 0x86DD
_EVERYBODY = "ff:ff:ff:ff:ff:ff"
_ICMPV6, _SOLICITATION, _SOURCE_LINK_LAYER = 58, 135, 1
_SOLICITED_NODE = int(ipaddress.IPv6Address("ff02::1:ff00:0"))  # RFC 4291, 2.7.1


def solicit(port: NodePort, mac: str, address: IPInterface, target: IPAddress) -> None:
    """Ask once who has an address, from a port with this MAC and IP address; the answer goes to the kernel.

    Raises:
        OSError: the interface is down or gone, or packet sockets are not allowed.
    """
    frame = _arp(mac, address, target) if target.version == 4 else _solicitation(mac, address, target)
    tap = port.node.call(Tap)
    try:
        tap.send(port.name, frame)
    finally:
        tap.close()


def _arp(mac: str, address: IPInterface, target: IPAddress) -> bytes:
    """RFC 826."""
    own = bytes.fromhex(mac.replace(":", "")) + address.ip.packed
    return ethernet(_EVERYBODY, mac, _ARP, struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + bytes(6) + target.packed)


def _solicitation(mac: str, address: IPInterface, target: IPAddress) -> bytes:
    """RFC 4861, 4.3."""
    group = ipaddress.IPv6Address(_SOLICITED_NODE | int(target) & 0xFFFFFF).packed
    option = bytes([_SOURCE_LINK_LAYER, 1]) + bytes.fromhex(mac.replace(":", ""))
    body = bytes(4) + target.packed + option
    pseudo = address.ip.packed + group + struct.pack("!II", len(body) + 4, _ICMPV6)
    total = checksum(pseudo + struct.pack("!BBH", _SOLICITATION, 0, 0) + body)
    header = struct.pack("!IHBB", 6 << 28, len(body) + 4, _ICMPV6, 255) + address.ip.packed + group
    to = "33:33:" + ":".join(f"{byte:02x}" for byte in group[-4:])
    return ethernet(to, mac, _IPV6, header + struct.pack("!BBH", _SOLICITATION, 0, total) + body)
