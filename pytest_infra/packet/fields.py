"""The header fields that rules match and packets have, and how people write their values.

Names and sizes are those of the standards: Ethernet (IEEE 802.3), VLAN tags (IEEE 802.1Q), IPv4 (RFC 791), IPv6
(RFC 8200), DSCP (RFC 2474), ECN (RFC 3168), TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792, RFC 4443), VXLAN's
network identifier (RFC 7348).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from types import MappingProxyType

from ..core.errors import BadInput

__all__ = [
    "CT_STATES",
    "ETH_TYPES",
    "FIELDS",
    "FLAGS",
    "IPV4",
    "IPV6",
    "PORT_PROTOCOLS",
    "PROTOCOLS",
    "UNTAGGED",
    "Interval",
    "parse_address",
    "parse_flags",
    "parse_interval",
    "parse_mac",
    "parse_number",
    "parse_prefix",
    "parse_states",
]

Interval = tuple[int, int]
"""The lowest and the highest value, both included."""

IPV4, IPV6 = 0x0800, 0x86DD
UNTAGGED = -1
"""The value of `vlan` in a packet without a tag."""

FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")
"""The TCP flags, from bit 0 (RFC 9293, section 3.1)."""

FIELDS: Mapping[str, Interval] = MappingProxyType(
    {
        "in_port": (0, 0xFFFF),
        "tunnel_id": (0, 0xFFFFFF),
        "eth_src": (0, 2**48 - 1),
        "eth_dst": (0, 2**48 - 1),
        "vlan": (UNTAGGED, 4094),
        "pcp": (0, 7),
        "eth_type": (0x0600, 0xFFFF),
        "ip4_src": (0, 2**32 - 1),
        "ip4_dst": (0, 2**32 - 1),
        "ip6_src": (0, 2**128 - 1),
        "ip6_dst": (0, 2**128 - 1),
        "proto": (0, 255),
        "dscp": (0, 63),
        "ct_state": (0, 3),
        "sport": (0, 0xFFFF),
        "dport": (0, 0xFFFF),
        "icmp_type": (0, 255),
        "icmp_code": (0, 255),
        **dict.fromkeys(FLAGS, (0, 1)),
    }
)
"""The fields that a rule can match, and their values. IPv4 and IPv6 addresses are fields of their own, each TCP flag
is one, `ct_state` is a place in `CT_STATES`, and `in_port` is a port's number; so every match is an interval in each of
some fields."""

CT_STATES = ("new", "related", "established", "invalid")
"""The states of a connection, as conntrack tells them of a packet; they are not in the packet."""

ETH_TYPES: Mapping[str, int] = MappingProxyType({"ipv4": IPV4, "arp": 0x0806, "ipv6": IPV6})
PROTOCOLS: Mapping[str, int] = MappingProxyType(
    {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "icmpv6": 58, "sctp": 132}
)
"""Protocol numbers by name (IANA, Assigned Internet Protocol Numbers)."""
PORT_PROTOCOLS = (6, 17, 132)
"""The protocols that have ports: TCP, UDP, SCTP."""

_DSCP: Mapping[str, int] = {
    "be": 0,
    "ef": 46,
    **{f"cs{number}": number * 8 for number in range(8)},
    **{f"af{number}{drop}": number * 8 + drop * 2 for number in range(1, 5) for drop in range(1, 4)},
}
_NAMES: Mapping[str, Mapping[str, int]] = {"eth_type": ETH_TYPES, "proto": PROTOCOLS, "dscp": _DSCP}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_RANGE = re.compile(r"\s*(\w+)\s*-\s*(\w+)\s*")


def parse_number(field: str, value: object, whose: str) -> int:
    """A value of a field: a number, its text (``"0x86dd"``), or a name from the standards (``"udp"``, ``"AF11"``).

    Raises:
        BadInput: no number or name of the field, or outside its range.
    """
    low, high = FIELDS[field]
    names = _NAMES.get(field, {})
    number = names.get(value.lower()) if isinstance(value, str) else value
    if number is None and isinstance(value, str):
        try:
            number = int(value, 0)
        except ValueError:
            number = None
    if isinstance(number, int) and not isinstance(number, bool) and low <= number <= high:
        return number
    known = f", or {', '.join(names)}" if names else ""
    raise BadInput(f"{whose}: {field} is {value!r}; allowed are {low} to {high}{known}")


def parse_interval(field: str, value: object, whose: str) -> Interval:
    """One value, or a range: ``"1024-65535"`` or ``(1024, 65535)``, both ends included.

    Raises:
        BadInput: a value outside the field's range, or a range whose end is before its beginning.
    """
    if isinstance(value, str) and (match := _RANGE.fullmatch(value)):
        value = match.groups()
    if not isinstance(value, tuple):
        number = parse_number(field, value, whose)
        return number, number
    if len(value) != 2:
        raise BadInput(f"{whose}: {field} is {value!r}; a range has two ends")
    low, high = (parse_number(field, end, whose) for end in value)
    if low > high:
        raise BadInput(f"{whose}: {field} is {value!r}; a range goes from its lower end to its higher one")
    return low, high


def parse_mac(field: str, value: object, whose: str) -> int:
    """A MAC address such as ``"02:00:00:00:00:01"``.

    Raises:
        BadInput: it is none.
    """
    if isinstance(value, str) and _MAC.fullmatch(value.lower()):
        return int(value.replace(":", ""), 16)
    raise BadInput(f"{whose}: {field} is {value!r}; a MAC address looks like 02:00:00:00:00:01")


def parse_prefix(field: str, value: object, whose: str) -> tuple[int, Interval]:
    """An address prefix such as ``"10.0.0.0/8"`` or ``"2001:db8::1"``: its EtherType, and its first and last address.

    Raises:
        BadInput: no prefix, longer than the address, or with bits set behind its length.
    """
    try:
        network = ip_network(str(value))
    except ValueError as error:
        raise BadInput(f"{whose}: {field} is {value!r}: {error}") from None
    return IPV4 if network.version == 4 else IPV6, (int(network[0]), int(network[-1]))


def parse_address(field: str, value: object, whose: str) -> tuple[int, int]:
    """An address: its EtherType and its number.

    Raises:
        BadInput: it is none.
    """
    try:
        address = ip_address(str(value))
    except ValueError as error:
        raise BadInput(f"{whose}: {field} is {value!r}: {error}") from None
    return IPV4 if address.version == 4 else IPV6, int(address)


def parse_flags(value: object, whose: str) -> dict[str, int]:
    """TCP flags, those that must be clear with a ``!``: ``"syn,!ack"``.

    Raises:
        BadInput: no such flag, or one that is to be set and clear.
    """
    flags: dict[str, int] = {}
    for word in str(value).lower().replace(",", " ").split():
        name, wanted = word.lstrip("!"), int(not word.startswith("!"))
        if name not in FLAGS or flags.setdefault(name, wanted) != wanted:
            raise BadInput(
                f"{whose}: tcp_flags is {value!r}; write flags as in 'syn,!ack'; there are {', '.join(FLAGS)}"
            )
    return flags


def parse_states(value: object, whose: str) -> tuple[Interval, ...]:
    """States of a connection, as in ``"established,related"``, as ranges of their places in `CT_STATES`.

    Raises:
        BadInput: no such state, or none at all.
    """
    words = str(value).lower().replace(",", " ").split()
    if not words or set(words) - set(CT_STATES):
        raise BadInput(f"{whose}: ct_state is {value!r}; there are {', '.join(CT_STATES)}")
    places = sorted({CT_STATES.index(word) for word in words})
    starts = [place for place in places if place - 1 not in places]
    ends = [place for place in places if place + 1 not in places]
    return tuple(zip(starts, ends, strict=True))
