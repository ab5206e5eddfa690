"""Which addresses a check uses: from the nodes it was given to the two ends of its packets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal

from ..core.errors import BadInput
from ..core.node import IPAddress, IPInterface, Node
from .graph import owner_of

__all__ = ["Ends", "Family", "Target", "choose_ends", "versions_of"]

Family = Literal["ipv4", "ipv6"]
Target = Node | str | IPv4Address | IPv6Address | tuple[Node, str | IPv4Address | IPv6Address]
"""What a check takes as its other end: a node, an address, or one address of a node."""

_VERSIONS: dict[object, tuple[int, ...]] = {None: (4, 6), "ipv4": (4,), "ipv6": (6,)}


@dataclass(frozen=True)
class Ends:
    """Where a check's packets come from and go to."""

    source: Node
    source_address: IPAddress | None
    """The address that was asked for; None leaves the choice to the kernel."""
    destination: Node | None
    """None when no node of the lab was planned to have the address."""
    address: IPAddress

    @property
    def destination_name(self) -> str:
        """The other end as people call it: the node's name, else the address."""
        return self.destination.name if self.destination is not None else str(self.address)

    @property
    def bind_to(self) -> str | None:
        """The source address as text, where one was asked for."""
        return None if self.source_address is None else str(self.source_address)


def versions_of(family: Family | None) -> tuple[int, ...]:
    """The IP versions of a family, the preferred one first.

    Raises:
        BadInput: it is not known.
    """
    if not isinstance(family, str | None) or family not in _VERSIONS:
        raise BadInput(f"family {family!r} is not known; allowed are 'ipv4', 'ipv6' and None for either")
    return _VERSIONS[family]


def choose_ends(a: Node | tuple[Node, Any], b: Target, family: Family | None = None) -> Ends:
    """Choose the addresses: of the wanted family, IPv4 before IPv6, first those of a subnet that both ends share.

    The addresses are those that the lab gave; a node that has none from the lab is asked for what it has now.

    Raises:
        BadInput: `a` is not a node, `b` is nothing that has an address, or it has none of that family.
    """
    versions = versions_of(family)
    source, source_address = _split(a, "the source")
    if source is None:
        raise BadInput(f"the source {a!r} is not a node; give a node, or a node and one of its addresses")
    if source_address is not None:
        versions = _narrow(versions, source_address, family)
    destination, address = _split(b, "the target")
    if destination is not None:
        _check_one_lab(source, destination)
    if address is None:
        assert destination is not None
        address = _choose(source, destination, versions, family)
    elif address.version not in versions:
        raise BadInput(f"the target {address} is not an address of {_named(versions, family)}")
    elif destination is None:
        port = owner_of(source, address)
        destination = port.node if port is not None else None
    return Ends(source, source_address, destination, _scoped(address, source))


def _check_one_lab(source: Node, destination: Node) -> None:
    """Labs have the same addresses: what is asked in one says nothing of a node of another."""
    mine, theirs = getattr(source, "_lab", None), getattr(destination, "_lab", None)
    if mine is not theirs and mine is not None and theirs is not None:
        raise BadInput(
            f"{source.name} is a node of the lab {mine.name}, {destination.name} one of the lab {theirs.name}: no link "
            "joins labs; give an address where something else does"
        )


def _split(value: Any, what: str) -> tuple[Node | None, IPAddress | None]:
    if isinstance(value, tuple) and len(value) == 2 and _is_node(value[0]):
        return value[0], _address(value[1], what)
    if isinstance(value, str | IPv4Address | IPv6Address):
        return None, _address(value, what)
    if _is_node(value):
        return value, None
    raise BadInput(f"{what} {value!r} is not a node; give a node, an IP address, or a pair (node, address)")


def _is_node(value: Any) -> bool:
    return hasattr(value, "call") and hasattr(value, "ports")


def _address(value: Any, what: str) -> IPAddress:
    try:
        return ip_address(value)
    except ValueError:
        raise BadInput(
            f"{what} {value!r} is not an IP address; give a node, an address such as '192.0.2.1' or '2001:db8::1', "
            "or a pair (node, address)"
        ) from None


def _narrow(versions: tuple[int, ...], address: IPAddress, family: Family | None) -> tuple[int, ...]:
    if address.version not in versions:
        raise BadInput(f"the source address {address} is not of the family {family!r}")
    return (address.version,)


def _choose(source: Node, destination: Node, versions: Sequence[int], family: Family | None) -> IPAddress:
    ours, theirs = _usable(source), _usable(destination)
    for version in versions:
        candidates = [ip for ip in theirs if ip.version == version]
        networks = [ip.network for ip in ours if ip.version == version]
        for ip in candidates:
            if any(ip.ip in network for network in networks):
                return ip.ip
        if candidates:
            return candidates[0].ip
    have = ", ".join(str(ip) for ip in theirs) or "no address at all"
    remedy = (
        "give its link one with ip= or peer_ip=" if destination.ports else "no link leads to it; lab.link makes one"
    )
    raise BadInput(f"{destination.name} has no address of {_named(versions, family)}; it has {have}; {remedy}")


def _usable(node: Node) -> list[IPInterface]:
    """The addresses that packets can be sent to from elsewhere: those planned, else those there now."""
    if not all(port.addresses for port in node.ports):
        node.call(int)  # settles the lab, which chooses the addresses that were not given
    planned = [ip for port in node.ports for ip in port.addresses]
    if not planned:
        planned = [item.ip for item in node.addresses if item.scope != "host"]
    return [ip for ip in planned if not ip.ip.is_link_local and not ip.ip.is_loopback]


def _scoped(address: IPAddress, source: Node) -> IPAddress:
    """A link-local IPv6 address names the interface to leave by (RFC 4007)."""
    if not isinstance(address, IPv6Address) or not address.is_link_local or address.scope_id:
        return address
    if len(source.ports) != 1:
        raise BadInput(
            f"the link-local address {address} does not say which interface of {source.name} to use; "
            f"write '{address}%{source.ports[0].name if source.ports else 'eth0'}'"
        )
    return IPv6Address(f"{address}%{source.ports[0].name}")


def _named(versions: Sequence[int], family: Family | None) -> str:
    return f"the family {family!r}" if family else " or ".join(f"IPv{version}" for version in versions)
