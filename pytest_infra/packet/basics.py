"""`basics`: for each kind of match the plainest policies with it, which random ones might come to late."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .classifier import Classifier
from .rule import Rule

__all__ = ["basics"]

_MATCHES: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType(
    {
        "eth_src": ({"eth_src": "02:00:00:00:00:10"},),
        "eth_dst": ({"eth_dst": "02:00:00:00:00:10"},),
        "eth_type": ({"eth_type": "arp"},),
        "vlan": ({"vlan": "any"}, {"vlan": "none", "eth_type": "ipv4"}, {"vlan": 7}, {"vlan": (6, 9)}),
        "pcp": ({"vlan": "any", "pcp": (2, 5)},),
        "src": ({"src": "10.64.0.0/10"}, {"src": "10.0.0.1"}, {"src": "2001:db8::/33"}),
        "dst": ({"dst": "10.0.0.0/9"}, {"dst": "2001:db8::1"}),
        "proto": ({"proto": "udp"}, {"proto": "tcp"}),
        "dscp": ({"dscp": "EF"}, {"dscp": (9, 14)}),
        "sport": ({"proto": "udp", "sport": (1000, 1999)}, {"proto": "tcp", "sport": 80}),
        "dport": ({"proto": "tcp", "dport": (1000, 1999)}, {"proto": "udp", "dport": 53}),
        "tcp_flags": ({"proto": "tcp", "tcp_flags": "syn,!ack"},),
        "icmp_type": ({"proto": "icmp", "icmp_type": 8}, {"proto": "icmpv6", "icmp_type": (128, 129)}),
        "icmp_code": ({"proto": "icmp", "icmp_code": (1, 3)},),
        "tunnel_id": ({"tunnel_id": (5, 9)},),
    }
)


def basics(*, outputs: Sequence[str], ports: Sequence[str], matches: Collection[str]) -> list[Classifier]:
    """Policies of one rule, which in turn forwards and drops while the default does the opposite.

    Args:
        outputs: where packets may go.
        ports: the ports that packets come in by.
        matches: the fields that rules may name.
    """
    chosen = [
        match for name, some in _MATCHES.items() if name in matches for match in some if set(match) <= set(matches)
    ]
    if "in_port" in matches and ports:
        chosen.insert(0, {"in_port": ports[0]})
    found = []
    for number, match in enumerate(chosen):
        to = outputs[number % len(outputs)]
        forwards = number % 2 == 0
        rule = Rule("r1", **match, to=to) if forwards else Rule("r1", **match, drop=True)
        found.append(Classifier([rule], default="drop" if forwards else to, ports=ports))
    return found
