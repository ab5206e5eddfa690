"""Switches that do not pass a frame on: blocked bridge ports, VLANs, daemons that have ended."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.node import NodePort
from ..graph import Wire
from .finding import Finding, HopFinder, spot
from .hop import Hop, Pass, passes
from .ofproto import Left, ask, packet_of, target_mac

__all__ = ["BLOCKED", "DAEMONS", "VLANS", "vlan_on"]


def _daemons(hop: Hop) -> Finding | None:
    """Whether Open vSwitch works, and has the ports that the lab gave it."""
    for step in passes(hop.wire):
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
    for step in passes(hop.wire):
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
        if finding := _not_flooded(hop, step) or _forwarded_elsewhere(hop, step):
            return finding
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


def _not_flooded(hop: Hop, step: Pass) -> Finding | None:
    """Whether a port keeps back what asks for a neighbour, and that is still asked for."""
    port = hop.case.view(step.switch).bridge_ports.get(step.out.name)
    version = hop.next_hop.version
    if port is None or hop.port is None or hop.next_hop not in hop.view.unresolved(hop.port.name):
        return None
    if port.asks_all[version == 6]:
        return None
    what, setting = ("broadcasts, such as ARP", "bcast_flood") if version == 4 else ("multicasts", "mcast_flood")
    return Finding(
        "not-flooded",
        step.switch.name,
        f"{spot(step.out)} sends no {what}: {setting} is off (bridge(8)), and {hop.node.name} asks for {hop.next_hop}",
        f"bridge link set dev {step.out.name} {setting} on, in the namespace of the bridge",
        mark="NOT FLOODED",
        port=spot(step.out),
    )


def _forwarded_elsewhere(hop: Hop, step: Pass) -> Finding | None:
    """Whether the bridge sends what is for the far MAC address out by another port, or by none."""
    view = hop.case.view(step.switch)
    if hop.far is None or step.out.name not in view.bridge_ports:
        return None
    mac, name, out = target_mac(hop), step.switch.name, spot(step.out)
    if mac not in hop.case.view(hop.far.node).macs:
        return None  # the sender is wrong about whose it is, which another finder tells
    known = [(port, entry.kind) for port, entry in view.forwarding_database if entry.mac == mac]
    asked = hop.port is not None and hop.next_hop in hop.view.unresolved(hop.port.name)
    if not known and not asked and not view.bridge_ports[step.out.name].floods:
        cause = f"{out} sends nothing to MAC addresses that {name} has not learned: flood is off (bridge(8)), "
        cause += f"and it has not learned {mac} of {hop.far.node.name}"
        remedy = f"bridge link set dev {step.out.name} flood on, in the namespace of the bridge"
        return Finding("not-flooded", name, cause, remedy, mark="NOT FLOODED", port=out)
    if not known or any(port == step.out.name and kind != "local" for port, kind in known):
        return None
    port, kind = known[0]
    does = "keeps such frames to itself" if kind == "local" else f"sends such frames by {port}, not by {step.out.name}"
    cause = f"{name} has a {kind} entry (bridge(8), fdb) for {mac} of {hop.far.node.name} at {port}: it {does}"
    remedy = f"bridge fdb del {mac} dev {port} master, in the namespace of the bridge"
    return Finding("fdb-elsewhere", name, cause, remedy, mark="ELSEWHERE", port=spot(step.into))


def _vlans(hop: Hop) -> Finding | None:
    return vlan_on(hop, hop.wire) if hop.wire is not None else None


def vlan_on(hop: Hop, wire: Wire) -> Finding | None:
    """Follow the VLAN of a frame that leaves the node untagged by a wire."""
    tag: int | None = None
    by_flows = False
    for step in passes(wire):
        vlans = hop.case.view(step.switch).port_vlans
        into, out = vlans.get(step.into.name), vlans.get(step.out.name)
        if into is None or out is None:
            continue
        inside = into.enters(tag)
        if (left := _left_by_flows(hop, step, tag)) is not None:
            by_flows = inside is None or out.leaves(inside) != left.tag
            tag = left.tag
            continue
        what = "an untagged frame" if tag is None else f"a frame of VLAN {tag}"
        if inside is None:
            return _not_in_vlan(step.into, f"{what} is dropped at {spot(step.into)}, which is {into.words}")
        if not out.passes(inside):
            cause = f"the frame is in VLAN {inside} ({spot(step.into)} is {into.words}), which may not pass "
            return _not_in_vlan(step.out, f"{cause}{spot(step.out)}: that is {out.words}")
        tag, by_flows = out.leaves(inside), False
    if tag is not None and not by_flows:  # what flows do is told by their finder
        last = wire.switch_ports[-1]
        return _not_in_vlan(last, f"{spot(last)} sends it with the tag of VLAN {tag}, which {spot(wire.far)} drops")
    return None


def _left_by_flows(hop: Hop, step: Pass, tag: int | None) -> Left | None:
    """The frame as an Open vSwitch passes it on, whatever its ports say: flows that name a port heed no VLANs."""
    if hop.far is None or not hasattr(step.switch, "trace"):
        return None
    told = ask(hop, step, packet_of(hop, tag), tag)
    return told.left_by(step.out.name) if step.out.name in told.outputs else None


def _not_in_vlan(port: NodePort, cause: str) -> Finding:
    return Finding(
        "vlan",
        port.node.name,
        f"{cause} (IEEE 802.1Q)",
        f"put both ends into one VLAN, or allow it on {port.name}",
        mark="VLAN",
        port=spot(port),
    )


def _switches(hop: Hop) -> Sequence[str]:
    return list(dict.fromkeys(step.switch.name for step in passes(hop.wire)))


DAEMONS = HopFinder("", _daemons)
"""Whether the processes of Open vSwitch live: they are asked next."""
BLOCKED = HopFinder("ports", _blocked, _switches)
"""Ports of a Linux bridge that pass nothing."""
VLANS = HopFinder("VLANs", _vlans, _switches)
"""The VLANs that the ports of the switches let pass."""
