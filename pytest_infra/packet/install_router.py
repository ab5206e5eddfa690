"""A classifier as nftables rules in the forward hook of a router (nft(8), family inet), with connection tracking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network
from itertools import count
from typing import Any

from ..core.errors import BadInput
from .classifier import Classifier
from .device import demand_matches
from .fields import IPV4, IPV6
from .install_bridge import FORWARD, IPROUTE, accept_or_drop
from .install_nft import NFT, SENTINEL_MATCH, decide_chain, read_counters, table
from .packet import Packet

__all__ = ["NftRouter"]

_NEXT_HOPS = {4: "198.18.255.1", 6: "fd00:0:0:ffff::1"}  # stand for whatever is behind a port; nobody has them
_SYSCTL = {"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv6.conf.all.forwarding": "1"}


class NftRouter:
    """A node that routes, with nftables, as a device: a filter that knows connections (the class ``"forward"``).

    Where a packet goes is its routes' concern, and it leaves with other MAC addresses and a lower time to live, so
    its headers are not compared.

    Args:
        node: the node; its ports and those at the other ends need no addresses. Its rules and routes are changed.
        behind: the prefixes that are behind each of its ports.

    Raises:
        BadInput: a port that the node lacks.
        Unavailable: nft or iproute2 is not installed.
    """

    matches = ("in_port", "src", "dst", "proto", "dscp", "sport", "dport", "tcp_flags", "icmp_type", "icmp_code")
    outputs = (FORWARD,)
    window = 128
    transparent = False

    def __init__(self, node: Any, behind: Mapping[str, str | Sequence[str]]) -> None:
        NFT.demand()
        self.node = node
        self.name = f"nftables of router {node.name}"
        self.wires = {port.name: port.peer for port in node.ports}
        self.ports = tuple(self.wires)
        self.classes = dict.fromkeys(self.ports, FORWARD)
        self.installed: Classifier | None = None
        self._zones = count(1)
        if unknown := set(behind) - set(self.ports):
            raise BadInput(f"{node.name} has no port {', '.join(unknown)}; it has {', '.join(self.ports)}")
        self._route(behind)

    def _route(self, behind: Mapping[str, str | Sequence[str]]) -> None:
        for name, value in _SYSCTL.items():
            if self.node.sysctl.get(name) is not None:  # a kernel without IPv6 lacks its settings
                self.node.sysctl[name] = value
        ip = IPROUTE.path().removesuffix("bridge") + "ip"
        for port in self.node.ports:
            prefixes = behind.get(port.name, ())
            for prefix in map(ip_network, [prefixes] if isinstance(prefixes, str) else prefixes):
                hop = _NEXT_HOPS[prefix.version]
                self.node.run(
                    [ip, "neighbour", "replace", hop, "lladdr", port.peer.mac, "dev", port.name, "nud", "permanent"]
                )
                self.node.run([ip, "route", "replace", str(prefix), "via", hop, "dev", port.name, "onlink"])

    def addressed(self, packet: Packet) -> Packet:
        """The packet as a neighbour would send it: to the router's own MAC address.

        Raises:
            BadInput: it is no IP packet.
        """
        if packet.eth_type not in (IPV4, IPV6):
            raise BadInput(f"{packet}: {self.name} is asked about IP packets only")
        return replace(packet, eth_dst=self.wires[packet.in_port].peer.mac)

    def install(self, classifier: Classifier) -> None:
        """Replace the rules, in one transaction; connections are forgotten.

        Raises:
            Unavailable: a rule needs what it cannot do.
            BadInput: a rule sends packets to something else than ``"forward"``.
        """
        demand_matches(self.name, classifier, (*self.matches, "ct_state"), ("mark", "police"))
        decide = decide_chain(classifier, accept_or_drop)
        hooks = [
            f"chain zone {{ type filter hook prerouting priority raw; ct zone set {next(self._zones)}; }}",
            "chain forward { type filter hook forward priority 0; policy drop; goto decide; }",
        ]
        copies = " ".join(f'dup to "{port}"' for port in self.ports[:-1])
        ingress = [
            f'chain in{place} {{ type filter hook ingress device "{port}" priority 0; '
            f'{SENTINEL_MATCH} {copies} fwd to "{self.ports[-1]}"; }}'
            for place, port in enumerate(self.ports)
        ]
        script = table("inet", decide, hooks) + table("netdev", [], ingress)
        self.node.run([NFT.path(), "-f", "-"], input=script)
        self.installed = classifier

    def counters(self) -> dict[str, int]:
        """How many packets each rule has decided about."""
        assert self.installed is not None, "install rules first"
        return read_counters(self.node.run, "inet", self.installed)
