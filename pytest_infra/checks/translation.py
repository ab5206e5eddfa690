"""Where a node's rules of nftables send what is for one of its ports (RFC 3022)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from ..core.node import IPAddress, Node
from .rule_trace import list_rules

__all__ = ["Translation", "translation_of"]

_TO = re.compile(
    r"\b(?:dnat|redirect)(?: ip6?)? to (?::(?P<own>\d+)|\[?(?P<address>[0-9a-f.:]+?)\]?(?::(?P<port>\d+))?)(?:\s|$)"
)


@dataclass(frozen=True)
class Translation:
    """A rule that translates the destination of packets."""

    rule: str
    address: IPAddress
    """The address that they are for then."""
    port: int
    own: bool
    """Whether the node keeps them for itself (``redirect``)."""


def translation_of(node: Node, protocol: str, address: IPAddress, port: int) -> Translation | None:
    """The first rule of a node that names the port and translates it to one address and one port."""
    if getattr(node, "remote", False):
        return None
    for line in node.call(list_rules):
        if re.search(rf"\b{protocol} dport {port}\b", line) and (found := _TO.search(line)):
            to = address if found["own"] else ip_address(found["address"])
            further = int(found["own"] or found["port"] or port)
            return (
                Translation(line.strip(), to, further, own=bool(found["own"]))
                if to.version == address.version
                else None
            )
    return None
