"""Names and addresses: what may be called what, and pools that never hand out the same thing twice."""

from __future__ import annotations

import re
from binascii import crc32
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from .errors import BadInput, InfraError

if TYPE_CHECKING:
    from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

__all__ = [
    "LONGEST_NAME",
    "MacPool",
    "SubnetPool",
    "interface_name",
    "ip_interface",
    "mac_address",
    "node_name",
    "port_name",
]

LONGEST_NAME = 15
"""Characters in an interface's name: IFNAMSIZ less the closing NUL (netdevice(7))."""

_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_INTERFACE_NAME = re.compile(r"(?!(?:\.|\.\.|all|default)\Z)[A-Za-z0-9_.][A-Za-z0-9_.+@=~-]*")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:(:|-)[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}")
_ADDRESS_AND_LENGTH = re.compile(r"[0-9A-Fa-f.:]+/[0-9]{1,3}")
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


def node_name(text: str) -> str:
    """The name of a host, switch or other node, checked: letters, digits, ``.``, ``_`` and ``-``, at most 15 of them.

    Raises:
        BadInput: it is longer, empty, or has other characters; the message says what is allowed.
    """
    if isinstance(text, str) and len(text) <= LONGEST_NAME and _NODE_NAME.fullmatch(text):
        return text
    raise BadInput(
        f"node name {text!r} cannot be used: allowed are 1 to {LONGEST_NAME} letters, digits, '.', '_' and '-', "
        "the first of them a letter or a digit" + _too_long(text)
    )


def interface_name(text: str) -> str:
    """The name of a network interface, checked.

    The kernel takes more (``dev_valid_name`` in net/core/dev.c): what means something to a shell, to Markdown or to
    the options of a program is refused here, as such names end up there.

    Raises:
        BadInput: it cannot be used; the message says what is allowed.
    """
    if isinstance(text, str) and len(text) <= LONGEST_NAME and _INTERFACE_NAME.fullmatch(text):
        return text
    raise BadInput(
        f"interface name {text!r} cannot be used: allowed are 1 to {LONGEST_NAME} letters, digits and "
        "'_', '.', '+', '-', '@', '=', '~', the first of them a letter, a digit, '_' or '.'; "
        "and not '.', '..', 'all' or 'default'" + _too_long(text)
    )


def _too_long(text: object) -> str:
    too_long = isinstance(text, str) and len(text) > LONGEST_NAME
    return f"; this one has {len(str(text))}" if too_long else ""


def port_name(switch: str, number: int) -> str:
    """The interface name of a switch's port: ``sw1-p1``.

    A switch name that leaves no room is cut and marked with a digest of the whole, after a ``~`` that no node
    name may have: two switches with the same beginning keep different port names.
    """
    end = f"-p{number}"
    room = LONGEST_NAME - len(end)
    if len(switch) <= room:
        return switch + end
    digest = crc32(switch.encode())
    mark = "".join(_BASE32[digest >> shift & 31] for shift in (0, 5, 10, 15, 20))
    return f"{switch[: room - 6]}~{mark}{end}"


def mac_address(text: str) -> str:
    """A unicast MAC address in lower case with colons; ``02-AB-…`` is taken too (IEEE 802, RFC 7042).

    Raises:
        BadInput: not six octets, a multicast address, or all zeros.
    """
    if not isinstance(text, str) or not _MAC.fullmatch(text):
        raise BadInput(f"MAC address {text!r} cannot be used: six octets such as '02:00:00:00:00:01' are wanted")
    if int(text[:2], 16) & 1:
        raise BadInput(f"MAC address {text!r} is a multicast address; an even first octet is wanted, such as 02")
    mac = text.lower().replace("-", ":")
    if mac == "00:00:00:00:00:00":
        raise BadInput("MAC address '00:00:00:00:00:00' names no interface; use one such as '02:00:00:00:00:01'")
    return mac


class MacPool:
    """Locally administered MAC addresses, ``02:…``, each handed out once (RFC 7042 section 2.1).

    Args:
        seed: two octets are made of it, so that two sessions rarely use the same addresses.
    """

    def __init__(self, seed: bytes = b"") -> None:
        self._start = 0x02 << 40 | (crc32(seed) & 0xFFFF) << 24
        self._count = 0
        self._reserved: set[str] = set()

    def reserve(self, mac: str) -> None:
        """Never hand out `mac`, which must have the form that `mac_address` returns."""
        self._reserved.add(mac)

    def take(self) -> str:
        """The next address.

        Raises:
            InfraError: all 16,777,215 of them have been handed out.
        """
        while self._count < 0xFFFFFF:
            self._count += 1
            digits = f"{self._start + self._count:012x}"
            mac = ":".join([digits[at : at + 2] for at in range(0, 12, 2)])
            if mac not in self._reserved:
                return mac
        raise InfraError("all 16,777,215 MAC addresses of the pool have been handed out")


class _Space:
    """The free blocks of an address space, by prefix length, as integers (a buddy allocator)."""

    def __init__(self, first: int, length: int, bits: int) -> None:
        self.first, self.length, self.bits = first, length, bits
        self._free: dict[int, set[int]] = {length: {first}}
        self._lowest: dict[int, list[int]] = {length: [first]}

    def _put(self, block: int, length: int) -> None:
        self._free.setdefault(length, set()).add(block)
        heappush(self._lowest.setdefault(length, []), block)

    def _split(self, block: int, length: int, wanted: int, wanted_length: int) -> None:
        """Give back all of a block that has been removed but the part `wanted`/`wanted_length`."""
        while length < wanted_length:
            length += 1
            half = 1 << (self.bits - length)
            low, high = block, block + half
            block, other = (high, low) if wanted >= high else (low, high)
            self._put(other, length)

    def take(self, wanted_length: int) -> int | None:
        for length in range(wanted_length, self.length - 1, -1):
            free, lowest = self._free.get(length), self._lowest.get(length)
            while free and lowest:
                block = heappop(lowest)
                if block in free:  # else it was reserved meanwhile
                    free.remove(block)
                    self._split(block, length, block, wanted_length)
                    return block
        return None

    def reserve(self, wanted: int, wanted_length: int) -> None:
        for length in range(self.length, wanted_length + 1):
            block = wanted >> (self.bits - length) << (self.bits - length)
            free = self._free.get(length)
            if free and block in free:
                free.remove(block)
                self._split(block, length, wanted, wanted_length)
                return
        end = wanted + (1 << (self.bits - wanted_length))
        for free in self._free.values():
            free.difference_update([block for block in free if wanted <= block < end])


class SubnetPool:
    """Subnets that overlap neither each other nor what was reserved.

    IPv4 comes from 198.18.0.0/15, kept for benchmarks (RFC 2544, RFC 6890), IPv6 from a unique local /48 (RFC 4193).

    Args:
        seed: the 40 bits of the unique local prefix are made of it.
    """

    def __init__(self, seed: bytes = b"") -> None:
        unique = crc32(b"a" + seed) << 8 | crc32(b"b" + seed) & 0xFF
        self._spaces = {4: _Space(198 << 24 | 18 << 16, 15, 32), 6: _Space(0xFD << 120 | unique << 80, 48, 128)}
        self._reserved: set[tuple[int, int, int]] = set()

    def reserve(self, network: IPv4Network | IPv6Network) -> None:
        """Hand out nothing that overlaps `network` from now on; one that lies outside the pool costs nothing."""
        space, length = self._spaces[network.version], network.prefixlen
        first = int(network.network_address)
        key = (network.version, first, length)
        if key in self._reserved:
            return
        self._reserved.add(key)
        common = space.bits - min(length, space.length)
        if first >> common == space.first >> common:
            space.reserve(max(first, space.first), max(length, space.length))

    def ipv4(self, length: int = 24) -> IPv4Network:
        """The next free IPv4 subnet with a prefix of `length` bits, 15 to 32.

        Raises:
            BadInput: the pool has no subnets of that length.
            InfraError: nothing of that size is left.
        """
        from ipaddress import IPv4Network

        if not 15 <= length <= 32:
            raise BadInput(f"an IPv4 prefix of {length} bits cannot be had from 198.18.0.0/15; 15 to 32 are allowed")
        return IPv4Network((self._take(4, length, "198.18.0.0/15"), length))

    def ipv6(self) -> IPv6Network:
        """The next free IPv6 subnet, a /64 (RFC 4291 section 2.5.1).

        Raises:
            InfraError: nothing is left.
        """
        from ipaddress import IPv6Network

        return IPv6Network((self._take(6, 64, "the unique local /48"), 64))

    def _take(self, version: int, length: int, whole: str) -> int:
        block = self._spaces[version].take(length)
        if block is None:
            raise InfraError(f"no free /{length} is left in {whole}: all are handed out or reserved")
        return block


def ip_interface(text: str | IPv4Interface | IPv6Interface) -> IPv4Interface | IPv6Interface:
    """An interface's address with its prefix length: ``"192.168.1.10/24"``, ``"2001:db8::10/64"``.

    Raises:
        BadInput: no address, no prefix length, or an address that no interface can have in that subnet.
    """
    import ipaddress

    why = "it is not an address with a prefix length"
    if _ADDRESS_AND_LENGTH.fullmatch(text) if isinstance(text, str) else hasattr(text, "network"):
        try:
            interface = ipaddress.ip_interface(text)
        except ValueError as error:
            why = str(error)
        else:
            why = _why_no_host(interface)
            if not why:
                return interface
    raise BadInput(
        f"address {str(text)!r} cannot be used: {why}; wanted is a unicast address with its prefix length, "
        "such as '192.168.1.10/24' or '2001:db8::10/64'"
    )


def _why_no_host(interface: IPv4Interface | IPv6Interface) -> str:
    """Why no interface can have this address in this subnet; empty where one can."""
    address, network = interface.ip, interface.network
    for kind in ("multicast", "unspecified", "loopback"):
        if getattr(address, f"is_{kind}"):
            return f"{address} is the {kind} address" if kind == "unspecified" else f"{address} is a {kind} address"
    if "%" in str(interface):
        return "it has a scope"
    if network.prefixlen == 0:
        return "a subnet of every address there is leaves none for the others"
    if network.prefixlen < network.max_prefixlen - 1:  # RFC 3021, RFC 6164: both addresses of the smallest are hosts
        if address == network.network_address:
            return f"it is the address of the subnet {network} itself"
        if address.version == 4 and address == network.broadcast_address:
            return f"it is the broadcast address of {network}"
    return "it is the broadcast address of every network" if str(address) == "255.255.255.255" else ""
