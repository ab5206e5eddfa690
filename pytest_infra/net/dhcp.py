"""A DHCP client (RFC 2131): what a server gives an interface, and how that is put onto it."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, ip_address, ip_interface
from typing import ClassVar

from ..core.report import Report, explain
from ..core.units import format_duration
from .port import Port

__all__ = ["DhcpReport", "Offer", "configure"]

_CLIENT, _SERVER = 68, 67
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s192x4s")
_MAGIC = b"\x63\x82\x53\x63"
_BROADCAST = 0x8000  # the client has no address yet
_DISCOVER, _OFFER, _REQUEST, _ACK, _NAK = 1, 2, 3, 5, 6
_MASK, _ROUTER, _DNS, _NAME, _DOMAIN = 1, 3, 6, 12, 15
_WANTED, _LEASE, _KIND, _SERVER_ID, _ASKED_FOR, _WORDS = 50, 51, 53, 54, 55, 56
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 4.0  # a lab's servers are near: RFC 2131 section 4.1 begins with 4 s
_LARGEST = 1500


@dataclass(frozen=True)
class Offer:
    """What came of asking."""

    address: str = ""
    """With its prefix length; empty where there is none."""
    routers: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    domain: str = ""
    server: str = ""
    lease_s: float = 0.0
    requests: int = 0
    """How many messages were sent."""
    refusal: str = ""
    """What the server said where it took its offer back (DHCPNAK)."""


@dataclass(frozen=True)
class DhcpReport(Report):
    """What a DHCP server has given a node's interface; times in seconds."""

    kind: ClassVar[str] = "dhcp"

    node: str
    interface: str
    within_s: float
    offer: Offer

    @property
    def ok(self) -> bool:
        """Whether there is an address."""
        return bool(self.offer.address)

    @property
    def address(self) -> IPv4Interface:
        """The address with its prefix length."""
        return IPv4Interface(self.offer.address)

    def explain(self) -> str:
        """What was given, or why nothing was."""
        offer, where = self.offer, f"{self.node}:{self.interface}"
        if self.ok:
            rows = [("routers", ", ".join(offer.routers)), ("dns", ", ".join(offer.dns)), ("domain", offer.domain)]
            rows += [("lease", f"{format_duration(offer.lease_s)} from {offer.server}")]
            return explain(f"{where} has the address {offer.address} by DHCP", rows)
        within = format_duration(self.within_s)
        rows = [("measured", f"{offer.requests} requests sent"), ("wanted", f"an address within {within}")]
        if offer.refusal or offer.server:
            said = f": {offer.refusal}" if offer.refusal else ""
            rows.append(("cause", f"the server {offer.server} made an offer and took it back (DHCPNAK){said}"))
            rows.append(("next", "look at the log of the server"))
        else:
            rows.append(("cause", "no server has answered: none is there, it has no address left, or frames are lost"))
            rows.append(("next", f"look at the log of the server, and at UDP port {_SERVER} on the way: lab.capture"))
        return explain(f"{where} got no address by DHCP", rows)


def _ask_for_address(interface: str, mac: str, name: str, within_s: float) -> Offer:
    """Ask the servers on an interface for an address (DISCOVER, REQUEST), in the calling thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind(("0.0.0.0", _CLIENT))  # noqa: S104  # it has no address yet
        return _Talk(sock, bytes.fromhex(mac.replace(":", "")), name).run(time.monotonic() + within_s)


def configure(port: Port, within_s: float) -> DhcpReport:
    """Ask at a host's port, and put what is given onto it.

    Raises:
        CheckFailed: nothing was given.
    """
    offer = port.node.namespace.call(_ask_for_address, port.name, port.mac, port.node.name, within_s)
    report = DhcpReport(port.node.name, port.name, within_s, offer)
    report.demand()
    port.planned = (*(port.planned or ()), report.address)
    port.router = ip_address(offer.routers[0]) if offer.routers else None
    port.restore(port)
    return report


class _Talk:
    """One exchange with whichever server answers first."""

    def __init__(self, sock: socket.socket, mac: bytes, name: str) -> None:
        self._sock, self._mac, self._name = sock, mac, name
        self._number = int.from_bytes(os.urandom(4), "big")
        self._sent = 0

    def run(self, deadline: float) -> Offer:
        refusal = Offer()
        pause_s = _FIRST_PAUSE_S
        while time.monotonic() < deadline:
            until = min(deadline, time.monotonic() + pause_s)
            offered = self._ask({_KIND: bytes([_DISCOVER])}, (_OFFER,), until)
            if offered is not None:
                given = self._ask(self._choice(offered), (_ACK, _NAK), until)
                if given is not None and given[_KIND] == bytes([_ACK]):
                    return self._offer(given)
                if given is not None:
                    words = given.get(_WORDS, b"").decode(errors="replace")
                    refusal = Offer(server=_addresses(given.get(_SERVER_ID, b""))[0], refusal=words)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return Offer(server=refusal.server, refusal=refusal.refusal, requests=self._sent)

    def _choice(self, offered: Mapping[int, bytes]) -> dict[int, bytes]:
        return {_KIND: bytes([_REQUEST]), _WANTED: offered[0], _SERVER_ID: offered.get(_SERVER_ID, b"")}

    def _ask(self, options: dict[int, bytes], kinds: tuple[int, ...], until: float) -> dict[int, bytes] | None:
        """Send a message, and wait for an answer of one of these kinds; its address is under 0."""
        options |= {_NAME: self._name.encode(), _ASKED_FOR: bytes([_MASK, _ROUTER, _DNS, _DOMAIN, _LEASE])}
        none = bytes(4)
        header = _HEADER.pack(1, 1, 6, 0, self._number, 0, _BROADCAST, none, none, none, none, self._mac, _MAGIC)
        body = b"".join(bytes([key, len(value)]) + value for key, value in options.items() if value)
        self._sock.sendto(header + body + b"\xff", ("255.255.255.255", _SERVER))
        self._sent += 1
        while (left_s := until - time.monotonic()) > 0:
            self._sock.settimeout(left_s)
            try:
                answer = self._read(self._sock.recv(_LARGEST))
            except TimeoutError:
                return None
            if answer is not None and answer.get(_KIND, b"")[:1] in [bytes([kind]) for kind in kinds]:
                return answer
        return None

    def _read(self, data: bytes) -> dict[int, bytes] | None:
        """The options of an answer to us; None where it is none."""
        if len(data) < _HEADER.size:
            return None
        operation, _, _, _, number, _, _, _, yours, _, _, mac, magic = _HEADER.unpack_from(data)
        if (operation, number, mac[:6], magic) != (2, self._number, self._mac, _MAGIC):
            return None
        found, at = {0: yours}, _HEADER.size
        while at + 1 < len(data) and data[at] != 255:
            if data[at] == 0:
                at += 1
                continue
            found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
            at += 2 + data[at + 1]
        return found

    def _offer(self, given: Mapping[int, bytes]) -> Offer:
        mask = given.get(_MASK, b"\xff" * 4)
        servers = _addresses(given.get(_SERVER_ID, b""))
        return Offer(
            address=str(ip_interface(f"{ip_address(given[0])}/{IPv4Address(mask)}")),
            routers=_addresses(given.get(_ROUTER, b"")),
            dns=_addresses(given.get(_DNS, b"")),
            domain=given.get(_DOMAIN, b"").rstrip(b"\0").decode(errors="replace"),
            server=servers[0] if servers else "",
            lease_s=float(int.from_bytes(given.get(_LEASE, b""), "big")),
            requests=self._sent,
        )


def _addresses(data: bytes) -> tuple[str, ...]:
    return tuple(str(IPv4Address(data[at : at + 4])) for at in range(0, len(data) - 3, 4))
