"""Switches that do not pass a frame on: blocked bridge ports, VLANs, and the flows of Open vSwitch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.node import NodePort
from ..graph import leads_to
from .finding import Finding, HopFinder, spot
from .hop import Hop

__all__ = ["BLOCKED", "DAEMONS", "FLOWS", "VLANS"]

_ECHO = {(4, False): 8, (4, True): 0, (6, False): 128, (6, True): 129}
_A_CLIENT_PORT = 49152  # the first of the dynamic ports (RFC 6335)
_TRACKED_ANSWER = "trk,est,rpl"
_BY_HASH = re.compile(r"^Datapath actions: .*\bhash\(.*\brecirc\(", re.MULTILINE)
"""The datapath computes a hash of the packet first; a trace ends there, as if no bucket of a group were live."""
_RULE = re.compile(r"^ ?\d+\. ")


@dataclass(frozen=True)
class _Pass:
    """A frame passes one switch."""

    switch: Any
    into: NodePort
    out: NodePort


def _passes(hop: Hop) -> Iterator[_Pass]:
    ports = hop.wire.switch_ports if hop.wire else ()
    for into, out in zip(ports[::2], ports[1::2], strict=True):
        yield _Pass(into.node, into, out)


def _daemons(hop: Hop) -> Finding | None:
    """Whether Open vSwitch works, and has the ports that the lab gave it."""
    for step in _passes(hop):
        instance, name = getattr(step.switch, "instance", None), step.switch.name
        if instance is None:
            continue
        if ailing := instance.ailing:
            cause, remedy = f"Open vSwitch of {name} does not work: {ailing}", f"see its log: {name}.instance.log(…)"
            return Finding("switch-ended", name, cause, remedy, mark="SWITCH ENDED", port=spot(step.into))
        for port in (step.into, step.out):
            bonded = getattr(port, "bond", None) is not None  # the bond is the port, in the database
            if not bonded and port.name not in hop.case.view(step.switch).port_vlans:
                cause = f"{spot(port)} is not a port of {name} any more"
                remedy = f'attach it again: {name}.vsctl(["add-port", "{name}", "{port.name}"])'
                return Finding("not-a-port", name, cause, remedy, mark="NOT A PORT", port=spot(port))
    return None


def _blocked(hop: Hop) -> Finding | None:
    for step in _passes(hop):
        states = hop.case.view(step.switch).bridge_ports
        for port in (step.into, step.out):
            state = states[port.name].state if port.name in states else "forwarding"
            if state != "forwarding":
                return Finding(
                    "port-blocked",
                    step.switch.name,
                    f"{spot(port)} is in the state {state}: the bridge passes no frames there (IEEE 802.1D)",
                    "see who set it (a spanning tree daemon?), or set it: "
                    f"bridge link set dev {port.name} state 3, in the namespace of the bridge",
                    mark=state.upper(),
                    port=spot(port),
                )
        if all(port.name in states and states[port.name].isolated for port in (step.into, step.out)):
            return Finding(
                "ports-isolated",
                step.switch.name,
                f"{spot(step.into)} and {spot(step.out)} are isolated: the bridge passes nothing from one to the other",
                f"bridge link set dev {step.out.name} isolated off, in the namespace of the bridge",
                mark="ISOLATED",
                port=spot(step.out),
            )
    return None


def _vlans(hop: Hop) -> Finding | None:
    """Follow the VLAN of a frame that leaves the node untagged."""
    tag: int | None = None
    for step in _passes(hop):
        vlans = hop.case.view(step.switch).port_vlans
        into, out = vlans.get(step.into.name), vlans.get(step.out.name)
        if into is None or out is None:
            continue
        what = "an untagged frame" if tag is None else f"a frame of VLAN {tag}"
        inside = into.enters(tag)
        if inside is None:
            return _not_in_vlan(step.into, f"{what} is dropped at {spot(step.into)}, which is {into.words}")
        if not out.passes(inside):
            cause = f"the frame is in VLAN {inside} ({spot(step.into)} is {into.words}), which may not pass "
            return _not_in_vlan(step.out, f"{cause}{spot(step.out)}: that is {out.words}")
        tag = out.leaves(inside)
    if tag is not None and hop.wire is not None:
        last = hop.wire.switch_ports[-1]
        return _not_in_vlan(last, f"{spot(last)} sends it with the tag of VLAN {tag}, which {spot(hop.wire.far)} drops")
    return None


def _not_in_vlan(port: NodePort, cause: str) -> Finding:
    return Finding(
        "vlan",
        port.node.name,
        f"{cause} (IEEE 802.1Q)",
        f"put both ends into one VLAN, or allow it on {port.name}",
        mark="VLAN",
        port=spot(port),
    )


def _flows(hop: Hop) -> Finding | None:
    tag: int | None = None
    for step in _passes(hop):
        if not hasattr(step.switch, "trace"):
            continue
        if finding := _asked(hop, step, _packet(hop, tag), "it"):
            return finding
        if tag is None and (question := _resolution(hop)) and (finding := _asked(hop, step, question, "ARP for it")):
            return finding
        vlans = hop.case.view(step.switch).port_vlans
        into, out = vlans.get(step.into.name), vlans.get(step.out.name)
        inside = into.enters(tag) if into else None
        tag = out.leaves(inside) if out is not None and inside is not None else tag
    return None


def _asked(hop: Hop, step: _Pass, packet: str, what: str) -> Finding | None:
    """What the switch would do with a packet, from its own mouth."""
    told = step.switch.trace(f"in_port={step.into.name},{packet}", tracked=_TRACKED_ANSWER if hop.back else "")
    outputs = _outputs(told)
    if _BY_HASH.search(told):
        told = told.replace("no live bucket", "to one of its buckets, by a hash that the datapath computes")
        spread = _bucket_outputs(step.switch, told)
        outputs |= spread or {step.out.name}  # of a bond: the bonds were looked at already
    if step.out.name in outputs or "in_port" in outputs:
        return None
    others = [port for port in step.switch.ports if port is not step.into and port.name in outputs]
    if any(leads_to(port, hop.wire.far) for port in others if hop.wire):
        return None
    name = step.switch.name
    elsewhere = [port.name for port in others] or [f"its own port {name} (LOCAL)"] * (name in outputs)
    if elsewhere:
        cause = f"{name} sends {what} out by {', '.join(elsewhere)}, not by {step.out.name}"
        kind, mark = "flow-elsewhere", "ELSEWHERE"
    elif "No match" in told:
        cause, kind, mark = f"{name} drops {what}: no flow matches", "no-flow", "NO FLOW"
    else:
        cause, kind, mark = f"{name} drops {what}: {_last_rule(told)}", "flow-drops", "DROPPED BY A FLOW"
    if not elsewhere and (target := _asks_controller(step.switch, told)):
        return _controller(step, target, cause)
    steps = "\n".join(_rules(told))
    return Finding(
        kind,
        name,
        f"{cause}\nofproto/trace of {packet.split(',', maxsplit=1)[0]} from {step.into.name}, rule by rule:\n{steps}",
        f"correct the flows: {name}.flows() lists them with their counters",
        mark=mark,
        port=spot(step.out),
    )


def _asks_controller(switch: Any, told: str) -> str:
    """The controller that decides what becomes of the packet; empty where a flow does, or there is none."""
    target = getattr(getattr(switch, "settings", None), "controller", None) or ""
    return target if "No match" in told or "CONTROLLER" in _last_rule(told) else ""


def _controller(step: _Pass, target: str, cause: str) -> Finding:
    name = step.switch.name
    if step.switch.controller_connected:
        state, remedy = "is connected, and has it do nothing else", f"see what the controller at {target} does with it"
        kind, mark = "controller-silent", "NO FLOW"
    else:
        state, remedy = "is not connected", f"start the controller at {target}, or see why {name} does not reach it"
        kind, mark = "controller-gone", "NO CONTROLLER"
    return Finding(kind, name, f"{cause}; its controller {target} {state}", remedy, mark=mark, port=spot(step.out))


def _packet(hop: Hop, tag: int | None) -> str:
    """The packet as ovs-fields(7) writes it."""
    case, version = hop.case, hop.address.version
    fields = [
        {"icmp": "icmp" if version == 4 else "icmp6"}.get(case.protocol, f"{case.protocol}{'6' * (version == 6)}")
    ]
    fields += [f"dl_vlan={tag}"] if tag is not None else []
    fields += [f"dl_src={_source_mac(hop)}", f"dl_dst={_target_mac(hop)}"]
    source, target = ("nw_src", "nw_dst") if version == 4 else ("ipv6_src", "ipv6_dst")
    fields += [f"{source}={hop.origin}"] if hop.origin is not None else []
    fields += [f"{target}={hop.address}", "nw_ttl=64"]
    if case.protocol == "icmp":
        kind = "icmp_type" if version == 4 else "icmpv6_type"
        return ",".join([*fields, f"{kind}={_ECHO[version, hop.back]}"])
    server, client = (f"{case.protocol}_{end}" for end in (("src", "dst") if hop.back else ("dst", "src")))
    flags = [f"tcp_flags={'syn|ack' if hop.back else 'syn'}"] if case.protocol == "tcp" else []
    return ",".join([*fields, f"{server}={case.port}", f"{client}={_A_CLIENT_PORT}", *flags])


def _resolution(hop: Hop) -> str:
    """The ARP request for the next hop, where it has not been answered; empty else."""
    if hop.port is None or hop.next_hop.version != 4:
        return ""
    mine = [item for item in hop.view.neighbours if item.interface == hop.port.name and item.ip == hop.next_hop]
    if not any(item.state in ("INCOMPLETE", "FAILED") for item in mine):
        return ""
    mac = _source_mac(hop)
    near = next((ip.ip for ip in hop.port.addresses if ip.version == 4), hop.origin)
    asked = f"arp,dl_src={mac},dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_sha={mac}"
    return f"{asked},arp_spa={near},arp_tpa={hop.next_hop}"


def _source_mac(hop: Hop) -> str:
    assert hop.port is not None
    interface = hop.view.interface(hop.port)
    return interface.mac if interface is not None else hop.port.mac


def _target_mac(hop: Hop) -> str:
    assert hop.far is not None
    known = [item for item in hop.view.neighbours if int(item.ip) == int(hop.next_hop) and item.mac]
    interface = hop.case.view(hop.far.node).interface(hop.far)
    return known[0].mac if known else interface.mac if interface is not None else hop.far.mac


def _outputs(told: str) -> set[str]:
    """The ports that a trace ends at; each part of it (after connection tracking, say) has its own line."""
    lines = re.findall(r"^Datapath actions: (.*)$", told, re.MULTILINE)
    return {word for line in lines for word in re.split(r"[,()]", line)}


def _bucket_outputs(switch: Any, told: str) -> set[str]:
    """The ports that the buckets of the groups in a trace output to."""
    groups = set(re.findall(r"^ +group:(\d+)$", told, re.MULTILINE))
    said = switch.ofctl(["-O", "OpenFlow15", "--names", "dump-groups", switch.name]).stdout
    lines = [line for line in said.splitlines() if (found := re.search(r"group_id=(\d+)", line)) and found[1] in groups]
    return {port for line in lines for port in re.findall(r'output:"?([^,"\s]+)', line)}


def _rules(told: str) -> list[str]:
    """The parts of a trace that tell the rules, as they are: what comes after connection tracking has its own part."""
    rules, telling = [], False
    for line in told.splitlines():
        if line.startswith("---"):
            telling = True
        elif line.startswith("Final flow"):
            telling = False
        elif telling and line.strip():
            rules.append(line.rstrip())
    return rules


def _last_rule(told: str) -> str:
    rules = _rules(told)
    at = max((number for number, line in enumerate(rules) if _RULE.match(line)), default=None)
    if at is None:
        return "by none of its flows"
    table, _, match = rules[at].strip().partition(". ")
    actions = " ".join(line.strip() for line in rules[at + 1 :]) or "nothing"
    return f"the flow '{match}' of table {table} says: {actions}"


def _switches(hop: Hop) -> Sequence[str]:
    return list(dict.fromkeys(step.switch.name for step in _passes(hop)))


def _flow_switches(hop: Hop) -> Sequence[str]:
    return list(dict.fromkeys(step.switch.name for step in _passes(hop) if hasattr(step.switch, "trace")))


DAEMONS = HopFinder("", _daemons)
"""Whether the processes of Open vSwitch live: they are asked next."""
BLOCKED = HopFinder("ports", _blocked, _switches)
"""Ports of a Linux bridge that pass nothing."""
VLANS = HopFinder("VLANs", _vlans, _switches)
"""The VLANs that the ports of the switches let pass."""
FLOWS = HopFinder("flows", _flows, _flow_switches)
"""What Open vSwitch says that it would do with the packet."""
