"""Which VLANs a switch's ports let pass, in one form for Linux bridges and Open vSwitch (IEEE 802.1Q)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .netlink import NetlinkSocket
from .ovs_rpc import Operation, RpcClient, transact

__all__ = ["BridgePort", "PortVlans", "read_bridge_ports", "read_ovs_vlans"]

_AF_BRIDGE, _GETLINK, _REQUEST_DUMP, _WITH_VLANS = 7, 18, 0x301, 2
_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")
_PVID, _UNTAGGED, _RANGE_BEGIN = 1 << 1, 1 << 2, 1 << 3


@dataclass(frozen=True)
class PortVlans:
    """What a port does with VLAN tags; VLAN 0 stands for frames that belong to none."""

    untagged_to: int | None
    """The VLAN that an untagged frame comes into; None: such frames are dropped."""
    allowed: frozenset[int] | None
    """The VLANs that may pass; None for all."""
    leaves_untagged: frozenset[int]
    """The VLANs whose frames leave without a tag."""
    takes_tagged: bool = True
    words: str = ""
    """The setting as people call it: ``an access port of VLAN 10``, ``a trunk of the VLANs 10, 20`` …"""

    def enters(self, tag: int | None) -> int | None:
        """The VLAN that a frame with this tag (None for untagged) is in behind the port; None: it is dropped."""
        if tag is None:
            return self.untagged_to
        return tag if self.takes_tagged and self.passes(tag) else None

    def passes(self, vlan: int) -> bool:
        """Whether frames of a VLAN may leave here."""
        return self.allowed is None or vlan in self.allowed

    def leaves(self, vlan: int) -> int | None:
        """The tag with which a frame of a VLAN leaves; None for untagged."""
        return None if vlan == 0 or vlan in self.leaves_untagged else vlan


@dataclass(frozen=True)
class BridgePort:
    """A port of a Linux bridge (bridge(8))."""

    state: str
    """``forwarding``, ``blocking``, ``disabled``, ``listening`` or ``learning`` (IEEE 802.1D)."""
    isolated: bool
    """Whether it passes nothing to other ports that are isolated too."""
    asks_all: tuple[bool, bool]
    """Whether it sends on what is for everybody: broadcasts such as ARP, and multicasts (bridge(8), ``bcast_flood``,
    ``mcast_flood``)."""
    floods: bool
    """Whether it sends on what is for a MAC address that the bridge knows nothing of (bridge(8), ``flood``)."""
    vlans: PortVlans | None
    """Its VLANs; None where the bridge does not filter them, or the kernel cannot."""


def read_bridge_ports(netlink: NetlinkSocket, filtering: Mapping[str, bool]) -> dict[str, BridgePort]:
    """The ports of the Linux bridges of a namespace, by name.

    Args:
        netlink: a socket in the namespace.
        filtering: the bridges, and whether they filter by VLAN.
    """
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    request = ifinfmsg()
    request["family"] = _AF_BRIDGE
    request["attrs"] = [["IFLA_EXT_MASK", _WITH_VLANS]]
    request["header"]["type"], request["header"]["flags"] = _GETLINK, _REQUEST_DUMP
    request.encode()
    messages = []
    for reply in netlink.dump(bytes(request.data), "list the ports of the bridges"):
        message = ifinfmsg(reply)
        message.decode()
        messages.append(message)
    names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in messages}
    found = {}
    for message in messages:
        details = message.get_attr("IFLA_PROTINFO")
        if details is None:
            continue  # the bridge device itself
        filters = filtering.get(names.get(message.get_attr("IFLA_MASTER"), ""), False)
        found[names[message["index"]]] = BridgePort(
            _STATES[details.get_attr("IFLA_BRPORT_STATE") or 0],
            bool(details.get_attr("IFLA_BRPORT_ISOLATED")),
            tuple(details.get_attr(f"IFLA_BRPORT_{kind}_FLOOD") != 0 for kind in ("BCAST", "MCAST")),
            details.get_attr("IFLA_BRPORT_UNICAST_FLOOD") != 0,
            _bridge_vlans(message) if filters else None,
        )
    return found


def _bridge_vlans(message: Any) -> PortVlans:
    spec = message.get_attr("IFLA_AF_SPEC")
    entries = spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec is not None else []
    allowed: set[int] = set()
    untagged: set[int] = set()
    access, begin = None, 0
    for entry in entries:
        vid, flags = entry["vid"], entry["flags"]
        if flags & _RANGE_BEGIN:
            begin = vid
            continue
        span = range(begin or vid, vid + 1)
        begin = 0
        allowed.update(span)
        untagged.update(span if flags & _UNTAGGED else ())
        access = vid if flags & _PVID else access
    untagged_words = f"puts untagged frames into VLAN {access}" if access else "drops untagged frames"
    words = f"a member of {_vlans(allowed)} that {untagged_words}"
    return PortVlans(access, frozenset(allowed), frozenset(untagged), words=words)


def read_ovs_vlans(database: RpcClient) -> dict[str, PortVlans]:
    """The VLANs of the ports of an Open vSwitch, by name (ovs-vswitchd.conf.db(5), table Port)."""
    columns = ["name", "tag", "trunks", "vlan_mode"]
    read: Operation = {"op": "select", "table": "Port", "where": [], "columns": columns}
    rows = transact(database, read)[0]["rows"]
    return {row["name"]: _ovs_vlans(_numbers(row["tag"]), _numbers(row["trunks"]), row["vlan_mode"]) for row in rows}


def _numbers(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value[1])


def _ovs_vlans(tag: Sequence[int], trunks: Sequence[int], mode: Any) -> PortVlans:
    mode = mode if isinstance(mode, str) else ("access" if tag else "trunk")
    native = tag[0] if tag else 0
    if mode == "access":
        words = f"an access port of VLAN {native}"
        return PortVlans(native, frozenset([native]), frozenset([native]), takes_tagged=False, words=words)
    allowed = frozenset([*trunks, *([native] if mode.startswith("native") else [])]) if trunks else None
    words = f"a trunk of {'all VLANs' if allowed is None else _vlans(allowed)}"
    if not mode.startswith("native"):
        return PortVlans(0 if allowed is None or 0 in allowed else None, allowed, frozenset(), words=words)
    untagged = frozenset([native]) if mode == "native-untagged" else frozenset()
    return PortVlans(native, allowed, untagged, words=f"{words} with the native VLAN {native}")


def _vlans(numbers: Any) -> str:
    ordered = sorted(numbers)
    named = ", ".join(map(str, ordered)) or "none"
    return f"VLAN {named}" if len(ordered) == 1 else f"the VLANs {named}"
