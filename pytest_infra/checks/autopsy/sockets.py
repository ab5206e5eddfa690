"""Which ports a node listens on, read from /proc (proc(5)); runs in the node by ``node.call``."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...core.node import IPAddress

__all__ = ["ListeningSocket", "parse_sockets", "read_listening"]

_TABLES = ("tcp", "tcp6", "udp", "udp6")
_LISTENING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN, and TCP_CLOSE for a UDP socket that is not connected


@dataclass(frozen=True)
class ListeningSocket:
    """A TCP or UDP socket that waits for others."""

    protocol: str
    """``tcp`` or ``udp``."""
    address: IPAddress
    port: int

    @property
    def everywhere(self) -> bool:
        """Whether it is bound to every address."""
        return self.address.is_unspecified

    def takes(self, address: IPAddress) -> bool:
        """Whether its own address lets a packet to `address` in.

        A socket on ``::`` counts as taking IPv4 too; /proc does not tell those that are IPv6 only.
        """
        if self.everywhere:
            return self.address.version in (6, address.version)
        mapped = getattr(self.address, "ipv4_mapped", None)
        return address in (self.address, mapped)

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
    return found


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
