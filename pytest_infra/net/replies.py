"""rtnetlink replies as data (rtnetlink(7)); the decoding itself is pyroute2's."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from ipaddress import ip_address, ip_interface, ip_network
from socket import AF_INET6
from typing import Any

from ..core.node import Address, Interface, IPAddress, IPNetwork, Neighbour, Route
from ..core.suggest import Named

__all__ = [
    "decode_rules",
    "parse_addresses",
    "parse_interfaces",
    "parse_local_routes",
    "parse_names",
    "parse_neighbours",
    "parse_routes",
    "parse_tables",
    "parse_vrf_devices",
    "parse_vrfs",
    "pending_ipv6",
    "unresolved",
]

_IFF_UP, _IFF_NOARP, _IFF_LOWER_UP = 0x1, 0x80, 0x10000
_IFA_F_DADFAILED, _IFA_F_TENTATIVE, _IFA_F_PERMANENT = 0x08, 0x40, 0x80
_RTNH_F_LINKDOWN = 0x10
_MAIN_TABLE = 254
_RTN_LOCAL, _RTPROT_KERNEL = 2, 2
_IFINFO_INDEX_AT, _IFINFO_END, _IFLA_IFNAME = 20, 32, 3  # struct ifinfomsg, behind the header
_NUD_INCOMPLETE, _NUD_FAILED = 0x01, 0x20

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
    found: dict[str, Interface] = Named("the node")
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
            vlan_filtering=kind == "bridge" and _filters_vlans(info),
            arp=not message["flags"] & _IFF_NOARP,
        )
    return found


def parse_vrfs(replies: Iterable[bytes]) -> dict[str, int]:
    """Replies to `dump_links` as the tables of VRFs, by the interfaces that are in one (vrf.rst of the kernel)."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    messages = list(_decode(ifinfmsg, replies))
    tables = _vrf_tables(messages)
    masters = {message.get_attr("IFLA_IFNAME"): message.get_attr("IFLA_MASTER") for message in messages}
    return {name: tables[master] for name, master in masters.items() if master in tables}


def parse_vrf_devices(replies: Iterable[bytes]) -> dict[str, int]:
    """Replies to `dump_links` as the tables of the VRFs, by the names of their devices."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    messages = list(_decode(ifinfmsg, replies))
    names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in messages}
    return {names[index]: table for index, table in _vrf_tables(messages).items()}


def _vrf_tables(messages: Iterable[Any]) -> dict[int, int]:
    """The tables of VRFs by the indices of their devices."""
    found = {}
    for message in messages:
        info = message.get_attr("IFLA_LINKINFO")
        if info and info.get_attr("IFLA_INFO_KIND") == "vrf":
            found[message["index"]] = info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_VRF_TABLE")
    return found


def parse_names(replies: Iterable[bytes]) -> dict[int, str]:
    """Replies to `dump_links` as the interfaces' names by index; decoding all the rest would cost ten times as much."""
    found = {}
    for reply in replies:
        (index,) = struct.unpack_from("=i", reply, _IFINFO_INDEX_AT)
        offset = _IFINFO_END
        while offset + 4 <= len(reply):
            length, kind = struct.unpack_from("=HH", reply, offset)
            if kind == _IFLA_IFNAME:
                found[index] = reply[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
                break
            offset += max((length + 3) & ~3, 4)
    return found


def _filters_vlans(info: Any) -> bool:
    data = info.get_attr("IFLA_INFO_DATA")
    return bool(data is not None and data.get_attr("IFLA_BR_VLAN_FILTERING"))


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
                dynamic=not flags & _IFA_F_PERMANENT,
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
        if tentative and family == AF_INET6 and index in indices:
            return True
    return False


def decode_rules(replies: Iterable[bytes]) -> Iterable[Any]:
    """Replies to `dump_rules`, decoded."""
    from pyroute2.netlink.rtnl.fibmsg import fibmsg

    return _decode(fibmsg, replies)


def parse_routes(replies: Iterable[bytes], names: dict[int, str], table: int = _MAIN_TABLE) -> list[Route]:
    """Replies to `dump_routes`: the routes of one table, without the kernel's multicast ones."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    found: list[Route] = []
    for message in _decode(rtmsg, replies):
        if (message.get_attr("RTA_TABLE") or message["table"]) != table or message["type"] in (2, 3, 4, 5):
            continue
        found.extend(_routes_of(message, names))
    return found


def parse_local_routes(replies: Iterable[bytes]) -> list[IPNetwork]:
    """Replies to `dump_routes`: what somebody told the kernel to take for its own (``ip route add local``)."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    return [
        ip_network(f"{message.get_attr('RTA_DST')}/{message['dst_len']}")
        for message in _decode(rtmsg, replies)
        if message["type"] == _RTN_LOCAL and message["proto"] != _RTPROT_KERNEL and message.get_attr("RTA_DST")
    ]


def parse_tables(routes: Iterable[bytes], rules: Iterable[bytes]) -> set[int]:
    """Replies to `dump_routes` and to `dump_rules` as the numbers of all tables that have routes or that rules name."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    found = {message.get_attr("RTA_TABLE") or message["table"] for message in _decode(rtmsg, routes)}
    return found | {message.get_attr("FRA_TABLE") or message["table"] for message in decode_rules(rules)}


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


def unresolved(replies: Iterable[bytes], index: int) -> list[IPAddress]:
    """The neighbours on one interface that did not answer, or have not yet."""
    from pyroute2.netlink.rtnl.ndmsg import ndmsg

    waiting = []
    for reply in replies:
        _, ifindex, state = struct.unpack_from("=B3xiH", reply, 16)  # struct ndmsg
        if ifindex == index and state & (_NUD_INCOMPLETE | _NUD_FAILED):
            waiting.append(reply)
    return [ip_address(message.get_attr("NDA_DST")) for message in _decode(ndmsg, waiting)]


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
