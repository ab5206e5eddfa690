"""rtnetlink requests as bytes (rtnetlink(7)); the encoding itself is pyroute2's."""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from ..core.node import IPAddress, IPInterface, IPNetwork

__all__ = [
    "MAIN_TABLE",
    "add_address",
    "add_bridge",
    "add_route",
    "add_veth",
    "delete_group",
    "delete_link",
    "delete_neighbour",
    "delete_route",
    "dump_addresses",
    "dump_links",
    "dump_neighbours",
    "dump_routes",
    "dump_rules",
    "get_link",
    "get_route",
    "set_group",
    "set_link",
]

_REQUEST, _REPLACE, _EXCL, _CREATE, _DUMP = 0x1, 0x100, 0x200, 0x400, 0x300
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40
_RTNH_F_LINKDOWN = 0x10
MAIN_TABLE = 254
"""The routing table of what is in no VRF."""
_SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS
_FAMILY = {4: 2, 6: 10}

_Mark = int | str | bytes
_IFLA_IFNAME = 3
_INDEX_AT = 20  # where struct ifinfomsg and struct ifaddrmsg have the interface's index, behind the header

# Encoding costs more than what the kernel does with the request, and lab after lab asks for the same with other
# numbers. So what comes often is encoded once, and the numbers are filled in.
_encoded_once = lru_cache(maxsize=1024)


def _packed(value: _Mark) -> bytes:
    """An index, descriptor, MAC address or some bytes as they stand in a message."""
    if isinstance(value, bytes):
        return value
    return struct.pack("=I", value) if isinstance(value, int) else bytes.fromhex(value.replace(":", ""))


def _filled(template: tuple[bytes, tuple[int, ...]], *values: _Mark) -> bytes:
    data, places = template
    message = bytearray(data)
    for at, value in zip(places, values, strict=True):
        packed = _packed(value)
        message[at : at + len(packed)] = packed
    return bytes(message)


def _places(data: bytes, *marks: _Mark) -> tuple[bytes, tuple[int, ...]]:
    """An encoded message, and where the marks stand in it."""
    return data, tuple(data.index(_packed(mark)) for mark in marks)


def _named(name: str) -> bytes:
    """An interface's name as it stands in a message, with what is in front of it."""
    return struct.pack("=HH", 5 + len(name), _IFLA_IFNAME) + name.encode()


def _link_message() -> Any:
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    return ifinfmsg()


def _encode(message: Any, kind: int, flags: int) -> bytes:
    message["header"]["type"] = kind
    message["header"]["flags"] = _REQUEST | flags
    message.encode()
    return bytes(message.data)


def add_veth(
    name: str,
    *,
    index: int,
    mac: str,
    mtu: int,
    peer_name: str,
    peer_index: int,
    peer_mac: str,
    peer_fd: int,
    master: int = 0,
) -> bytes:
    """A veth pair (veth(4)): this end up, its peer made directly in the namespace behind `peer_fd`."""
    template = _veth(len(name), len(peer_name), mtu, bool(master))
    values = (_named(name), _named(peer_name), index, peer_index, peer_fd, mac, peer_mac)
    return _filled(template, *values, master) if master else _filled(template, *values)


@_encoded_once
def _veth(length: int, peer_length: int, mtu: int, with_master: bool) -> tuple[bytes, tuple[int, ...]]:
    name, peer_name = "n" * length, "p" * peer_length
    index, peer_index, peer_fd, master = (0x5EED0001, 0x5EED0002, 0x5EED0003, 0x5EED0004)
    mac, peer_mac = "5e:ed:5e:ed:00:05", "5e:ed:5e:ed:00:06"
    message = _link_message()
    message["index"] = index
    message["flags"] = message["change"] = _IFF_UP
    peer = [["IFLA_IFNAME", peer_name], ["IFLA_ADDRESS", peer_mac], ["IFLA_MTU", mtu], ["IFLA_NET_NS_FD", peer_fd]]
    pair = {"attrs": [["VETH_INFO_PEER", {"index": peer_index, "attrs": peer}]]}
    kind = {"attrs": [["IFLA_INFO_KIND", "veth"], ["IFLA_INFO_DATA", pair]]}
    message["attrs"] = [["IFLA_IFNAME", name], ["IFLA_ADDRESS", mac], ["IFLA_MTU", mtu], ["IFLA_LINKINFO", kind]]
    if with_master:
        message["attrs"].append(["IFLA_MASTER", master])
    marks = (_named(name), _named(peer_name), index, peer_index, peer_fd, mac, peer_mac)
    return _places(_encode(message, 16, _CREATE | _EXCL), *marks, *((master,) if with_master else ()))


def add_bridge(name: str, *, index: int, mac: str) -> bytes:
    """A Linux bridge (ip-link(8)), up, without spanning tree."""
    return _filled(_bridge(name), index, mac)


@_encoded_once
def _bridge(name: str) -> tuple[bytes, tuple[int, ...]]:
    index, mac = 0x5EED0001, "5e:ed:5e:ed:00:05"
    message = _link_message()
    message["index"] = index
    message["flags"] = message["change"] = _IFF_UP
    kind = {"attrs": [["IFLA_INFO_KIND", "bridge"]]}
    message["attrs"] = [["IFLA_IFNAME", name], ["IFLA_ADDRESS", mac], ["IFLA_LINKINFO", kind]]
    return _places(_encode(message, 16, _CREATE | _EXCL), index, mac)


def set_link(
    index: int,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    master: int | None = None,
    queue: int | None = None,
    segments: int | None = None,
) -> bytes:
    """Change an interface.

    Args:
        index: which one.
        up: the administrative state.
        mtu: in bytes.
        master: the bridge it is a port of; 0 for none.
        queue: frames that may wait to be sent (txqueuelen).
        segments: frames that the kernel may join into one until they are sent (gso_max_segs of ip-link(8)).
    """
    return _filled((_set_link(up, mtu, master, queue, segments), (_INDEX_AT,)), index)


@_encoded_once
def _set_link(up: bool | None, mtu: int | None, master: int | None, queue: int | None, segments: int | None) -> bytes:
    message = _link_message()
    if up is not None:
        message["flags"] = _IFF_UP if up else 0
        message["change"] = _IFF_UP
    message["attrs"] = []
    if mtu is not None:
        message["attrs"].append(["IFLA_MTU", mtu])
    if master is not None:
        message["attrs"].append(["IFLA_MASTER", master])
    if queue is not None:
        message["attrs"].append(["IFLA_TXQLEN", queue])
    if segments is not None:
        message["attrs"].append(["IFLA_GSO_MAX_SEGS", segments])
    return _encode(message, 16, 0)


def delete_link(index: int) -> bytes:
    """Delete an interface; a veth takes its peer with it."""
    message = _link_message()
    message["index"] = index
    return _encode(message, 17, 0)


def set_group(index: int, group: int) -> bytes:
    """Put an interface into a group (ip-link(8)), for `delete_group`."""
    message = _link_message()
    message["index"] = index
    message["attrs"] = [["IFLA_GROUP", group]]
    return _encode(message, 16, 0)


def delete_group(group: int) -> bytes:
    """Delete all interfaces of a group at once: the kernel waits once for all of them, and not once for each."""
    message = _link_message()
    message["attrs"] = [["IFLA_GROUP", group]]
    return _encode(message, 17, 0)


def get_link(index: int) -> bytes:
    """Ask for one interface; the kernel brings its carrier up to date first (linkwatch), which a dump does not."""
    return _filled((_get_link(), (_INDEX_AT,)), index)


@_encoded_once
def _get_link() -> bytes:
    message = _link_message()
    message["attrs"] = [["IFLA_EXT_MASK", _SKIP_STATISTICS]]
    return _encode(message, 18, 0)


def _address_message(ip: IPInterface) -> Any:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    message = ifaddrmsg()
    message["family"] = _FAMILY[ip.version]
    message["prefixlen"] = ip.network.prefixlen
    text = str(ip.ip)
    message["attrs"] = [["IFA_ADDRESS", text], ["IFA_LOCAL", text]]
    return message


def add_address(index: int, ip: IPInterface) -> bytes:
    """An address on an interface, IPv4 with its broadcast address.

    The flag IFA_F_NODAD is left out on purpose: with it nothing would tell when the address can be used, see
    `pending_ipv6`; it is the setting ``accept_dad`` that turns duplicate address detection off.
    """
    with_broadcast = ip.version == 4 and ip.network.prefixlen < 31
    packed = ip.ip.packed
    values: tuple[_Mark, ...] = (
        index,
        packed,
        packed,
        *([ip.network.broadcast_address.packed] if with_broadcast else []),
    )
    return _filled(_add_address(ip.version, ip.network.prefixlen, with_broadcast), *values)


@_encoded_once
def _add_address(version: int, length: int, with_broadcast: bool) -> tuple[bytes, tuple[int, ...]]:
    marks = [_placeholder(version, number) for number in (1, 2, 3)]
    message = _address_message(ip_interface((marks[0], length)))
    message["index"] = index = 0x5EED0001
    message["attrs"][1] = ["IFA_LOCAL", str(marks[1])]
    if with_broadcast:
        message["attrs"].append(["IFA_BROADCAST", str(marks[2])])
    used = marks[: 3 if with_broadcast else 2]
    return _places(_encode(message, 20, _CREATE | _REPLACE), index, *(mark.packed for mark in used))


def _placeholder(version: int, number: int) -> IPAddress:
    """An address that stands for another one in a template, and that no test uses."""
    return ip_address(f"94.237.94.{number}" if version == 4 else f"5eed:5eed:5eed::5eed:{number}")


def _route_message(destination: IPNetwork, gateway: IPAddress, index: int, table: int = MAIN_TABLE) -> Any:
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    message = rtmsg()
    message["family"] = _FAMILY[destination.version]
    message["dst_len"] = destination.prefixlen
    message["table"] = table if table < 256 else 0  # the attribute has it then
    message["proto"] = 4  # RTPROT_STATIC
    message["type"] = 1
    message["attrs"] = [["RTA_GATEWAY", str(gateway)], ["RTA_OIF", index]]
    if destination.prefixlen:
        message["attrs"].append(["RTA_DST", str(destination.network_address)])
    if table != MAIN_TABLE:
        message["attrs"].append(["RTA_TABLE", table])
    return message


def add_route(destination: IPNetwork, gateway: IPAddress, index: int, table: int = MAIN_TABLE) -> bytes:
    """A static route by way of a gateway, of the main table by default; replaces one to the same destination."""
    if table != MAIN_TABLE:
        return _encode(_route_message(destination, gateway, index, table), 24, _CREATE | _REPLACE)
    length = destination.prefixlen
    values: tuple[_Mark, ...] = (index, gateway.packed, *([destination.network_address.packed] if length else []))
    return _filled(_add_route(destination.version, length), *values)


@_encoded_once
def _add_route(version: int, length: int) -> tuple[bytes, tuple[int, ...]]:
    index, gateway, target = 0x5EED0001, _placeholder(version, 1), _placeholder(version, 2)
    message = _route_message(ip_network((target, length), strict=False), gateway, index)
    if length:
        message["attrs"][2] = ["RTA_DST", str(target)]
    marks: tuple[_Mark, ...] = (index, gateway.packed, *([target.packed] if length else []))
    return _places(_encode(message, 24, _CREATE | _REPLACE), *marks)


def delete_route(destination: IPNetwork, gateway: IPAddress, index: int) -> bytes:
    """Take a static route away."""
    return _encode(_route_message(destination, gateway, index), 25, 0)


@_encoded_once
def dump_links() -> bytes:
    """Ask for all interfaces, without their statistics."""
    message = _link_message()
    message["attrs"] = [["IFLA_EXT_MASK", _SKIP_STATISTICS]]
    return _encode(message, 18, _DUMP)


@_encoded_once
def dump_addresses(version: int = 0) -> bytes:
    """Ask for all addresses, or those of one IP version."""
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    message = ifaddrmsg()
    message["family"] = _FAMILY.get(version, 0)
    return _encode(message, 22, _DUMP)


@_encoded_once
def dump_routes(version: int) -> bytes:
    """Ask for all routes of one IP version."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    message = rtmsg()
    message["family"] = _FAMILY[version]
    return _encode(message, 26, _DUMP)


def dump_rules(version: int) -> bytes:
    """Ask for the rules of policy routing of one IP version (ip-rule(8))."""
    from pyroute2.netlink.rtnl.fibmsg import fibmsg

    message = fibmsg()
    message["family"] = _FAMILY[version]
    return _encode(message, 34, _DUMP)


def get_route(destination: IPAddress, *, source: IPAddress, arrives_by: int) -> bytes:
    """Ask what the kernel would do with a packet from elsewhere that arrives by an interface (ip-route(8), ``get``).

    It answers as it would treat the packet: EXDEV where reverse path filtering drops it.
    """
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    message = rtmsg()
    message["family"] = _FAMILY[destination.version]
    message["dst_len"] = message["src_len"] = destination.max_prefixlen
    message["attrs"] = [["RTA_DST", str(destination)], ["RTA_SRC", str(source)], ["RTA_IIF", arrives_by]]
    return _encode(message, 26, 0)


def delete_neighbour(index: int, ip: IPAddress) -> bytes:
    """Forget an entry of the ARP or neighbour discovery table."""
    from pyroute2.netlink.rtnl.ndmsg import ndmsg

    message = ndmsg()
    message["family"] = _FAMILY[ip.version]
    message["ifindex"] = index
    message["attrs"] = [["NDA_DST", str(ip)]]
    return _encode(message, 29, 0)


@_encoded_once
def dump_neighbours() -> bytes:
    """Ask for all neighbour entries."""
    from pyroute2.netlink.rtnl.ndmsg import ndmsg

    return _encode(ndmsg(), 30, _DUMP)
