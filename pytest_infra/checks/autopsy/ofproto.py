"""Asking Open vSwitch what it would do with a packet: the questions, and what its answers say (``ofproto/trace``)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...net.ovs_flows import split_actions
from .hop import Hop, Pass

__all__ = ["Left", "Told", "ask", "packet_of", "resolution_of", "target_mac"]

_ECHO = {(4, False): 8, (4, True): 0, (6, False): 128, (6, True): 129}
_A_CLIENT_PORT = 49152  # the first of the dynamic ports (RFC 6335)
_TRACKED_ANSWER = "trk,est,rpl"
_RULE = re.compile(r"^ ?\d+\. ")
_BY_HASH = re.compile(r"^Datapath actions: .*\bhash\(.*\brecirc\(", re.MULTILINE)
"""The datapath computes a hash of the packet first; a trace ends there, as if no bucket of a group were live."""
_METER = re.compile(r"^\s+meter:(\d+)$", re.MULTILINE)
_SOLICITATION = 135  # RFC 4861, 4.3


@dataclass(frozen=True)
class Left:
    """What is different about a packet that leaves a switch."""

    tag: int | None
    """The VLAN tag that it has; None for none."""
    mac: str = ""
    """Its destination MAC address, where a flow has set it."""
    ip: str = ""
    """Its destination address, where a flow has set it."""
    port: int | None = None
    """Its destination port, where a flow has set it."""
    ttl: int | None = None
    """Its TTL or hop limit, where a flow has set it."""


@dataclass(frozen=True)
class Told:
    """The answer of ``ofproto/trace``."""

    text: str
    tag: int | None
    """The VLAN tag with which the packet came; None for none."""
    spread: frozenset[str] = frozenset()
    """The ports of all buckets of the groups that it passes, where a hash chooses."""

    @property
    def by_hash(self) -> bool:
        """Whether the datapath decides by a hash, at which the trace ends."""
        return bool(_BY_HASH.search(self.text))

    @cached_property
    def _actions(self) -> list[str]:
        """What the datapath is told to do, in order; each part (after connection tracking, say) has its own line."""
        lines = re.findall(r"^Datapath actions: (.*)$", self.text, re.MULTILINE)
        return [action for line in lines for action in split_actions(line)]

    @property
    def outputs(self) -> set[str]:
        """The ports that it ends at."""
        return {word for action in self._actions for word in re.split(r"[,()]", action)}

    @property
    def matched(self) -> bool:
        """Whether each table had a flow for it."""
        return "No match" not in self.text

    @property
    def meters(self) -> list[int]:
        """The meters that it passes."""
        return [int(number) for number in _METER.findall("\n".join(self.rules))]

    def left_by(self, port: str) -> Left:
        """The packet as it leaves by a port."""
        tag = self.tag
        found: dict[str, str] = {}
        for action in self._actions:
            if action == port:
                break
            if pushed := re.match(r"push_vlan\((?:tpid=\w+,)?vid=(\d+)", action):
                tag = int(pushed[1])
            elif action == "pop_vlan":
                tag = None
            elif changed := re.fullmatch(r"set\((eth|ipv4|ipv6|tcp|udp)\((.*)\)\)", action):
                found.update(_fields(changed[1], changed[2]))
        to_port, ttl = found.get("tcp.dst") or found.get("udp.dst"), found.get("ipv4.ttl") or found.get("ipv6.hlimit")
        return Left(
            tag,
            mac=found.get("eth.dst", "").lower(),
            ip=found.get("ipv4.dst", found.get("ipv6.dst", "")),
            port=int(to_port) if to_port else None,
            ttl=int(ttl) if ttl else None,
        )

    @property
    def rules(self) -> list[str]:
        """The parts that tell the rules, as they are: what comes after connection tracking has its own part."""
        rules, telling = [], False
        for line in self.text.splitlines():
            if line.startswith("---"):
                telling = True
            elif line.startswith("Final flow"):
                telling = False
            elif telling and line.strip():
                rules.append(line.rstrip())
        return rules

    @property
    def last_rule(self) -> str:
        """The last flow that it met."""
        rules = self.rules
        at = max((number for number, line in enumerate(rules) if _RULE.match(line)), default=None)
        if at is None:
            return "by none of its flows"
        table, _, match = rules[at].strip().partition(". ")
        actions = " ".join(line.strip() for line in rules[at + 1 :]) or "nothing"
        return f"the flow '{match}' of table {table} says: {actions}"


def ask(hop: Hop, step: Pass, packet: str, tag: int | None = None) -> Told:
    """What the switch would do with a packet that comes in there, from its own mouth."""
    tracked = _TRACKED_ANSWER if hop.back else ""
    text = hop.case.view(step.switch).trace(f"in_port={step.into.name},{packet}", tracked)
    if not _BY_HASH.search(text):
        return Told(text, tag)
    text = text.replace("no live bucket", "to one of its buckets, by a hash that the datapath computes")
    return Told(text, tag, _bucket_outputs(step.switch, text))


def _bucket_outputs(switch: Any, text: str) -> frozenset[str]:
    """The ports that the buckets of the groups in a trace output to."""
    groups = set(re.findall(r"^ +group:(\d+)$", text, re.MULTILINE))
    said = switch.ofctl(["-O", "OpenFlow15", "--names", "dump-groups", switch.name]).stdout
    lines = [line for line in said.splitlines() if (found := re.search(r"group_id=(\d+)", line)) and found[1] in groups]
    return frozenset(port for line in lines for port in re.findall(r'output:"?([^,"\s]+)', line))


def packet_of(hop: Hop, tag: int | None = None) -> str:
    """The packet of a hop as ovs-fields(7) writes it, with the VLAN tag that it has by then."""
    case, version = hop.case, hop.address.version
    fields = [
        {"icmp": "icmp" if version == 4 else "icmp6"}.get(case.protocol, f"{case.protocol}{'6' * (version == 6)}")
    ]
    fields += [f"dl_vlan={tag}"] if tag is not None else []
    fields += [f"dl_src={_source_mac(hop)}", f"dl_dst={target_mac(hop)}"]
    source, target = ("nw_src", "nw_dst") if version == 4 else ("ipv6_src", "ipv6_dst")
    fields += [f"{source}={hop.origin}"] if hop.origin is not None else []
    fields += [f"{target}={hop.address}", "nw_ttl=64"]
    if case.protocol == "icmp":
        kind = "icmp_type" if version == 4 else "icmpv6_type"
        return ",".join([*fields, f"{kind}={_ECHO[version, hop.back]}"])
    server, client = (f"{case.protocol}_{end}" for end in (("src", "dst") if hop.back else ("dst", "src")))
    flags = [f"tcp_flags={'syn|ack' if hop.back else 'syn'}"] if case.protocol == "tcp" else []
    return ",".join([*fields, f"{server}={case.port}", f"{client}={_A_CLIENT_PORT}", *flags])


def resolution_of(hop: Hop) -> str:
    """The ARP request or neighbour solicitation for the next hop, where it has not been answered; empty else."""
    target = hop.next_hop
    if hop.port is None:
        return ""
    mine = [item for item in hop.view.neighbours if item.interface == hop.port.name and item.ip == target]
    if not any(item.state in ("INCOMPLETE", "FAILED") for item in mine):
        return ""
    mac = _source_mac(hop)
    near = next((ip.ip for ip in hop.port.addresses if ip.version == target.version), hop.origin)
    if target.version == 4:
        asked = f"arp,dl_src={mac},dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_sha={mac}"
        return f"{asked},arp_spa={near},arp_tpa={target}"
    group = ipaddress.IPv6Address(int(ipaddress.IPv6Address("ff02::1:ff00:0")) | int(target) & 0xFFFFFF)
    to = "33:33:" + ":".join(f"{byte:02x}" for byte in group.packed[-4:])
    asked = f"icmp6,dl_src={mac},dl_dst={to},ipv6_src={near},ipv6_dst={group},nw_ttl=255"
    return f"{asked},icmpv6_type={_SOLICITATION},icmpv6_code=0,nd_target={target},nd_sll={mac}"


def _source_mac(hop: Hop) -> str:
    assert hop.port is not None
    interface = hop.view.interface(hop.port)
    return interface.mac if interface is not None else hop.port.mac


def target_mac(hop: Hop) -> str:
    """The MAC address that the packet is for on this hop: that of the neighbour table, or of the interface there."""
    assert hop.far is not None
    known = [item for item in hop.view.neighbours if int(item.ip) == int(hop.next_hop) and item.mac]
    interface = hop.case.view(hop.far.node).interface(hop.far)
    return known[0].mac if known else interface.mac if interface is not None else hop.far.mac


def _fields(header: str, text: str) -> Iterator[tuple[str, str]]:
    for field in text.split(","):
        name, _, value = field.partition("=")
        yield f"{header}.{name}", value.partition("/")[0]
