"""Packets as bytes: encoding and decoding the headers that `Packet` names.

Written with struct because a probe builds thousands of frames in the time that scapy takes for one hundred; the
tests compare every kind of frame with scapy's.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ..core.errors import BadInput
from .fields import FLAGS, IPV4, IPV6, PORT_PROTOCOLS
from .packet import Packet, mac_text

__all__ = ["SMALLEST_FRAME", "checksum", "decode", "encode"]

SMALLEST_FRAME = 60
"""Bytes of the smallest Ethernet frame without its frame check sequence (IEEE 802.3)."""

_VLAN_TAG = 0x8100
_TCP, _UDP, _SCTP = 6, 17, 132
_ICMP = {IPV4: 1, IPV6: 58}


def checksum(data: bytes) -> int:
    """The Internet checksum: the ones' complement of the ones' complement sum of 16-bit words (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def encode(packet: Packet, payload: bytes | None = None) -> bytes:
    """The frame of a packet, at least 60 bytes, with right lengths and checksums.

    Args:
        packet: its headers; its own payload is used where none is given.
        payload: what follows the headers. Zeros are put before it where the frame would be too short, so that a
            frame ends with its payload.

    Raises:
        BadInput: longer than an IP packet can be.
    """
    assert isinstance(packet.eth_type, int)
    content = packet.payload if payload is None else payload
    head = bytes.fromhex((packet.eth_dst + packet.eth_src).replace(":", ""))
    if packet.vlan is not None:
        head += struct.pack("!HH", _VLAN_TAG, (packet.pcp or 0) << 13 | packet.vlan)
    head += struct.pack("!H", packet.eth_type)
    layers = _length_of_headers(packet)
    content = content.rjust(SMALLEST_FRAME - len(head) - layers, b"\0")
    if packet.src is None or packet.dst is None:
        return head + content
    if layers + len(content) > 0xFFFF:
        raise BadInput(f"{packet} has {layers + len(content)} bytes; an IP packet has at most 65535")
    if packet.eth_type == IPV4:
        source, destination = IPv4Address(packet.src).packed, IPv4Address(packet.dst).packed
    else:
        source, destination = IPv6Address(packet.src).packed, IPv6Address(packet.dst).packed
    body = _transport(packet, source + destination, content)
    return head + _ip_header(packet, source + destination, len(body)) + body


def _length_of_headers(packet: Packet) -> int:
    if packet.src is None:
        return 0
    ip = 20 if packet.eth_type == IPV4 else 40
    transport = {_TCP: 20, _UDP: 8, _SCTP: 12, _ICMP[int(packet.eth_type or 0)]: 8}
    return ip + transport.get(int(packet.proto or 0), 0)


def _ip_header(packet: Packet, addresses: bytes, length: int) -> bytes:
    proto, ttl = int(packet.proto or 0), packet.ttl or 0
    traffic_class = int(packet.dscp or 0) << 2 | (packet.ecn or 0)
    if packet.eth_type == IPV6:
        return struct.pack("!IHBB", 6 << 28 | traffic_class << 20, length, proto, ttl) + addresses
    header = struct.pack("!BBHHHBBH", 0x45, traffic_class, 20 + length, 0, 0x4000, ttl, proto, 0) + addresses
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:]


def _transport(packet: Packet, addresses: bytes, payload: bytes) -> bytes:
    proto, ports = int(packet.proto or 0), (packet.sport or 0, packet.dport or 0)
    if proto == _TCP:
        flags = sum(1 << FLAGS.index(name) for name in (packet.tcp_flags or "").split())
        segment, at = struct.pack("!HHIIBBHHH", *ports, 1, 1, 5 << 4, flags, 0xFFFF, 0, 0) + payload, 16
    elif proto == _UDP:
        segment, at = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, 6
    elif proto == _SCTP:
        return struct.pack("!HHII", *ports, 0, 0) + payload
    elif proto == _ICMP[int(packet.eth_type or 0)]:
        segment, at = struct.pack("!BBHHH", packet.icmp_type or 0, packet.icmp_code or 0, 0, 1, 1) + payload, 2
    else:
        return payload
    pseudo = b"" if proto == _ICMP[IPV4] else addresses + struct.pack("!IHBB", len(segment), 0, 0, proto)
    total = checksum(pseudo + segment) or (0xFFFF if proto == _UDP else 0)
    return segment[:at] + struct.pack("!H", total) + segment[at + 2 :]


def decode(frame: bytes, in_port: str = "") -> Packet:
    """The headers of a frame that `encode` made, or that a device made of it. Its payload is left out.

    Raises:
        BadInput: it is cut short, or has headers that `Packet` cannot name (IPv4 options, extension headers,
            fragments, a second VLAN tag).
    """
    try:
        return _decode(frame, in_port)
    except (struct.error, IndexError):
        raise BadInput(f"a frame of {len(frame)} bytes is cut short: {frame.hex()}") from None


def _decode(frame: bytes, in_port: str) -> Packet:
    found: dict[str, Any] = {"in_port": in_port, "eth_dst": mac_text(int.from_bytes(frame[:6], "big"))}
    found["eth_src"], at = mac_text(int.from_bytes(frame[6:12], "big")), 12
    (eth_type,) = struct.unpack_from("!H", frame, at)
    if eth_type == _VLAN_TAG:
        tag, eth_type = struct.unpack_from("!HH", frame, at + 2)
        found |= {"vlan": tag & 0xFFF, "pcp": tag >> 13}
        at += 4
    found["eth_type"], at = eth_type, at + 2
    if eth_type == IPV4:
        at = _decode_ipv4(frame, at, found)
    elif eth_type == IPV6:
        at = _decode_ipv6(frame, at, found)
    elif eth_type == _VLAN_TAG:
        raise BadInput("a frame with two VLAN tags: a packet has at most one here")
    if eth_type in _ICMP:
        _decode_transport(frame, at, found)
    return Packet(**found)


def _decode_ipv4(frame: bytes, at: int, found: dict[str, Any]) -> int:
    first, traffic_class, _, _, fragment, ttl, proto, _, source, destination = struct.unpack_from(
        "!BBHHHBBHII", frame, at
    )
    if first != 0x45 or fragment & 0x3FFF:
        raise BadInput(f"an IPv4 packet with options or of fragments, which has no name here: {frame.hex()}")
    found |= {"dscp": traffic_class >> 2, "ecn": traffic_class & 3, "ttl": ttl, "proto": proto}
    found |= {"src": str(IPv4Address(source)), "dst": str(IPv4Address(destination))}
    return at + 20


def _decode_ipv6(frame: bytes, at: int, found: dict[str, Any]) -> int:
    first, _, proto, ttl, source, destination = struct.unpack_from("!IHBB16s16s", frame, at)
    found |= {"dscp": first >> 22 & 63, "ecn": first >> 20 & 3, "ttl": ttl, "proto": proto}
    found |= {"src": str(IPv6Address(source)), "dst": str(IPv6Address(destination))}
    return at + 40


def _decode_transport(frame: bytes, at: int, found: dict[str, Any]) -> None:
    proto = found["proto"]
    if proto in PORT_PROTOCOLS:
        found["sport"], found["dport"] = struct.unpack_from("!HH", frame, at)
    if proto == _TCP:
        flags = frame[at + 13]
        found["tcp_flags"] = " ".join(name for bit, name in enumerate(FLAGS) if flags >> bit & 1)
    if proto == _ICMP[found["eth_type"]]:
        found["icmp_type"], found["icmp_code"] = frame[at], frame[at + 1]
