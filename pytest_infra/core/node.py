"""The `Node` protocol, and what a node's network looks like: the one place where all domains meet.

Hosts, routers, containers, virtual machines and DPDK processes are nodes. A check takes nodes and never asks
which kind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any, Protocol, TypeVar, runtime_checkable

from .process import Completed, Popen, Process

__all__ = [
    "Address",
    "Confined",
    "ControlGroup",
    "IPAddress",
    "IPInterface",
    "IPNetwork",
    "Interface",
    "Neighbour",
    "Node",
    "NodePort",
    "Route",
]

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network
T = TypeVar("T")


@dataclass(frozen=True)
class Interface:
    """A network interface as the kernel has it now (rtnetlink(7), RFC 2863)."""

    name: str
    index: int
    mac: str
    mtu: int
    up: bool
    """The administrative state (IFF_UP)."""
    carrier: bool
    """Whether there is a signal on the wire (IFF_LOWER_UP)."""
    operstate: str
    """The operational state of RFC 2863: ``UP``, ``DOWN``, ``LOWERLAYERDOWN``, ``UNKNOWN`` …"""
    kind: str = ""
    """``veth``, ``bridge``, … or empty for a plain device."""
    master: str = ""
    """The bridge (or other interface) it is a port of."""
    namespace_id: int = -1
    """The number that the kernel gives the peer's namespace; -1 when the peer is in the same one."""
    qdisc: str = ""
    """The queueing discipline of what it sends: ``noqueue``, ``netem`` … (tc(8)); empty when not known."""
    vlan_filtering: bool = False
    """Whether it is a bridge that filters frames by VLAN (IEEE 802.1Q)."""
    arp: bool = True
    """Whether it asks for neighbours and answers for itself (no IFF_NOARP)."""


@dataclass(frozen=True)
class Address:
    """An IP address on an interface, as the kernel has it now."""

    interface: str
    ip: IPInterface
    scope: str
    """``global``, ``link`` or ``host`` (ip-address(8))."""
    tentative: bool = False
    """Not usable yet: duplicate address detection is under way (RFC 4862)."""
    duplicate: bool = False
    """Duplicate address detection failed: somebody else has it."""
    dynamic: bool = False
    """It ends if nobody renews it: given by a router's advertisement, or by DHCP (no IFA_F_PERMANENT)."""


@dataclass(frozen=True)
class Route:
    """A route of the main table, as the kernel has it now."""

    destination: IPNetwork
    interface: str
    gateway: IPAddress | None = None
    source: IPAddress | None = None
    metric: int = 0
    kind: str = "unicast"
    """``unicast``, ``blackhole``, ``unreachable``, ``prohibit`` (ip-route(8))."""
    protocol: str = ""
    """Who made it: ``kernel``, ``static``, ``boot``, ``ospf`` …"""
    linkdown: bool = False
    """The kernel does not use it, since its interface has no carrier."""


@dataclass(frozen=True)
class Neighbour:
    """An entry of the ARP or neighbour discovery table (ip-neighbour(8))."""

    ip: IPAddress
    interface: str
    mac: str
    state: str
    """``REACHABLE``, ``STALE``, ``INCOMPLETE``, ``FAILED``, ``PERMANENT`` …"""


@runtime_checkable
class NodePort(Protocol):
    """An interface of a node as the lab planned it."""

    name: str
    """The interface's name in its node."""
    mac: str
    mtu: int

    @property
    def addresses(self) -> tuple[IPInterface, ...]:
        """The addresses that the lab gave it."""

    @property
    def node(self) -> Any:
        """The node (or switch) that the port belongs to."""

    @property
    def peer(self) -> NodePort:
        """The port at the other end of the wire."""

    @property
    def declared_at(self) -> str:
        """The line of the test that made it, ``FILE:LINE``."""


@runtime_checkable
class Node(Protocol):
    """Something with a network stack in which commands and functions can run."""

    name: str

    @property
    def ports(self) -> Sequence[NodePort]:
        """The interfaces that the lab gave it, in the order of their links."""

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        timeout_s: float = 30.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Completed:
        """Run a command in the node to its end (see `core.process.run`)."""

    def spawn(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Process:
        """Start a command in the node in the background; the lab ends it at the latest."""

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a Python function in a thread that lives in the node's network namespace, and return its value."""

    @property
    def interfaces(self) -> dict[str, Interface]:
        """The network interfaces, by name, read from the kernel now."""

    @property
    def addresses(self) -> list[Address]:
        """The IP addresses, read from the kernel now."""

    @property
    def routes(self) -> list[Route]:
        """The routes of the main table, read from the kernel now."""

    @property
    def neighbours(self) -> list[Neighbour]:
        """The ARP and neighbour discovery tables, read from the kernel now."""

    @property
    def sysctl(self) -> MutableMapping[str, str]:
        """The kernel settings of the node's network namespace, by dotted name (sysctl(8))."""


@runtime_checkable
class ControlGroup(Protocol):
    """A control group (cgroups(7)) that a node's commands can be put in."""

    name: str

    def joining(self, popen: Popen) -> Popen:
        """A way to start processes as `popen` does, but in the group before they become the command."""


@runtime_checkable
class Confined(Protocol):
    """A node whose processes can have a control group of their own, which limits and counts what they use."""

    name: str

    @property
    def control_group(self) -> ControlGroup | int | None:
        """The group that its commands join, or the id of a process whose group is the node's own; None: neither."""
