"""ICMP and ICMPv6 as bytes and as words (RFC 792, RFC 1812, RFC 4443); nothing here sends or receives."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = [
    "ECHO_REPLY",
    "ECHO_REQUEST",
    "ERRORS",
    "MAX_ECHO_BYTES",
    "Echo",
    "IcmpError",
    "checksum",
    "echo_request",
    "ip_header_bytes",
    "parse_echo",
    "parse_error",
]

ECHO_REQUEST = {4: 8, 6: 128}
"""The type of an echo request, by IP version."""
ECHO_REPLY = {4: 0, 6: 129}
"""The type of an echo reply, by IP version."""
ERRORS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
"""The types that report what became of another packet, by IP version: they quote its first bytes."""
MAX_ECHO_BYTES = 65507
"""The largest payload of an echo request: 65535 bytes less the IPv4 and the ICMP header."""

_HEADER = struct.Struct("!BBHHH")
_IPV4_HEADER_BYTES = 20
_IPV6_HEADER_BYTES = 40
_IPV6_EXTENSIONS = {0, 43, 60}  # hop-by-hop options, routing header, destination options (RFC 8200)
_IPV6_FRAGMENT = 44

_UNREACHABLE = {
    4: {
        0: "net unreachable",
        1: "host unreachable",
        2: "protocol unreachable",
        3: "port unreachable",
        4: "fragmentation needed",
        5: "source route failed",
        6: "net unknown",
        7: "host unknown",
        9: "net prohibited",
        10: "host prohibited",
        11: "net unreachable for this type of service",
        12: "host unreachable for this type of service",
        13: "administratively prohibited",
    },
    6: {
        0: "no route",
        1: "administratively prohibited",
        2: "beyond the scope of the source address",
        3: "address unreachable",
        4: "port unreachable",
        5: "source address failed policy",
        6: "route rejected",
    },
}
_TIME_EXCEEDED = {0: "time exceeded in transit", 1: "time exceeded in reassembly"}


@dataclass(frozen=True)
class IcmpError:
    """An ICMP error message that came back for a packet."""

    sender: str
    """Who sent it, an IP address."""
    type: int
    code: int
    version: int
    """The IP version: 4 or 6."""

    @property
    def words(self) -> str:
        """What the type and code mean, such as ``host unreachable`` or ``time exceeded in transit``."""
        if self._is(3, 1) and self.code in _UNREACHABLE[self.version]:
            return _UNREACHABLE[self.version][self.code]
        if self._is(11, 3):
            return _TIME_EXCEEDED.get(self.code, "time exceeded")
        if self.version == 6 and self.type == 2:
            return "packet too big"
        if self._is(12, 4):
            return "parameter problem"
        return f"type {self.type} code {self.code}"

    @property
    def port_unreachable(self) -> bool:
        """Whether it says that nothing listens on the port."""
        return (self.type, self.code) == ((3, 3) if self.version == 4 else (1, 4))

    @property
    def time_exceeded(self) -> bool:
        """Whether a router says that the packet had passed its last hop: the answer that a traceroute waits for."""
        return self._is(11, 3) and self.code == 0

    def _is(self, type_v4: int, type_v6: int) -> bool:
        return self.type == (type_v4 if self.version == 4 else type_v6)

    def __str__(self) -> str:
        return f"ICMP {self.words} from {self.sender}"


@dataclass(frozen=True)
class Echo:
    """The fields of an echo request or reply."""

    type: int
    identifier: int
    sequence: int
    payload: bytes


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of `data`."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(version: int, identifier: int, sequence: int, payload: bytes) -> bytes:
    """An echo request; for IPv6 the kernel fills in the checksum, which covers addresses not known here."""
    kind = ECHO_REQUEST[version]
    bare = _HEADER.pack(kind, 0, 0, identifier, sequence) + payload
    return _HEADER.pack(kind, 0, checksum(bare) if version == 4 else 0, identifier, sequence) + payload


def parse_echo(message: bytes) -> Echo | None:
    """The fields of an ICMP message read as an echo, or None when it is too short."""
    if len(message) < _HEADER.size:
        return None
    kind, _, _, identifier, sequence = _HEADER.unpack_from(message)
    return Echo(kind, identifier, sequence, bytes(message[_HEADER.size :]))


def parse_error(version: int, sender: str, message: bytes) -> tuple[IcmpError, bytes] | None:
    """An ICMP error and the beginning of the IP packet that it quotes, or None when it is not one."""
    if len(message) < _HEADER.size or message[0] not in ERRORS[version]:
        return None
    return IcmpError(sender, message[0], message[1], version), bytes(message[_HEADER.size :])


def ip_header_bytes(packet: bytes) -> tuple[int, int] | None:
    """The length of an IP packet's headers and the protocol of what follows them; None for what is none, or cut short.

    IPv6 extension headers are passed over (RFC 8200 section 4).
    """
    if len(packet) < _IPV4_HEADER_BYTES:
        return None
    if packet[0] >> 4 == 4:
        length = (packet[0] & 0x0F) * 4  # RFC 791: at least five words
        return (length, packet[9]) if _IPV4_HEADER_BYTES <= length <= len(packet) else None
    if packet[0] >> 4 != 6 or len(packet) < _IPV6_HEADER_BYTES:
        return None
    offset, following = _IPV6_HEADER_BYTES, packet[6]
    while following in _IPV6_EXTENSIONS or following == _IPV6_FRAGMENT:
        if len(packet) < offset + 8:
            return None
        length = 8 if following == _IPV6_FRAGMENT else 8 * (packet[offset + 1] + 1)
        following, offset = packet[offset], offset + length
    return (offset, following) if offset <= len(packet) else None
