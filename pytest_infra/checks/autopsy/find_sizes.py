"""Packets that are too large for a hop: the MTU of the ports on the way, and "do not fragment" (RFC 791, RFC 8201)."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.node import NodePort
from .finding import Case, Finding, HopFinder, spot
from .hop import Hop, far_place

__all__ = ["MTU"]

_VLAN_TAG_BYTES = 4  # the kernel lets a frame in that is larger than the MTU by so much

_FITS_EVERYWHERE = 576
"""What every IPv4 host takes (RFC 791): that smaller packets fit is not worth a word."""


def _mtu(hop: Hop) -> Finding | None:
    """Whether the packet, or the fragments that it is cut into, fits every port up to the next node."""
    case = hop.case
    if hop.port is None or not case.packet_bytes:
        return None
    near = _mtu_of(case, hop.port)
    if case.packet_bytes > near and _stays_whole(hop):
        which = "it must not be fragmented" if case.dont_fragment else "a router does not fragment it"
        return Finding(
            "mtu-too-small",
            hop.node.name,
            f"the packet has {case.packet_bytes} bytes, the MTU of {spot(hop.port)} is {near}, and {which}",
            f"raise the MTU (lab.link(…, mtu={case.packet_bytes})), or send less: size={_largest(hop, near)} fits",
            mark=f"MTU {near}",
            port=spot(hop.port),
        )
    sent = min(case.packet_bytes, near)
    for port in hop.wire.ports[1:] if hop.wire else ():
        mtu = _mtu_of(case, port)
        if mtu + _VLAN_TAG_BYTES < sent:
            return Finding(
                "mtu-mismatch",
                port.node.name,
                f"{spot(hop.port)} has MTU {near} and sends packets of {sent} bytes, {spot(port)} has MTU {mtu} "
                "and drops them without a word",
                f"give both ends of the wire the same MTU: ip link set {port.name} mtu {near}, at {port.node.name}",
                mark=f"MTU {mtu}",
                port=spot(port),
            )
    return None


def _mtu_of(case: Case, port: NodePort) -> int:
    interface = case.view(port.node).interface(port)
    return interface.mtu if interface is not None else port.mtu


def _stays_whole(hop: Hop) -> bool:
    """Whether the packet is not fragmented here.

    A sender cuts what is larger than its own MTU, unless it is forbidden, and sets "do not fragment" on what it has
    not cut (path MTU discovery); answers to an echo request may be cut. IPv6 routers never cut.
    """
    case, first = hop.case, not hop.passed
    if hop.back:
        return hop.address.version == 6 and not first
    if case.dont_fragment:
        return True
    if first or hop.address.version == 6:
        return not first
    source = hop.passed[0]
    largest = max((item.mtu for item in case.view(source).interfaces.values() if item.name != "lo"), default=0)
    return case.packet_bytes <= largest


def _largest(hop: Hop, mtu: int) -> int:
    return mtu - (28 if hop.address.version == 4 else 48)


def _places(hop: Hop) -> Sequence[str]:
    return (hop.node.name, *far_place(hop)) if hop.case.packet_bytes > _FITS_EVERYWHERE else ()


MTU = HopFinder("MTU", _mtu, _places)
"""Whether the packet fits."""
