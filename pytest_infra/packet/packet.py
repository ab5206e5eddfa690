"""`Packet`: the headers of a packet as a person would name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ..core.errors import BadInput
from .fields import (
    FIELDS,
    FLAGS,
    IPV4,
    IPV6,
    PORT_PROTOCOLS,
    PROTOCOLS,
    UNTAGGED,
    Interval,
    parse_address,
    parse_flags,
    parse_interval,
    parse_mac,
    parse_number,
)

__all__ = ["Packet", "mac_text"]

_EXPERIMENT = 253  # RFC 3692: for experiments and tests
_LOCAL = 0x88B5  # IEEE 802: local experimental EtherType 1
_SOURCES = {IPV4: "198.18.0.1", IPV6: "2001:2::1"}  # RFC 2544, RFC 5180: for benchmarks
_DESTINATIONS = {IPV4: "198.18.0.2", IPV6: "2001:2::2"}
_ICMP = {IPV4: 1, IPV6: 58}
_TCP = 6
_LIMITS: Mapping[str, Interval] = {"ecn": (0, 3), "ttl": (0, 255)}


@dataclass(frozen=True, repr=False)
class Packet:
    """A packet, built with only the headers that matter; the others get values that stand for nothing.

    ``Packet(dst="10.0.0.1", proto="tcp", dport=22)`` is IPv4 because of its address, and has a source address and a
    source port of its own. A payload of its own is kept as it is; else a probe puts its number there.

    Raises:
        BadInput: a value outside its field, ports on a protocol that has none, TCP flags on anything but TCP,
            two families of addresses, or a priority (PCP) without a VLAN tag.
    """

    in_port: str = ""
    """The port of the device that it comes in by."""
    proto: int | str | None = None
    """The IP protocol, or the next header of IPv6: a number, or a name such as ``"udp"``."""
    src: str | None = None
    dst: str | None = None
    sport: int | None = None
    dport: int | None = None
    tcp_flags: str | None = None
    """The flags that are set: ``"syn ack"``."""
    icmp_type: int | None = None
    icmp_code: int | None = None
    dscp: int | str | None = None
    ecn: int | None = None
    ttl: int | None = None
    """The time to live, or the hop limit of IPv6."""
    vlan: int | None = None
    """The VLAN identifier of the tag; None without a tag."""
    pcp: int | None = None
    eth_type: int | str | None = None
    """The EtherType behind the VLAN tag."""
    eth_src: str = "02:00:00:00:00:01"
    eth_dst: str = "02:00:00:00:00:02"
    tunnel_id: int = 0
    """The identifier of the tunnel's network that it came in by; 0 for none."""
    payload: bytes = b""

    def __post_init__(self) -> None:
        family = self._family()
        settled: dict[str, Any] = {"eth_type": family, "tunnel_id": self._number("tunnel_id", self.tunnel_id)}
        settled |= {name: mac_text(parse_mac(name, getattr(self, name), "packet")) for name in ("eth_src", "eth_dst")}
        settled |= self._tag()
        if family in _SOURCES:
            settled |= self._ip(family)
        else:
            self._refuse(("proto", "src", "dst", "dscp", "ecn", "ttl", "sport", "dport"), "an IP packet")
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        if self.proto not in PORT_PROTOCOLS:
            self._refuse(("sport", "dport"), "TCP, UDP or SCTP")
        if self.proto != _TCP:
            self._refuse(("tcp_flags",), "TCP")
        if self.proto != _ICMP.get(family):
            self._refuse(("icmp_type", "icmp_code"), "ICMP (ICMPv6 on IPv6)")

    def _family(self) -> int:
        families = {
            parse_address(name, getattr(self, name), "packet")[0] for name in ("src", "dst") if getattr(self, name)
        }
        if self.eth_type is not None:
            families.add(self._number("eth_type", self.eth_type))
        if not families and self.proto in (58, "icmpv6"):
            return IPV6
        if not families and any(
            getattr(self, name) is not None for name in ("proto", "dscp", "ecn", "ttl", "dport", "sport")
        ):
            return IPV4
        if len(families) > 1:
            raise BadInput(
                f"packet: src {self.src}, dst {self.dst} and eth_type {self.eth_type} are of different families"
            )
        return families.pop() if families else _LOCAL

    def _number(self, name: str, value: object) -> int:
        if limits := _LIMITS.get(name):
            if isinstance(value, int) and limits[0] <= value <= limits[1]:
                return value
            raise BadInput(f"packet: {name} is {value!r}; allowed are {limits[0]} to {limits[1]}")
        return parse_number(name, value, "packet")

    def _tag(self) -> dict[str, Any]:
        if self.vlan is None:
            self._refuse(("pcp",), "a packet with a VLAN tag (give vlan)")
            return {}
        low, _ = parse_interval("vlan", (self.vlan, 4094), "packet")
        if low == UNTAGGED:
            raise BadInput("packet: vlan is -1; leave it out for a packet without a tag")
        return {"vlan": low, "pcp": self._number("pcp", self.pcp or 0)}

    def _ip(self, family: int) -> dict[str, Any]:
        proto = _EXPERIMENT if self.proto is None else self._number("proto", self.proto)
        settled: dict[str, Any] = {"proto": proto}
        for name, default in (("src", _SOURCES[family]), ("dst", _DESTINATIONS[family])):
            number = parse_address(name, getattr(self, name) or default, "packet")[1]
            settled[name] = str(IPv4Address(number) if family == IPV4 else IPv6Address(number))
        settled |= {name: self._number(name, getattr(self, name) or 0) for name in ("dscp", "ecn")}
        settled["ttl"] = self._number("ttl", 64 if self.ttl is None else self.ttl)
        if proto in PORT_PROTOCOLS:
            settled |= {name: self._number(name, getattr(self, name) or 0) for name in ("sport", "dport")}
        if proto == _TCP:
            flags = parse_flags(self.tcp_flags or "", "packet")
            settled["tcp_flags"] = " ".join(name for name in FLAGS if flags.get(name))
        if proto == _ICMP[family]:
            settled |= {name: self._number(name, getattr(self, name) or 0) for name in ("icmp_type", "icmp_code")}
        return settled

    def _refuse(self, names: tuple[str, ...], owner: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise BadInput(f"packet: {name} is {getattr(self, name)!r}, but only {owner} has it")

    def __repr__(self) -> str:
        shown = {item.name: getattr(self, item.name) for item in fields(self)}
        names = {number: name for name, number in PROTOCOLS.items()}
        shown["proto"] = names.get(shown["proto"], shown["proto"])
        implied = {"eth_type": shown["src"] is not None, "ttl": self.ttl == 64}
        implied |= {"eth_src": self.eth_src == Packet.eth_src, "eth_dst": self.eth_dst == Packet.eth_dst}
        kept = [
            f"{name}={hex(value) if name == 'eth_type' else repr(value)}"
            for name, value in shown.items()
            if value not in (None, "", b"") and not implied.get(name) and not (name in _ZERO and value == 0)
        ]
        return f"Packet({', '.join(kept)})"

    @property
    def values(self) -> dict[str, int]:
        """The packet's fields as numbers, by the names of `fields.FIELDS`; `in_port` is not among them."""
        assert isinstance(self.eth_type, int)
        values = {"eth_type": self.eth_type, "tunnel_id": self.tunnel_id, "pcp": self.pcp or 0}
        values["eth_src"], values["eth_dst"] = (
            int(self.eth_src.replace(":", ""), 16),
            int(self.eth_dst.replace(":", ""), 16),
        )
        values["vlan"] = UNTAGGED if self.vlan is None else self.vlan
        for name in ("proto", "dscp", "sport", "dport", "icmp_type", "icmp_code"):
            values[name] = int(getattr(self, name) or 0)
        if self.src is not None and self.dst is not None:
            four = self.eth_type == IPV4
            kind, prefix = (IPv4Address, "ip4_") if four else (IPv6Address, "ip6_")
            values[prefix + "src"], values[prefix + "dst"] = int(kind(self.src)), int(kind(self.dst))
        return values | dict.fromkeys((self.tcp_flags or "").split(), 1)

    @classmethod
    def from_values(cls, values: Mapping[str, int], in_port: str = "", **more: Any) -> Packet:
        """The packet that has these values; those of headers that it does not have are left out.

        Args:
            values: numbers by the names of `fields.FIELDS`.
            in_port: the port's name.
            more: further arguments of `Packet`: `ttl`, `ecn`, `payload`.
        """
        made: dict[str, Any] = {name: values[name] for name in ("eth_type", "tunnel_id") if name in values}
        made |= {name: mac_text(values[name]) for name in ("eth_src", "eth_dst") if name in values}
        if values.get("vlan", UNTAGGED) != UNTAGGED:
            made |= {name: values[name] for name in ("vlan", "pcp") if name in values}
        if (family := values.get("eth_type")) in _SOURCES:
            kind, prefix = (IPv4Address, "ip4_") if family == IPV4 else (IPv6Address, "ip6_")
            made |= {end: str(kind(values[prefix + end])) for end in ("src", "dst") if prefix + end in values}
            proto = values.get("proto", _EXPERIMENT)
            wanted = ["dscp"] + (["sport", "dport"] if proto in PORT_PROTOCOLS else [])
            wanted += ["icmp_type", "icmp_code"] if proto == _ICMP[family] else []
            made |= {"proto": proto, **{name: values[name] for name in wanted if name in values}}
            if proto == _TCP:
                made["tcp_flags"] = " ".join(name for name in FLAGS if values.get(name))
        return cls(in_port=in_port, **made, **more)


_ZERO = ("dscp", "ecn", "pcp", "icmp_code", "tunnel_id")
assert set(_ZERO) - {"ecn"} <= set(FIELDS)


def mac_text(number: int) -> str:
    """A MAC address as text."""
    return ":".join(f"{number:012x}"[at : at + 2] for at in range(0, 12, 2))
