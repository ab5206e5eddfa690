"""Addresses that the lab gave and that are gone, or that cannot be used yet."""

from __future__ import annotations

from ...core.node import IPInterface, NodePort
from ..graph import same_address
from .finding import Case, EndFinder, Finding, HopFinder, planned, spot
from .hop import Hop, far_place

__all__ = ["ADDRESS", "DESTINATION_ADDRESS", "FAR_ADDRESS"]

_LEAST_OF_IPV6 = 1280  # bytes


def _address(hop: Hop) -> Finding | None:
    """Whether the port that the packet leaves by has lost an address, or never had one."""
    if hop.port is None:
        return None
    version = hop.address.version
    given = [ip for ip in hop.port.addresses if ip.version == version]
    for ip in given:
        if finding := _lost(hop.case, hop.port, ip):
            return finding
    if given or any(item.ip.version == version for item in hop.view.addresses if item.interface == hop.port.name):
        return None
    return Finding(
        "no-address",
        hop.node.name,
        f"{spot(hop.port)} has no IPv{version} address, and the lab gave it none{planned(hop.port)}",
        f"give the link an IPv{version} address with ip= or peer_ip=",
        mark="NO ADDRESS",
        port=spot(hop.port),
    )


def _far_address(hop: Hop) -> Finding | None:
    """Whether the next node has lost the address that the frame is for."""
    for port in hop.far.node.ports if hop.far is not None else ():
        for ip in port.addresses:
            if same_address(ip.ip, hop.next_hop) and (finding := _lost(hop.case, port, ip)):
                return finding
    return None


def _destination_address(case: Case) -> Finding | None:
    if case.destination is None or case.view(case.destination).owns(case.address):
        return None
    there = ", ".join(str(item.ip) for item in case.view(case.destination).addresses) or "none"
    return Finding(
        "no-address",
        case.name,
        f"{case.name} does not have the address {case.address}; its addresses are {there}",
        f"give it the address, or check {case.name} at one that it has",
        mark="NO ADDRESS",
    )


def _lost(case: Case, port: NodePort, given: IPInterface) -> Finding | None:
    """Whether an address that the lab gave is gone, or unusable."""
    view, name = case.view(port.node), port.node.name
    now = next((item for item in view.addresses if same_address(item.ip.ip, given.ip)), None)
    if now is None and given.version == 6 and (finding := _switched_off(case, port, given)):
        return finding
    if now is None and given.version == 6 and (interface := view.interface(port)) and interface.mtu < _LEAST_OF_IPV6:
        least = f"the MTU of {spot(port)} is {interface.mtu}, below {_LEAST_OF_IPV6}, the least of IPv6 (RFC 8200, 5)"
        remedy = f"ip link set dev {port.name} mtu {port.mtu}, in {name}, and {given} again: ip address add"
        cause = f"{least}: the kernel takes all its IPv6 addresses away"
        return Finding("mtu-below-ipv6", name, cause, remedy, mark="MTU", port=spot(port))
    if now is None:
        rest = ", ".join(str(item.ip) for item in view.addresses if item.interface == port.name) or "none"
        return Finding(
            "address-gone",
            name,
            f"{spot(port)} has lost the address {given} that the lab gave it{planned(port)}; left are {rest}",
            f"see what removed it, or add it again: ip address add {given} dev {port.name}, in {name}",
            mark="ADDRESS GONE",
            port=spot(port),
        )
    if now.duplicate or now.tentative:
        why = "is used by somebody else too" if now.duplicate else "is still being checked for duplicates"
        return Finding(
            "address-unusable",
            name,
            f"the address {now.ip} of {spot(port)} cannot be used: it {why} (RFC 4862)",
            "give every node an address of its own" if now.duplicate else "wait for it, or turn accept_dad off",
            mark="ADDRESS UNUSABLE",
            port=spot(port),
        )
    return None


def _switched_off(case: Case, port: NodePort, given: IPInterface) -> Finding | None:
    """Whether IPv6 is switched off at an interface, which loses its addresses by that (ip-sysctl)."""
    setting, name = f"net/ipv6/conf/{port.name}/disable_ipv6", port.node.name
    if case.view(port.node).sysctl(setting) != "1":
        return None
    return Finding(
        "ipv6-off",
        name,
        f"IPv6 is switched off at {spot(port)}: {setting.replace('/', '.')} = 1; it had {given}{planned(port)}",
        f'{name}.sysctl["{setting}"] = "0", and add the address again: ip address add {given} dev {port.name}',
        mark="IPV6 OFF",
        port=spot(port),
    )


ADDRESS = HopFinder("addresses", _address)
"""The addresses of the port that the packet leaves by."""
FAR_ADDRESS = HopFinder("addresses", _far_address, far_place)
"""The address that the frame is for, at the node that was planned to have it."""
DESTINATION_ADDRESS = EndFinder("addresses", _destination_address, applies=lambda case: case.destination is not None)
"""The address that the packet is for."""
