"""Flows of Open vSwitch that drop a packet, send it elsewhere, or change it so that nobody takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...core.node import Node
from ..graph import leads_to
from ..obstacles import meters_that_drop
from .finding import Case, EndFinder, Finding, HopFinder, spot
from .hop import Hop, Pass, passes, walk
from .ofproto import Left, Told, ask, packet_of, resolution_of

__all__ = ["FLOWS", "METERS"]


def _flows(hop: Hop) -> Finding | None:
    tag: int | None = None
    for step in passes(hop.wire):
        if not hasattr(step.switch, "trace"):
            continue
        packet = packet_of(hop, tag)
        told = ask(hop, step, packet, tag)
        if finding := _stopped(hop, step, told, packet, "it"):
            return finding
        if tag is None and (question := resolution_of(hop)):
            what = "ARP for it" if hop.next_hop.version == 4 else "the neighbour solicitation for it"
            if finding := _stopped(hop, step, ask(hop, step, question), question, what):
                return finding
        left = told.left_by(step.out.name)
        if why := _not_taken(hop, step, left):
            cause = f"{step.switch.name} changes it: {why}"
            return _finding("flow-changes", step, cause, told, packet, "CHANGED BY A FLOW")
        tag = left.tag
    return None


def _stopped(hop: Hop, step: Pass, told: Told, packet: str, what: str) -> Finding | None:
    """Whether the switch drops it, or sends it where it should not go."""
    outputs = told.outputs | (told.spread or {step.out.name} if told.by_hash else set())  # else of a bond, seen already
    if step.out.name in outputs or "in_port" in outputs:
        return None
    others = [port for port in step.switch.ports if port is not step.into and port.name in outputs]
    if any(leads_to(port, hop.wire.far) for port in others if hop.wire):
        return None
    name = step.switch.name
    elsewhere = [port.name for port in others] or [f"its own port {name} (LOCAL)"] * (name in outputs)
    if elsewhere:
        cause = f"{name} sends {what} out by {', '.join(elsewhere)}, not by {step.out.name}"
        return _finding("flow-elsewhere", step, cause, told, packet, "ELSEWHERE")
    why = told.last_rule if told.matched else "no flow matches"
    cause = f"{name} drops {what}: {why}"
    if target := _asks_controller(step.switch, told):
        return _controller(step, target, cause)
    kind, mark = ("flow-drops", "DROPPED BY A FLOW") if told.matched else ("no-flow", "NO FLOW")
    return _finding(kind, step, cause, told, packet, mark)


def _asks_controller(switch: Any, told: Told) -> str:
    """The controller that decides what becomes of the packet; empty where a flow does, or there is none."""
    target = getattr(getattr(switch, "settings", None), "controller", None) or ""
    return "" if told.matched and "CONTROLLER" not in told.last_rule else target


def _controller(step: Pass, target: str, cause: str) -> Finding:
    name = step.switch.name
    if step.switch.controller_connected:
        state, remedy = "is connected, and has it do nothing else", f"see what the controller at {target} does with it"
        kind, mark = "controller-silent", "NO FLOW"
    else:
        state, remedy = "is not connected", f"start the controller at {target}, or see why {name} does not reach it"
        kind, mark = "controller-gone", "NO CONTROLLER"
    return Finding(kind, name, f"{cause}; its controller {target} {state}", remedy, mark=mark, port=spot(step.out))


def _not_taken(hop: Hop, step: Pass, left: Left) -> str:
    """Why nobody takes the packet as it leaves, where a flow has changed it; empty where it is as it should be."""
    far = hop.far
    if far is None or hop.wire is None:
        return ""
    name = far.node.name
    if left.mac and left.mac not in hop.case.view(far.node).macs and not _is_group(left.mac):
        return f"it is for {left.mac} now, and {name} has no such MAC address"
    if left.tag is not None and hop.wire.switch_ports[-1] is step.out:
        return f"it has the tag of VLAN {left.tag} now, and {spot(far)} drops it"
    if hop.target is far.node:
        return _not_for(hop.target, hop, left)
    if left.ttl is not None and left.ttl <= 1:
        return f"its TTL is {left.ttl} now, and {name} does not forward it"
    return ""


def _not_for(target: Node, hop: Hop, left: Left) -> str:
    name, view = target.name, hop.case.view(target)
    if left.ip and not any(str(item.ip.ip) == left.ip for item in view.addresses):
        return f"it is for {left.ip} now, an address that {name} does not have"
    if left.port and not hop.back and not _listens(hop, target, left.port):
        return f"it is for {hop.case.protocol.upper()} port {left.port} now, and nobody in {name} listens there"
    return ""


def _listens(hop: Hop, node: Node, port: int) -> bool:
    return any(item.protocol == hop.case.protocol and item.port == port for item in hop.case.view(node).listening)


def _is_group(mac: str) -> bool:
    return bool(int(mac.partition(":")[0], 16) & 1)


def _finding(kind: str, step: Pass, cause: str, told: Told, packet: str, mark: str) -> Finding:
    name, steps = step.switch.name, "\n".join(told.rules)
    return Finding(
        kind,
        name,
        f"{cause}\nofproto/trace of {packet.split(',', maxsplit=1)[0]} from {step.into.name}, rule by rule:\n{steps}",
        f"correct the flows: {name}.flows() lists them with their counters",
        mark=mark,
        port=spot(step.out),
    )


def _flow_switches(hop: Hop) -> Sequence[str]:
    return list(dict.fromkeys(step.switch.name for step in passes(hop.wire) if hasattr(step.switch, "trace")))


def _meters(case: Case) -> Finding | None:
    """Meters on the way, there or back, that have dropped packets; whether this one was among them they do not say."""
    there = Hop(case, case.source, case.destination, case.address, case.source_address)
    ways = [there]
    if case.destination is not None and case.source_address is not None:
        ways.append(Hop(case, case.destination, case.sender, case.source_address, case.address, back=True))
    for hop in (hop for way in ways for hop in walk(way)):
        for step in (step for step in passes(hop.wire) if hasattr(step.switch, "trace")):
            told = ask(hop, step, packet := packet_of(hop))
            if told.meters and (said := meters_that_drop(step.switch)):
                cause = f"packets are above a rate of the switch: {'; '.join(said)}"
                found = _finding("metered", step, cause, told, packet, "METERED")
                return replace(found, next=f"give it a higher rate: {step.switch.name}.meter(…)")
    return None


FLOWS = HopFinder("flows", _flows, _flow_switches)
"""What Open vSwitch says that it would do with the packet."""
METERS = EndFinder("", _meters)
"""What the meters of Open vSwitch on the way have dropped."""
