"""`Rule`: what a packet must look like, and what is done to it; the pure model of a classifier's entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from ..core.errors import BadInput
from .box import Box
from .fields import (
    FIELDS,
    IPV4,
    IPV6,
    PORT_PROTOCOLS,
    Interval,
    parse_flags,
    parse_interval,
    parse_mac,
    parse_number,
    parse_prefix,
    parse_states,
)
from .packet import Packet
from .police import Police

__all__ = ["SETTABLE", "Rule", "Value"]

SETTABLE = ("eth_src", "eth_dst", "src", "dst", "dscp", "ttl", "sport", "dport")
"""The header fields that a rule can set."""

Value = int | str | tuple[int, int]
"""A number, its name or text, or a range: ``53``, ``"AF11"``, ``"1024-65535"``, ``(1024, 65535)``."""

_ICMP_FAMILY = {1: IPV4, 58: IPV6}
_TAGS: Mapping[object, Interval] = {"any": (0, 4094), "none": (-1, -1)}
_NEEDS_IP = ("src", "dst", "proto", "dscp", "ct_state")


@dataclass(frozen=True, repr=False)
class Rule:
    """An entry of a classifier: every field that it names must match; then the packet goes to one place, or nowhere.

    ``Rule("dns", proto="udp", dport=53, to="p2")``, ``Rule("no ssh", proto="tcp", dport=22, drop=True)``.
    Without a family (an address, or `eth_type`) an IP rule matches IPv4 and IPv6.

    Raises:
        BadInput: a match that no packet can have (port 70000, prefix /40, ports on ICMP), a rule that neither
            forwards nor drops, or a field that cannot be set.
    """

    name: str
    _: KW_ONLY
    priority: int = 0
    """The higher one wins; among equals the earlier one."""
    in_port: str | None = None
    eth_src: str | None = None
    eth_dst: str | None = None
    eth_type: int | str | None = None
    """A number, ``"ipv4"``, ``"ipv6"`` or ``"arp"``; the one behind the VLAN tag."""
    vlan: Value | None = None
    """An identifier, a range, ``"any"`` for any tag, or ``"none"`` for no tag."""
    pcp: Value | None = None
    src: str | None = None
    """A prefix: ``"10.0.0.0/8"``, ``"2001:db8::/32"``, or one address."""
    dst: str | None = None
    proto: int | str | None = None
    dscp: Value | None = None
    sport: Value | None = None
    dport: Value | None = None
    tcp_flags: str | None = None
    """Flags that must be set, and with a ``!`` those that must not: ``"syn,!ack"``."""
    icmp_type: Value | None = None
    icmp_code: Value | None = None
    tunnel_id: Value | None = None
    ct_state: str | None = None
    """What the connection that it belongs to must be: ``"new"``, or several as in ``"established,related"``."""
    to: str | None = None
    """The port or class that a matching packet goes to."""
    drop: bool = False
    queue: int | None = None
    """The queue of the port it goes to."""
    mark: int | None = None
    """A number that goes with the packet inside the device (``skb->mark``, ``pkt_mark``)."""
    police: Police | None = None
    """The rate up to which it matches, or lets packets through. The model does not look at it: see `assert_policed`."""
    set: Mapping[str, int | str] = field(default_factory=dict, hash=False)
    """Header fields that get another value: ``{"dscp": 46}``."""

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise BadInput(f"a rule's name is text, not {self.name!r}")
        if (self.to is not None) == self.drop:
            raise BadInput(f"{self._whose}: give either to=… or drop=True")
        extra = [name for name in ("queue", "mark", "police") if getattr(self, name) is not None] + [*self.set]
        if self.drop and extra:
            raise BadInput(f"{self._whose}: it drops the packet, so {' and '.join(extra)} would have no effect")
        object.__setattr__(self, "set", MappingProxyType(dict(self.set)))
        self._check_numbers()
        self.boxes({self.in_port: 1} if self.in_port else {})
        for name in self.set:
            if name not in SETTABLE:
                raise BadInput(f"{self._whose}: cannot set {name}; allowed are {', '.join(SETTABLE)}")
        if self.set:
            self.apply(self._typical())

    def _check_numbers(self) -> None:
        for name, low, high in (("priority", 0, 65535), ("queue", 0, 65535), ("mark", 0, 2**32 - 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or not low <= value <= high):
                raise BadInput(f"{self._whose}: {name} is {value!r}; allowed are {low} to {high}")

    @property
    def _whose(self) -> str:
        return f"rule {self.name!r}"

    def __repr__(self) -> str:
        shown = [repr(self.name)]
        for item in fields(self)[1:]:
            value = getattr(self, item.name)
            if value is not None and value is not False and not (item.name == "priority" and value == 0):
                shown += (
                    [f"{item.name}={dict(value) if item.name == 'set' else value!r}"]
                    if item.name != "set" or value
                    else []
                )
        return f"Rule({', '.join(shown)})"

    def families(self) -> tuple[int | None, ...]:
        """The EtherTypes that it matches; None stands for any.

        Raises:
            BadInput: its fields belong to different ones.
        """
        found = {
            parse_prefix(name, getattr(self, name), self._whose)[0] for name in ("src", "dst") if getattr(self, name)
        }
        if self.eth_type is not None:
            found.add(parse_number("eth_type", self.eth_type, self._whose))
        proto = self._proto()
        if proto in _ICMP_FAMILY:
            found.add(_ICMP_FAMILY[proto])
        if len(found) > 1:
            raise BadInput(
                f"{self._whose}: its fields belong to different EtherTypes: {', '.join(map(hex, sorted(found)))}"
            )
        ip = any(getattr(self, name) is not None for name in _NEEDS_IP)
        if found and ip and not found <= {IPV4, IPV6}:
            raise BadInput(f"{self._whose}: it matches IP fields, but its eth_type is {hex(found.pop())}")
        return tuple(found) if found else (IPV4, IPV6) if ip else (None,)

    def _proto(self) -> int | None:
        return None if self.proto is None else parse_number("proto", self.proto, self._whose)

    def boxes(self, ports: Mapping[str, int]) -> tuple[Box, ...]:
        """The packets that it matches: one box for each family, and for each range of states of connections.

        Args:
            ports: the numbers of the device's ports.

        Raises:
            BadInput: it can match no packet, or its `in_port` is not among the ports.
        """
        boxes = [self._box(family, ports) for family in self.families()]
        if self.ct_state is None:
            return tuple(boxes)
        states = parse_states(self.ct_state, self._whose)
        return tuple({**box, "ct_state": limits} for box in boxes for limits in states)

    def _box(self, family: int | None, ports: Mapping[str, int]) -> Box:
        box: dict[str, Interval] = {} if family is None else {"eth_type": (family, family)}
        if self.in_port is not None:
            if self.in_port not in ports:
                raise BadInput(f"{self._whose}: no port {self.in_port!r}; there are {', '.join(ports) or 'none'}")
            box["in_port"] = (ports[self.in_port],) * 2
        for name in ("eth_src", "eth_dst"):
            if (value := getattr(self, name)) is not None:
                box[name] = (parse_mac(name, value, self._whose),) * 2
        for name in ("src", "dst"):
            if (value := getattr(self, name)) is not None:
                box[f"ip{4 if family == IPV4 else 6}_{name}"] = parse_prefix(name, value, self._whose)[1]
        return box | self._tag() | self._transport()

    def _tag(self) -> dict[str, Interval]:
        box: dict[str, Interval] = {}
        if self.vlan is not None:
            tag = _TAGS.get(self.vlan)
            box["vlan"] = tag or parse_interval("vlan", self.vlan, self._whose)
        if self.pcp is not None:
            if self.vlan is None or box["vlan"][0] < 0:
                raise BadInput(f"{self._whose}: pcp needs a VLAN tag: give vlan, or vlan='any'")
            box["pcp"] = parse_interval("pcp", self.pcp, self._whose)
        return box

    def _transport(self) -> dict[str, Interval]:
        box: dict[str, Interval] = {}
        proto = self._proto()
        if proto is not None:
            box["proto"] = proto, proto
        owners = {"sport": PORT_PROTOCOLS, "dport": PORT_PROTOCOLS, "icmp_type": (1, 58), "icmp_code": (1, 58)}
        for name in ("dscp", "tunnel_id", *owners):
            if (value := getattr(self, name)) is None:
                continue
            if name in owners and proto not in owners[name]:
                names = "proto 'tcp', 'udp' or 'sctp'" if name.endswith("port") else "proto 'icmp' or 'icmpv6'"
                raise BadInput(f"{self._whose}: {name} needs {names}; its proto is {self.proto!r}")
            box[name] = parse_interval(name, value, self._whose)
        if self.tcp_flags is not None:
            if proto != 6:
                raise BadInput(f"{self._whose}: tcp_flags needs proto 'tcp'; its proto is {self.proto!r}")
            box |= {name: (bit, bit) for name, bit in parse_flags(self.tcp_flags, self._whose).items()}
        return box

    def _typical(self) -> Packet:
        box = self.boxes({self.in_port: 1} if self.in_port else {})[0]
        return Packet.from_values({name: max(low, 0) for name, (low, _) in box.items()})

    def apply(self, packet: Packet) -> Packet:
        """The packet with the fields that the rule sets.

        Raises:
            BadInput: the packet has no such field.
        """
        try:
            changes: dict[str, Any] = dict(self.set)
            return replace(packet, **changes) if changes else packet
        except BadInput as error:
            raise BadInput(f"{self._whose}: set={dict(self.set)} cannot be done to {packet}: {error}") from None


assert set(SETTABLE) - {"src", "dst", "ttl"} <= FIELDS.keys()
