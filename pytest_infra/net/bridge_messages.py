"""rtnetlink requests and answers that only a Linux bridge has (bridge(8), linux/if_bridge.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .attributes import attribute, attributes_of, link_message
from .vlan import VlanMembership

__all__ = ["BridgeEntry", "bridge_settings", "dump_fdb", "fdb_entries", "vlan_requests"]

_SETLINK, _DELLINK, _NEWLINK, _GETNEIGH = 19, 17, 16, 30
_REQUEST, _DUMP = 0x1, 0x300
_AF_BRIDGE = 7
_IFLA_LINKINFO, _IFLA_AF_SPEC, _NESTED = 18, 26, 0x8000
_INFO_KIND, _INFO_DATA = 1, 2
_BR_FORWARD_DELAY, _BR_HELLO_TIME, _BR_MAX_AGE, _BR_STP_STATE, _BR_VLAN_FILTERING = 1, 2, 3, 5, 7
_VLAN_INFO = 2
_PVID, _UNTAGGED, _RANGE_BEGIN, _RANGE_END = 2, 4, 8, 16
_HZ = 100  # USER_HZ: the unit of a bridge's times
_NDA_LLADDR, _NDA_CACHEINFO, _NDA_VLAN = 2, 3, 5
_NUD_NOARP, _NUD_PERMANENT, _NTF_SELF = (
    0x40,
    0x80,
    0x02,
)  # the last: of the device, as a tunnel's own table, not of the bridge
_DEFAULT_VLAN, _LAST_VLAN = 1, 4094


def bridge_settings(index: int, *, vlan_filtering: bool = False, spanning_tree: bool = False) -> bytes:
    """Have a bridge look at VLAN tags, or speak the spanning tree protocol with the shortest times it allows."""
    data = b""
    if vlan_filtering:
        data += attribute(_BR_VLAN_FILTERING, b"\1")
    if spanning_tree:
        times = {_BR_FORWARD_DELAY: 2, _BR_HELLO_TIME: 1, _BR_MAX_AGE: 6}  # seconds; IEEE 802.1D, table 17-1
        for kind, seconds in times.items():
            data += attribute(kind, struct.pack("=I", seconds * _HZ))
        data += attribute(_BR_STP_STATE, struct.pack("=I", 1))
    info = attribute(_INFO_KIND, b"bridge\0") + attribute(_INFO_DATA | _NESTED, data)
    return link_message(_NEWLINK, 0, 0, index, attribute(_IFLA_LINKINFO | _NESTED, info))


def _vlans(kind: int, index: int, items: Iterable[tuple[int, int]]) -> bytes:
    spec = b"".join(attribute(_VLAN_INFO, struct.pack("=HH", flags, vlan)) for vlan, flags in items)
    return link_message(kind, 0, _AF_BRIDGE, index, attribute(_IFLA_AF_SPEC | _NESTED, spec))


def vlan_requests(index: int, vlans: VlanMembership) -> list[bytes]:
    """Have a port of a bridge carry these VLANs, and no longer the one that every port begins with."""
    items: list[tuple[int, int]] = []
    if vlans.trunk is not None:
        items = [(vlan, 0) for vlan in vlans.trunk]
        if not vlans.trunk:
            items = [(_DEFAULT_VLAN, _RANGE_BEGIN), (_LAST_VLAN, _RANGE_END)]
    untagged = vlans.access if vlans.access is not None else vlans.native
    if untagged is not None:
        items.append((untagged, _PVID | _UNTAGGED))
    return [_vlans(_DELLINK, index, [(_DEFAULT_VLAN, 0)]), _vlans(_SETLINK, index, items)]


def dump_fdb() -> bytes:
    """Ask for the MAC tables of all bridges in a namespace."""
    body = struct.pack("=BxxxiHBB", _AF_BRIDGE, 0, 0, 0, 0)
    return struct.pack("=IHHII", 16 + len(body), _GETNEIGH, _REQUEST | _DUMP, 0, 0) + body


@dataclass(frozen=True)
class BridgeEntry:
    """What a bridge knows of a MAC address."""

    mac: str
    index: int
    """The interface by which frames for it leave."""
    vlan: int
    """0 for none."""
    age_s: int
    """Seconds since the last frame from there."""
    kind: str
    """``learned`` from a frame, ``static``: somebody has set it, or ``local``: the bridge takes such frames itself."""


def fdb_entries(messages: Iterable[bytes]) -> Iterator[BridgeEntry]:
    """The MAC tables that the kernel told."""
    for message in messages:
        _, index, state, flags, _ = struct.unpack_from("=BxxxiHBB", message, 16)
        attributes = dict(attributes_of(message, 28))
        if flags & _NTF_SELF or _NDA_LLADDR not in attributes:
            continue  # the list of an interface, not that of its bridge
        vlan = struct.unpack("=H", attributes[_NDA_VLAN][:2])[0] if _NDA_VLAN in attributes else 0
        age = struct.unpack_from("=III", attributes[_NDA_CACHEINFO])[1] // _HZ if _NDA_CACHEINFO in attributes else 0
        kind = "local" if state & _NUD_PERMANENT else "static" if state & _NUD_NOARP else "learned"
        yield BridgeEntry(attributes[_NDA_LLADDR].hex(":"), index, vlan, age, kind)
