"""Which ports a node listens on, read from /proc (proc(5)); runs in the node by ``node.call``."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...core.node import IPAddress

__all__ = ["ListeningSocket", "parse_sockets", "read_listening"]

_TABLES = ("tcp", "tcp6", "udp", "udp6")
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP = 4, 20, 0x301
_TCP_LISTEN, _SKV6ONLY, _DIAG_BYTES = 10, 11, 72
_RECEIVE_BYTES, _TIMEOUT_S = 1 << 16, 5.0
_LISTENING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN, and TCP_CLOSE for a UDP socket that is not connected


@dataclass(frozen=True)
class ListeningSocket:
    """A TCP or UDP socket that waits for others."""

    protocol: str
    """``tcp`` or ``udp``."""
    address: IPAddress
    port: int
    v6only: bool = False
    """Whether a socket of IPv6 takes no IPv4 (IPV6_V6ONLY, ipv6(7))."""
    waiting: int = 0
    """Connections that wait to be accepted."""
    backlog: int | None = None
    """How many may wait; None where it is not known."""
    interface: str = ""
    """The only interface whose packets it takes (SO_BINDTODEVICE, socket(7)); "" for all."""

    @property
    def full(self) -> bool:
        """Whether no further connection is let in."""
        return self.backlog is not None and self.waiting > self.backlog

    @property
    def everywhere(self) -> bool:
        """Whether it is bound to every address."""
        return self.address.is_unspecified

    def takes(self, address: IPAddress) -> bool:
        """Whether its own address lets a packet to `address` in."""
        if self.everywhere:
            return self.takes_family(address.version)
        mapped = getattr(self.address, "ipv4_mapped", None)
        return address in (self.address, mapped)

    def takes_family(self, version: int) -> bool:
        """Whether it can take packets of an IP version at all."""
        if self.address.version == version:
            return True
        return self.address.version == 6 and not self.v6only and (self.everywhere or self._mapped)

    @property
    def _mapped(self) -> bool:
        return getattr(self.address, "ipv4_mapped", None) is not None

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.port} on {host}"


def read_listening() -> list[ListeningSocket]:
    """The listening TCP sockets and the unconnected UDP sockets of the calling thread's network namespace."""
    found: list[ListeningSocket] = []
    for table in _TABLES:
        try:
            with open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
                found += parse_sockets(table.rstrip("6"), file)
        except FileNotFoundError:  # a kernel without IPv6
            continue
    details = _read_details()
    return [replace(item, **details.get((str(item.address), item.port), {})) for item in found]


def _read_details() -> dict[tuple[str, int], dict[str, Any]]:
    """Of the listening TCP sockets what /proc does not tell; empty where the kernel has no sock_diag(7)."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as sock:
            sock.settimeout(_TIMEOUT_S)
            for family in (socket.AF_INET, socket.AF_INET6):
                for reply in _dump(sock, family):
                    key, details = _parse_details(reply)
                    if found.get(key, details)["interface"] != details["interface"]:
                        details["interface"] = ""  # one for each of several interfaces
                    found[key] = details
    except OSError:
        return found
    return found


def _dump(sock: socket.socket, family: int) -> Iterator[bytes]:
    request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN)
    sock.send(struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
    while True:
        data, offset = sock.recv(_RECEIVE_BYTES), 0
        while offset + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if kind != _SOCK_DIAG_BY_FAMILY:  # the end, or a refusal
                return
            yield data[offset + 16 : offset + length]
            offset += max((length + 3) & ~3, 16)


def _parse_details(reply: bytes) -> tuple[tuple[str, int], dict[str, Any]]:
    """A struct inet_diag_msg and its attributes (linux/inet_diag.h)."""
    version = 4 if reply[0] == socket.AF_INET else 6
    address = ipaddress.ip_address(reply[8:12] if version == 4 else reply[8:24])
    waiting, backlog = struct.unpack_from("=II", reply, 56)
    (index,) = struct.unpack_from("=I", reply, 40)
    details: dict[str, Any] = {"waiting": waiting, "backlog": backlog, "interface": _interface_name(index)}
    offset = _DIAG_BYTES
    while offset + 4 <= len(reply):
        length, kind = struct.unpack_from("=HH", reply, offset)
        if kind == _SKV6ONLY:
            details["v6only"] = bool(reply[offset + 4])
        offset += max((length + 3) & ~3, 4)
    return (str(address), int.from_bytes(reply[4:6], "big")), details


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index) if index else ""
    except OSError:
        return str(index)


def parse_sockets(protocol: str, lines: Iterable[str]) -> Iterator[ListeningSocket]:
    """The waiting sockets in one of the tables of /proc/net, its heading included."""
    for line in list(lines)[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTENING[protocol]:
            address, _, port = fields[1].partition(":")
            yield ListeningSocket(protocol, _parse_address(address), int(port, 16))


def _parse_address(text: str) -> IPAddress:
    """An address as the kernel prints it: words of 32 bits, each in the machine's own byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
