"""The forwarding database of Linux bridges: which MAC address is behind which port (bridge(8), ``bridge fdb``)."""

from __future__ import annotations

from dataclasses import dataclass

from .netlink import NetlinkSocket

__all__ = ["FdbEntry", "read_fdb"]

_AF_BRIDGE, _GETNEIGH, _REQUEST_DUMP = 7, 30, 0x301
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80


@dataclass(frozen=True)
class FdbEntry:
    """What a bridge knows of a MAC address."""

    mac: str
    port: str
    """The interface by which frames for it leave."""
    kind: str
    """``learned`` from a frame, ``static``: somebody has set it, or ``local``: the bridge takes such frames itself."""


def read_fdb(netlink: NetlinkSocket, names: dict[int, str]) -> list[FdbEntry]:
    """What the bridges of a namespace know of MAC addresses.

    Args:
        netlink: a socket in the namespace.
        names: the interfaces by index.
    """
    from pyroute2.netlink.rtnl.ndmsg import ndmsg

    request = ndmsg()
    request["family"] = _AF_BRIDGE
    request["header"]["type"], request["header"]["flags"] = _GETNEIGH, _REQUEST_DUMP
    request.encode()
    found = []
    for reply in netlink.dump(bytes(request.data), "read the forwarding database of the bridges"):
        message = ndmsg(reply)
        message.decode()
        state, mac = message["state"], message.get_attr("NDA_LLADDR")
        if message.get_attr("NDA_MASTER") is None or not mac:
            continue  # the list of an interface, not that of its bridge
        kind = "local" if state & _NUD_PERMANENT else "static" if state & _NUD_NOARP else "learned"
        found.append(FdbEntry(mac.lower(), names.get(message["ifindex"], ""), kind))
    return found
