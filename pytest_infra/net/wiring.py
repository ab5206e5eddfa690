"""Turning the arguments of ``lab.link`` into two ports and a link; everything from outside is validated here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import BadInput
from ..core.naming import MacPool, interface_name, ip_interface, mac_address, port_name
from ..core.node import IPInterface
from .link import Link
from .plan import AddressPlan
from .port import SMALLEST_MTU_IPV6, Port
from .switch import Switch
from .vlan import VlanMembership

__all__ = ["LinkOptions", "switch_port_name", "wire"]

_SMALLEST_MTU, _LARGEST_MTU = 68, 65535


@dataclass(frozen=True)
class LinkOptions:
    """What ``lab.link`` takes besides the two ends."""

    ip: str | Sequence[str] | None
    peer_ip: str | Sequence[str] | None
    mtu: int
    mac: str | None
    peer_mac: str | None
    name: str | None
    peer_name: str | None
    vlans: VlanMembership | None = None
    """Which VLANs the link's switch ports carry."""


def wire(a: Any, b: Any, options: LinkOptions, *, macs: MacPool, plan: AddressPlan, declared_at: str) -> Link:
    """Make the ports and the link, and record them with their nodes; nothing is recorded when an argument is wrong.

    Raises:
        BadInput: an argument cannot be used, or something is taken.
    """
    if a is b:
        raise BadInput(f"a link needs two different ends; got {a.name} twice")
    flipped = isinstance(a, Switch) and not isinstance(b, Switch)
    mine, other = (b, a) if flipped else (a, b)
    mtu = _mtu(options.mtu)
    vlans = options.vlans
    if vlans is not None and not isinstance(mine, Switch) and not isinstance(other, Switch):
        raise BadInput(f"a VLAN is a switch port's, and the link {mine.name} -- {other.name} has none; make a switch")
    first = _port(mine, options.name, options.mac, options.ip, mtu, macs, declared_at, vlans)
    second = _port(other, options.peer_name, options.peer_mac, options.peer_ip, mtu, macs, declared_at, vlans)
    ports = [first, second]
    both = [ip for port in ports for ip in port.planned or ()]
    if len({ip.ip for ip in both}) < len(both):
        raise BadInput(f"a link's addresses must differ; got {', '.join(map(str, both))}")
    plan.claim(*ports)
    for port in ports:
        port.node.ports.append(port)
    switch_ports = tuple(port for port in ports if isinstance(port.node, Switch))
    if flipped:
        ports.reverse()
    return Link(ports[0], ports[1], switch_ports)


def _port(
    node: Any,
    name: str | None,
    mac: str | None,
    ip: str | Sequence[str] | None,
    mtu: int,
    macs: MacPool,
    declared_at: str,
    vlans: VlanMembership | None,
) -> Port:
    addresses = _addresses(node, ip, mtu)
    return Port(
        node,
        _interface_name(node, name),
        mac=_mac(macs, mac),
        mtu=mtu,
        addresses=addresses,
        declared_at=declared_at,
        vlans=vlans if isinstance(node, Switch) else None,
    )


def _interface_name(node: Any, name: str | None) -> str:
    is_switch = isinstance(node, Switch)
    if name is not None:
        interface_name(name)
        together = list(node.siblings()) if is_switch else [node]
        for port in (port for one in together for port in one.ports):
            if port.name == name:
                raise BadInput(f"interface {name!r} of {node.name} is taken by {port} (declared at {port.declared_at})")
        if name == "lo" or (is_switch and name in [one.name for one in together]):
            raise BadInput(f"interface {name!r} of {node.name} is taken: it is there from the start")
        return name
    if is_switch:
        return switch_port_name(node)
    taken = {port.name for port in node.ports}
    number = len(taken)
    while (chosen := f"eth{number}") in taken:
        number += 1
    return chosen


def switch_port_name(switch: Switch) -> str:
    """The name of a switch's next port."""
    taken = {port.name for port in switch.ports}
    number = len(taken) + 1
    while (chosen := port_name(switch.name, number)) in taken:
        number += 1
    return chosen


def _addresses(node: Any, ip: str | Sequence[str] | None, mtu: int) -> tuple[IPInterface, ...] | None:
    if isinstance(node, Switch):
        if ip:
            raise BadInput(f"{node.name} is a switch, its ports take no IP address; got {ip!r}")
        return ()
    if ip is None:
        return None
    texts = [ip] if isinstance(ip, str) or not isinstance(ip, Sequence) else list(ip)
    addresses = tuple(ip_interface(text) for text in texts)
    if mtu < SMALLEST_MTU_IPV6 and any(address.version == 6 for address in addresses):
        raise BadInput(f"IPv6 needs an MTU of at least {SMALLEST_MTU_IPV6} bytes (RFC 8200); got {mtu}")
    return addresses


def _mac(macs: MacPool, mac: str | None) -> str:
    if mac is None:
        return macs.take()
    chosen = mac_address(mac)
    macs.reserve(chosen)
    return chosen


def _mtu(mtu: int) -> int:
    if isinstance(mtu, bool) or not isinstance(mtu, int) or not _SMALLEST_MTU <= mtu <= _LARGEST_MTU:
        raise BadInput(f"mtu {mtu!r} cannot be used; allowed are {_SMALLEST_MTU} to {_LARGEST_MTU} bytes")
    return mtu
