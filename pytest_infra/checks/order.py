"""Whether everything on a way keeps the order of frames, so that a sentinel proves something."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.node import Node
from .autopsy import View
from .graph import Wire

__all__ = ["count_forwarders", "why_unordered"]

_IN_ORDER = {"noqueue", "pfifo", "bfifo", "pfifo_fast", "tbf"}
"""Queueing disciplines that send frames of one priority in the order in which they came (tc(8))."""


def why_unordered(wires: Sequence[Wire]) -> str:
    """What on the way may send frames in another order than they came in, or hold some back; empty for nothing.

    Looked at are the queueing disciplines of all ports on the way, switches whose datapath asks user space about new
    flows, and programs that take packets out of the kernel's hands: packet sockets and netfilter queues.
    """
    ports = {id(port): port for wire in wires for port in wire.ports}.values()
    views = {id(port.node): View(port.node) for port in ports}
    for port in ports:
        interface = views[id(port.node)].interface(port)
        if getattr(port.node, "datapath", "") == "system":
            return f"the kernel datapath of {port.node.name} hands the first packet of a flow to user space"
        if interface is not None and interface.qdisc not in _IN_ORDER:
            return f"the queue of {port.node.name}:{port.name} ({interface.qdisc or 'not known'}) may change the order"
    nodes = list({id(port.node): port.node for wire in wires for port in (wire.near, wire.far)}.values())
    ends = {id(wires[0].near.node), id(wires[-1].far.node)} if wires else set()
    for node in nodes:
        if any(item.kind == "ifb" for item in views[id(node)].interfaces.values()):
            return f"{node.name} has an ifb interface, which may hold frames back"
        if why := _user_space(node, in_between=id(node) not in ends):
            return why
    return ""


def _user_space(node: Node, *, in_between: bool) -> str:
    packet_sockets, queues = node.call(count_forwarders)
    if queues:
        return f"a program in {node.name} takes packets from a netfilter queue"
    if in_between and packet_sockets > 1:  # one is the check's own
        return f"a program in {node.name} has a packet socket and might forward by itself"
    return ""


def count_forwarders() -> tuple[int, int]:
    """How many packet sockets and netfilter queues there are in the calling thread's network namespace (proc(5))."""
    return _count_lines("packet", heading=1), _count_lines("netfilter/nfnetlink_queue", heading=0)


def _count_lines(table: str, heading: int) -> int:
    try:
        with open(f"/proc/thread-self/net/{table}", encoding="ascii", errors="replace") as file:
            return max(0, sum(1 for _ in file) - heading)
    except OSError:  # this kernel has no such thing
        return 0
