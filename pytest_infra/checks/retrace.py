"""A second probe after the first has failed, to see how far it gets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ..core.errors import InfraError
from ..core.node import Node
from ..net.messages import delete_neighbour
from ..net.netlink import NetlinkError
from .answer import Answer
from .autopsy import View, planned_wires
from .drop_reason import DropReasons
from .follow import Follow
from .graph import Wire, node_having, nodes_of
from .outcome import Outcome
from .probe_icmp import EchoProbe, echo
from .probe_tcp import TcpProbe, connect
from .probe_udp import UdpProbe, ask
from .request import Request
from .rule_trace import RuleTrace, Traced
from .serve import serving
from .target import Ends
from .translation import translation_of

__all__ = ["make_probe", "not_followed", "retrace", "send_from_afar"]

_AT_MOST_S = 1.0
_MOST_ROUTERS = 64


def make_probe(
    ends: Ends, request: Request, port: int | None, listener: socket.socket | None
) -> EchoProbe | TcpProbe | UdpProbe:
    """The one probe that the request asks for, not sent yet; the caller closes it."""
    address, source = str(ends.address), ends.bind_to
    if request.protocol == "icmp":
        size, fixed = request.size, request.dont_fragment
        return ends.source.call(EchoProbe, address, source=source, size=size, dont_fragment=fixed)
    assert port is not None
    if request.protocol == "tcp":
        return ends.source.call(TcpProbe, address, port, source=source, listener=listener)
    return ends.source.call(UdpProbe, address, port, payload=request.payload, source=source, listener=listener)


def not_followed(ends: Ends) -> Outcome:
    """The outcome of a probe from another kernel, whose clock and sockets are not this one's."""
    return Outcome("unproven", why=f"a probe from {ends.source.name}, which has its own kernel, is not followed")


def send_from_afar(ends: Ends, request: Request, port: int | None, listener: Any) -> Answer | None:
    """Send one probe from a node with another kernel, and wait for its answer there; None where there was none."""
    address, options = str(ends.address), {"within_s": request.within_s, "source": ends.bind_to}
    if request.protocol == "icmp":
        answer = ends.source.call(echo, address, **options).answers[0]
    elif request.protocol == "tcp":
        answer = ends.source.call(connect, address, port, listener=listener, **options)
    else:
        answer = ends.source.call(ask, address, port, payload=request.payload, listener=listener, **options).answer
    return None if answer.kind == "silence" else answer


def retrace(ends: Ends, request: Request, answer: Answer) -> Outcome:
    """Send one more probe and follow it, for a second at most; it never raises.

    Where the first probe met with silence, it is followed from node to node. Firewall rules and the kernel's reasons
    for dropping packets are watched in any case. A server's own UDP port gets no second datagram, unless the
    request is repeatable: the server might act on it.

    Args:
        ends: where the probe comes from and goes to.
        request: what to send.
        answer: what the first probe met with.
    """
    if request.protocol == "udp" and not (request.serve or request.repeatable):
        return Outcome("unproven", why="a UDP server gets no second datagram")
    if getattr(ends.source, "remote", False):
        return not_followed(ends)
    if request.serve and request.protocol == "udp" and getattr(ends.destination, "remote", False):
        return Outcome("unproven", why="the check's own server is in another kernel")
    try:
        with ExitStack() as stack:
            listener = stack.enter_context(serving(ends, request.protocol, request.port)) if request.serve else None
            port = request.port if listener is None else int(listener.getsockname()[1])
            probe = make_probe(ends, request, port, listener)
            stack.enter_context(probe)
            rules = stack.enter_context(
                RuleTrace([*_nodes_watched(ends, request.protocol, port), *_bridges(ends)], probe.carried_by)
            )
            if answer.kind == "silence":
                by_kernel = request.protocol != "udp"
                follow = stack.enter_context(Follow(ends, probe, kernel_answers=by_kernel, served=request.serve))
            elif rules.watching:
                follow = None
            else:
                return Outcome("unproven", why="it was refused", blind=tuple(rules.blind))
            if rules.watching:
                _forget_unresolved(ends)
            return _send(probe, follow, rules)
    except (InfraError, OSError) as error:
        return Outcome("unproven", why=str(error))


def _send(probe: EchoProbe | TcpProbe | UdpProbe, follow: Follow | None, rules: RuleTrace) -> Outcome:
    """Send the probe, and tell what became of it."""
    with DropReasons() as dropped:
        probe.send()
        reasons = dropped.stop()
    deadline = time.monotonic() + _AT_MOST_S
    outcome = _refused(probe, deadline) if follow is None else follow.run(deadline)
    drops = rules.drops()
    own = tuple(drop for drop in drops if drop.what in ("request", "reply"))
    others = tuple(drop for drop in drops if drop not in own)
    outcome = replace(outcome, reasons=tuple(reasons), no_reasons=dropped.blind)
    return replace(outcome, rules=own, besides=others, blind=tuple(rules.blind))


def _forget_unresolved(ends: Ends) -> None:
    """Let the kernels ask anew for neighbours that have not answered, while it is watched what becomes of that.

    They would do so once a second only (RFC 4861, 10). Nothing is lost but the entry that says so.
    """
    for wire in _wires(ends):
        port, view = wire.near, View(wire.near.node)
        if (interface := view.interface(port)) and (waiting := view.unresolved(port.name)):
            with suppress(NetlinkError), port.node.namespace.netlink() as netlink:  # somebody else was faster
                for ip in waiting:
                    netlink.request([(delete_neighbour(interface.index, ip), f"forget the neighbour {ip}")])


def _wires(ends: Ends) -> list[Wire]:
    """The planned way there and back."""
    if ends.destination is None:
        return []
    version = ends.address.version
    there = planned_wires(ends.source, ends.destination, version)
    return [*there, *planned_wires(ends.destination, ends.source, version)]


@dataclass(frozen=True)
class _Bridge:
    """A Linux bridge, as somewhere that has rules."""

    switch: Any

    @property
    def name(self) -> str:
        return str(self.switch.name)

    @property
    def interfaces(self) -> Mapping[str, object]:
        return dict(self.switch.interfaces)

    @property
    def call(self) -> Callable[..., Any]:
        call: Callable[..., Any] = self.switch.namespace.call
        return call


def _bridges(ends: Ends) -> list[Traced]:
    """The Linux bridges on the planned way there and back that are in no host."""
    switches = (port.node for wire in _wires(ends) for port in wire.switch_ports)
    there = {id(one): one for one in switches if getattr(one, "kind", "") == "bridge" and one.host is None}
    return [_Bridge(one) for one in there.values()]


def _nodes_watched(ends: Ends, protocol: str, port: int | None) -> list[Node]:
    """The nodes of the planned way there and back, both ends among them, the other routers, and who is behind them."""
    nodes = [ends.source]
    if ends.destination is not None:
        nodes += [ends.destination, *(wire.far.node for wire in _wires(ends))]
    for near, far in _carriers(ends):
        nodes += [near, far, *(wire.far.node for version in (4, 6) for wire in planned_wires(near, far, version))]
    routers = (node for node in nodes_of(ends.source) if getattr(node, "forwards", False))
    nodes += islice(routers, _MOST_ROUTERS)
    for node in {id(node): node for node in nodes}.values():
        there = translation_of(node, protocol, ends.address, port) if port is not None else None
        if there is not None and (target := node_having(node, there.address)) is not None:
            nodes += [target, *(wire.far.node for wire in planned_wires(node, target, ends.address.version))]
    return [node for node in nodes if not getattr(node, "remote", False)]  # rules in another kernel are not watched


def _carriers(ends: Ends) -> Iterator[tuple[Node, Node]]:
    """The hosts at both ends of each tunnel on the planned way."""
    for port in (port for wire in _wires(ends) for port in wire.ports):
        if getattr(getattr(port, "link", None), "endpoints", ()):
            near, far = (getattr(end.node, "host", None) for end in (port, port.peer))
            if near is not None and far is not None:
                yield near, far


def _refused(probe: EchoProbe | TcpProbe | UdpProbe, deadline: float) -> Outcome:
    """The outcome of a probe that is refused again; the rules have been told of by then."""
    answer = probe.answer(deadline)
    return Outcome("answered" if answer is not None and answer.replied else "unproven", why="it was refused")
