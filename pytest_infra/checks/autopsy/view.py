"""`View`: the kernel state of one node or switch, read at most once for an autopsy."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ...core.errors import InfraError
from ...core.node import Address, Interface, IPAddress, IPNetwork, Neighbour, NodePort, Route
from ...net.bridge_messages import BridgeEntry, dump_fdb, fdb_entries
from ...net.policy import Policy, PolicyRule, longest_match, read_policy
from ...net.port_vlans import BridgePort, PortVlans, read_bridge_ports, read_ovs_vlans
from ...net.reading import read_local_routes
from .sockets import ListeningSocket, read_listening

__all__ = ["View"]


class View:
    """What a node's kernel says; each part is read when it is first asked for.

    Args:
        node: a node, or a switch, of which only the interfaces can be read.
    """

    def __init__(self, node: Any) -> None:
        self.node = node
        self._settings: dict[str, str | None] = {}
        self._traced: dict[tuple[str, str], str] = {}

    def trace(self, flow: str, tracked: str) -> str:
        """What Open vSwitch says that it would do with a packet (``ofproto/trace``)."""
        question = flow, tracked
        if question not in self._traced:
            self._traced[question] = self.node.trace(flow, tracked=tracked)
        return self._traced[question]

    @cached_property
    def interfaces(self) -> dict[str, Interface]:
        """The interfaces by name."""
        return dict(self.node.interfaces)

    @cached_property
    def addresses(self) -> list[Address]:
        """The IP addresses."""
        return list(self.node.addresses)

    @cached_property
    def routes(self) -> list[Route]:
        """The routes of the main table."""
        return list(self.node.routes)

    def local_route_to(self, address: IPAddress) -> IPNetwork | None:
        """The route of the kind local by which the kernel takes an address for its own that it does not have."""
        if self.owns(address):
            return None
        mine = (network for network in self.local_routes if network.version == address.version)
        return next((network for network in mine if address in network), None)

    @cached_property
    def local_routes(self) -> list[IPNetwork]:
        """What somebody told the kernel to take for its own, besides its addresses."""
        space = getattr(self.node, "namespace", None)
        if space is None:
            return []
        with space.netlink() as netlink:
            return read_local_routes(netlink)

    @cached_property
    def neighbours(self) -> list[Neighbour]:
        """The neighbour table."""
        return list(self.node.neighbours)

    @cached_property
    def listening(self) -> list[ListeningSocket]:
        """The TCP and UDP sockets that wait for others."""
        found: list[ListeningSocket] = self.node.call(read_listening)
        return found

    @cached_property
    def bridge_ports(self) -> dict[str, BridgePort]:
        """The ports of the Linux bridges in a switch's namespace, by name."""
        filtering = {item.name: item.vlan_filtering for item in self.interfaces.values() if item.kind == "bridge"}
        if not filtering:
            return {}
        with self.node.namespace.netlink() as netlink:
            return read_bridge_ports(netlink, filtering)

    @cached_property
    def forwarding_database(self) -> list[tuple[str, BridgeEntry]]:
        """What the Linux bridges in a switch's namespace know of MAC addresses, each with the name of its port."""
        if not self.bridge_ports:
            return []
        names = {item.index: item.name for item in self.interfaces.values()}
        with self.node.namespace.netlink() as netlink:
            found = netlink.dump(dump_fdb(), "read the MAC tables")
            return [(names.get(entry.index, ""), entry) for entry in fdb_entries(found)]

    @cached_property
    def port_vlans(self) -> dict[str, PortVlans]:
        """What a switch's ports do with VLAN tags, by name; only of those that filter."""
        if (instance := getattr(self.node, "instance", None)) is not None:
            return read_ovs_vlans(instance.database)
        return {name: port.vlans for name, port in self.bridge_ports.items() if port.vlans is not None}

    @cached_property
    def macs(self) -> list[str]:
        """The MAC addresses of all interfaces."""
        return [item.mac.lower() for item in self.interfaces.values()]

    def unresolved(self, interface: str) -> list[IPAddress]:
        """The neighbours at an interface that the kernel asks for, or has asked for, without an answer."""
        asked = ("INCOMPLETE", "FAILED")
        return [item.ip for item in self.neighbours if item.interface == interface and item.state in asked]

    def has_read(self, part: str) -> bool:
        """Whether a part has been read, and could be: ``listening``."""
        return part in self.__dict__

    def sysctl(self, name: str) -> str | None:
        """A kernel setting; None where this kernel does not have it."""
        if name not in self._settings:
            value = self.node.sysctl.get(name)
            self._settings[name] = None if value is None else str(value).strip()
        return self._settings[name]

    def interface(self, port: NodePort) -> Interface | None:
        """The interface of a port of this node; None when it is gone."""
        return self.interfaces.get(port.name)

    def owns(self, address: IPAddress) -> bool:
        """Whether the node has an address now, on whichever interface."""
        return any(int(item.ip.ip) == int(address) for item in self.addresses if item.ip.version == address.version)

    def answers_for(self, address: IPAddress, interface: str) -> bool:
        """Whether the node answers ARP or neighbour solicitations for an address that come in by an interface.

        A link-local address is one of its interface, IPv6 answers for no other interface's, and ARP does not where
        ``arp_ignore`` says so (ip-sysctl).
        """
        mine = [item for item in self.addresses if int(item.ip.ip) == int(address)]
        mine = [item for item in mine if item.ip.version == address.version]
        if address.version == 6 or self._arp_ignore(interface):
            mine = [item for item in mine if item.interface == interface]
        return bool(mine)

    def _arp_ignore(self, interface: str) -> bool:
        names = ("net/ipv4/conf/all/arp_ignore", f"net/ipv4/conf/{interface}/arp_ignore")
        return any(self.sysctl(name) not in (None, "0") for name in names)

    @cached_property
    def policy(self) -> Policy | None:
        """The rules of policy routing and their tables; None where there are only the kernel's own, or no telling."""
        try:
            found: Policy | None = self.node.call(read_policy)
        except (InfraError, AttributeError):  # a guest without Python, or a switch
            return None
        return found

    def route_to(self, address: IPAddress, source: IPAddress | None = None, arrives_by: str = "") -> Route | None:
        """The route that a packet takes which comes from `source` by an interface; "" for one that begins here."""
        return self.chosen(address, source, arrives_by)[0]

    def chosen(
        self, address: IPAddress, source: IPAddress | None, arrives_by: str
    ) -> tuple[Route | None, PolicyRule | None]:
        """That route, and the rule of policy routing that led there where somebody added it."""
        if self.policy is None or not (added := self.policy.rules_for(address.version)):
            return longest_match(self.routes, address), None
        route, rule = self.policy.choose(address, source, arrives_by)
        return route, rule if rule in added else None
