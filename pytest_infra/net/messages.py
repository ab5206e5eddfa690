"""rtnetlink requests as bytes, and replies as data (rtnetlink(7)); the encoding itself is pyroute2's."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from ..core.node import Address, Interface, IPAddress, IPInterface, IPNetwork, Neighbour, Route

__all__ = [
    "add_address",
    "add_bridge",
    "add_route",
    "add_veth",
    "delete_address",
    "delete_group",
    "delete_link",
    "delete_route",
    "dump_addresses",
    "dump_links",
    "dump_neighbours",
    "dump_routes",
    "get_link",
    "parse_addresses",
    "parse_interfaces",
    "parse_neighbours",
    "parse_routes",
    "pending_ipv6",
    "set_group",
    "set_link",
]

_REQUEST, _REPLACE, _EXCL, _CREATE, _DUMP = 0x1, 0x100, 0x200, 0x400, 0x300
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40
_RTNH_F_LINKDOWN = 0x10
_MAIN_TABLE = 254
_SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS
_FAMILY = {4: 2, 6: 10}

_OPERSTATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host"}
_PROTOCOLS = {
    0: "unspec",
    1: "redirect",
    2: "kernel",
    3: "boot",
    4: "static",
    9: "ra",
    16: "dhcp",
    186: "bgp",
    188: "ospf",
}
_ROUTE_KINDS = {1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole",
                7: "unreachable", 8: "prohibit", 9: "throw"}  # fmt: skip
_NEIGHBOUR_STATES = {0x01: "INCOMPLETE", 0x02: "REACHABLE", 0x04: "STALE", 0x08: "DELAY", 0x10: "PROBE",
                     0x20: "FAILED", 0x40: "NOARP", 0x80: "PERMANENT"}  # fmt: skip


_encoded_once = lru_cache(maxsize=4096)
"""Encoding costs more than what the kernel does with it, and lab after lab asks for the same."""


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
    message = _link_message()
    message["index"] = index
    message["flags"] = message["change"] = _IFF_UP
    peer = [["IFLA_IFNAME", peer_name], ["IFLA_ADDRESS", peer_mac], ["IFLA_MTU", mtu], ["IFLA_NET_NS_FD", peer_fd]]
    pair = {"attrs": [["VETH_INFO_PEER", {"index": peer_index, "attrs": peer}]]}
    kind = {"attrs": [["IFLA_INFO_KIND", "veth"], ["IFLA_INFO_DATA", pair]]}
    message["attrs"] = [["IFLA_IFNAME", name], ["IFLA_ADDRESS", mac], ["IFLA_MTU", mtu], ["IFLA_LINKINFO", kind]]
    if master:
        message["attrs"].append(["IFLA_MASTER", master])
    return _encode(message, 16, _CREATE | _EXCL)


def add_bridge(name: str, *, index: int, mac: str) -> bytes:
    """A Linux bridge (ip-link(8)), up, without spanning tree."""
    message = _link_message()
    message["index"] = index
    message["flags"] = message["change"] = _IFF_UP
    kind = {"attrs": [["IFLA_INFO_KIND", "bridge"]]}
    message["attrs"] = [["IFLA_IFNAME", name], ["IFLA_ADDRESS", mac], ["IFLA_LINKINFO", kind]]
    return _encode(message, 16, _CREATE | _EXCL)


@_encoded_once
def set_link(index: int, *, up: bool | None = None, mtu: int | None = None, master: int | None = None) -> bytes:
    """Change an interface: administrative state, MTU in bytes, or the bridge it is a port of (0 for none)."""
    message = _link_message()
    message["index"] = index
    if up is not None:
        message["flags"] = _IFF_UP if up else 0
        message["change"] = _IFF_UP
    message["attrs"] = []
    if mtu is not None:
        message["attrs"].append(["IFLA_MTU", mtu])
    if master is not None:
        message["attrs"].append(["IFLA_MASTER", master])
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


@_encoded_once
def get_link(index: int) -> bytes:
    """Ask for one interface; the kernel brings its carrier up to date first (linkwatch), which a dump does not."""
    message = _link_message()
    message["index"] = index
    message["attrs"] = [["IFLA_EXT_MASK", _SKIP_STATISTICS]]
    return _encode(message, 18, 0)


def _address_message(index: int, ip: IPInterface) -> Any:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    message = ifaddrmsg()
    message["family"] = _FAMILY[ip.version]
    message["prefixlen"] = ip.network.prefixlen
    message["index"] = index
    text = str(ip.ip)
    message["attrs"] = [["IFA_ADDRESS", text], ["IFA_LOCAL", text]]
    return message


@_encoded_once
def add_address(index: int, ip: IPInterface) -> bytes:
    """An address on an interface, IPv4 with its broadcast address.

    The flag IFA_F_NODAD is left out on purpose: with it nothing would tell when the address can be used, see
    `pending_ipv6`; it is the setting ``accept_dad`` that turns duplicate address detection off.
    """
    message = _address_message(index, ip)
    if ip.version == 4 and ip.network.prefixlen < 31:
        message["attrs"].append(["IFA_BROADCAST", str(ip.network.broadcast_address)])
    return _encode(message, 20, _CREATE | _REPLACE)


def delete_address(index: int, ip: IPInterface) -> bytes:
    """Take an address from an interface."""
    return _encode(_address_message(index, ip), 21, 0)


def _route_message(destination: IPNetwork, gateway: IPAddress, index: int) -> Any:
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    message = rtmsg()
    message["family"] = _FAMILY[destination.version]
    message["dst_len"] = destination.prefixlen
    message["table"] = _MAIN_TABLE
    message["proto"] = 4  # RTPROT_STATIC
    message["type"] = 1
    message["attrs"] = [["RTA_GATEWAY", str(gateway)], ["RTA_OIF", index]]
    if destination.prefixlen:
        message["attrs"].append(["RTA_DST", str(destination.network_address)])
    return message


def add_route(destination: IPNetwork, gateway: IPAddress, index: int) -> bytes:
    """A static route of the main table by way of a gateway; replaces one to the same destination."""
    return _encode(_route_message(destination, gateway, index), 24, _CREATE | _REPLACE)


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


@_encoded_once
def dump_neighbours() -> bytes:
    """Ask for all neighbour entries."""
    from pyroute2.netlink.rtnl.ndmsg import ndmsg

    return _encode(ndmsg(), 30, _DUMP)


def _decode(kind: Any, replies: Iterable[bytes]) -> Iterable[Any]:
    for reply in replies:
        message = kind(reply)
        message.decode()
        yield message


def parse_interfaces(replies: Iterable[bytes]) -> dict[str, Interface]:
    """Replies to `get_link` and `dump_links` as interfaces, by name."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    messages = list(_decode(ifinfmsg, replies))
    names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in messages}
    found = {}
    for message in messages:
        info = message.get_attr("IFLA_LINKINFO")
        kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
        netnsid = message.get_attr("IFLA_LINK_NETNSID")
        name = names[message["index"]]
        found[name] = Interface(
            name=name,
            index=message["index"],
            mac=(message.get_attr("IFLA_ADDRESS") or "").lower(),
            mtu=message.get_attr("IFLA_MTU") or 0,
            up=bool(message["flags"] & _IFF_UP),
            carrier=bool(message["flags"] & _IFF_LOWER_UP),
            operstate=_operstate(message, kind),
            kind=kind,
            master=names.get(message.get_attr("IFLA_MASTER"), "") or "",
            namespace_id=-1 if netnsid is None else netnsid,
            qdisc=message.get_attr("IFLA_QDISC") or "",
        )
    return found


def _operstate(message: Any, kind: str) -> str:
    """The state as RFC 2863 has it: an interface that is up over a peer that is not is LOWERLAYERDOWN.

    So says the kernel of a veth, except that those since 6.2 say DOWN when the peer is in another namespace.
    """
    raw = message.get_attr("IFLA_OPERSTATE")
    state: str = raw if isinstance(raw, str) else _OPERSTATES[raw or 0]
    if state == "DOWN" and kind == "veth" and message["flags"] & _IFF_UP:
        return "LOWERLAYERDOWN"
    return state


def parse_addresses(replies: Iterable[bytes], names: dict[int, str]) -> list[Address]:
    """Replies to `dump_addresses`; `names` maps interface indices to names."""
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    found = []
    for message in _decode(ifaddrmsg, replies):
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        found.append(
            Address(
                interface=names.get(message["index"], str(message["index"])),
                ip=ip_interface(f"{text}/{message['prefixlen']}"),
                scope=_SCOPES.get(message["scope"], str(message["scope"])),
                tentative=bool(flags & _IFA_F_TENTATIVE),
                duplicate=bool(flags & _IFA_F_DADFAILED),
            )
        )
    return found


def pending_ipv6(replies: Iterable[bytes], indices: Collection[int]) -> bool:
    """Whether a reply to `dump_addresses` has an IPv6 address of these interfaces that is not usable yet.

    A new address is tentative until the kernel, in the background, has joined the multicast group by which others
    resolve it (RFC 4291 section 2.7.1); a neighbour solicitation before that is lost, and comes again after a second.
    """
    for reply in replies:
        family, _, flags, _, index = struct.unpack_from("=BBBBI", reply, 16)  # struct ifaddrmsg
        tentative = flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED) == _IFA_F_TENTATIVE
        if tentative and family == _FAMILY[6] and index in indices:
            return True
    return False


def parse_routes(replies: Iterable[bytes], names: dict[int, str]) -> list[Route]:
    """Replies to `dump_routes`: the routes of the main table, without the kernel's multicast ones."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    found: list[Route] = []
    for message in _decode(rtmsg, replies):
        table = message.get_attr("RTA_TABLE") or message["table"]
        if table != _MAIN_TABLE or message["type"] in (2, 3, 4, 5):
            continue
        found.extend(_routes_of(message, names))
    return found


def _routes_of(message: Any, names: dict[int, str]) -> Iterable[Route]:
    destination = message.get_attr("RTA_DST") or ("0.0.0.0" if message["family"] == 2 else "::")  # noqa: S104
    hops = message.get_attr("RTA_MULTIPATH") or [message]
    for hop in hops:
        gateway, source = hop.get_attr("RTA_GATEWAY"), message.get_attr("RTA_PREFSRC")
        index = hop.get_attr("RTA_OIF") if hop is message else hop["oif"]
        flags = hop["flags"]
        yield Route(
            destination=ip_network(f"{destination}/{message['dst_len']}"),
            interface=names.get(index, "" if index is None else str(index)),
            gateway=ip_address(gateway) if gateway else None,
            source=ip_address(source) if source else None,
            metric=message.get_attr("RTA_PRIORITY") or 0,
            kind=_ROUTE_KINDS.get(message["type"], str(message["type"])),
            protocol=_PROTOCOLS.get(message["proto"], str(message["proto"])),
            linkdown=bool(flags & _RTNH_F_LINKDOWN),
        )


def parse_neighbours(replies: Iterable[bytes], names: dict[int, str]) -> list[Neighbour]:
    """Replies to `dump_neighbours`, without the entries that need no resolving (multicast, loopback)."""
    from pyroute2.netlink.rtnl.ndmsg import ndmsg

    found = []
    for message in _decode(ndmsg, replies):
        ip = message.get_attr("NDA_DST")
        if message["family"] not in (2, 10) or ip is None or message["state"] == 0x40:
            continue
        found.append(
            Neighbour(
                ip=ip_address(ip),
                interface=names.get(message["ifindex"], str(message["ifindex"])),
                mac=(message.get_attr("NDA_LLADDR") or "").lower(),
                state=_NEIGHBOUR_STATES.get(message["state"], str(message["state"])),
            )
        )
    return found
