"""`assert_multicast`: datagrams to a group reach those who joined it (RFC 1112, RFC 3810), and nobody else."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.node import IPAddress, Node
from ..core.report import Report, explain
from ..core.sockets import close_in_background
from ..core.units import format_duration
from .answer import Carried
from .arguments import check_count, check_hop_limit, check_port, seconds
from .autopsy import filtered
from .reach import measure_reach
from .rule_trace import RuleDrop, RuleTrace
from .tap import Tap

__all__ = ["MulticastReport", "assert_multicast", "measure_multicast"]

_JOIN_V4 = socket.IP_ADD_MEMBERSHIP
_ROUND_S = 0.3
_UNWANTED_S = 0.2  # how long to look for what should not come, after all that should has


@dataclass(frozen=True)
class MulticastReport(Report):
    """Who got the datagrams that a node sent to a group."""

    kind: ClassVar[str] = "multicast"

    sender: str
    group: str
    port: int
    ttl: int
    sent: int
    arrived: Mapping[str, int]
    """How many each of those who joined got."""
    unwanted: Mapping[str, int]
    """How many came to the interfaces of each of those who should have seen none."""
    within_s: float
    refusal: str = ""
    """Why the sender's kernel did not send."""
    advice: tuple[tuple[str, str], ...] = ()
    """Rows that say why the first of those who got too few did."""

    @property
    def ok(self) -> bool:
        """Whether all came to all who joined, and none to the others."""
        return not self.refusal and all(n == self.sent for n in self.arrived.values()) and not any(self._others())

    def _others(self) -> list[int]:
        return list(self.unwanted.values())

    def explain(self) -> str:
        """How many came to whom."""
        counts = ", ".join(f"{name} {count}" for name, count in {**self.arrived, **self.unwanted}.items())
        where = f"{self.group} port {self.port}"
        if self.ok:
            verdict = f"{self.sender}: all {self.sent} datagrams to {where} came to {', '.join(self.arrived)}"
            return explain(verdict, [("measured", counts)])
        missing = [name for name, count in self.arrived.items() if count < self.sent]
        verdict = f"{self.sender}: datagrams to {where} do not come to {', '.join(missing)}"
        if not missing:
            strangers = [name for name, count in self.unwanted.items() if count]
            verdict = f"{self.sender}: datagrams to {where} come to {', '.join(strangers)} too"
        rows = [
            ("measured", f"{self.sent} sent with a TTL of {self.ttl}; arrived: {counts}"),
            ("wanted", f"all at those who joined, within {format_duration(self.within_s)}; none at others"),
        ]
        return explain(verdict, [*rows, *self.advice])


def measure_multicast(
    sender: Node,
    group: str,
    receivers: Sequence[Node],
    *,
    not_to: Sequence[Node] = (),
    port: int = 5007,
    count: int = 3,
    ttl: int = 64,
    within: str | float = "2 s",
) -> MulticastReport:
    """Have nodes join a group and report who gets what is sent to it; `assert_multicast` takes the same and judges."""
    address, within_s = _group(group), seconds("within", within)
    check_port(port), check_count(count), check_hop_limit("ttl", ttl)
    if not receivers:
        raise BadInput("receivers names nobody: who shall get the datagrams?")
    for node in (sender, *receivers, *not_to):
        if not getattr(node, "ports", ()):
            raise BadInput(f"{node!r} has no link, and so no part in multicast")
    refusal, arrived, unwanted, drops = _send_until(
        sender, receivers, not_to, _Wanted(address, port, ttl, count), time.monotonic() + within_s
    )
    report = MulticastReport(
        sender.name, group, port, ttl, count, arrived, unwanted, within_s=within_s, refusal=refusal
    )
    if report.ok:
        return report
    few = next((one for one in receivers if arrived[one.name] < count), None)
    drop = next((drop for drop in drops if few is not None and drop.node in (sender.name, few.name)), None)
    if drop is not None:
        finding = filtered(drop, "the datagrams")
        return replace(report, advice=(("cause", finding.cause), ("next", finding.next)))
    return replace(report, advice=tuple(_advice(sender, few, address.version, ttl, refusal)))


@dataclass(frozen=True)
class _Wanted:
    """What is sent."""

    group: IPAddress
    port: int
    ttl: int
    count: int

    def carried_by(self, packet: bytes) -> Carried:
        """Whether an IP packet is for the group."""
        at = 16 if self.group.version == 4 else 24
        mine = packet[:1] and packet[0] >> 4 == self.group.version
        return "request" if mine and packet[at : at + len(self.group.packed)] == self.group.packed else None


def _send_until(
    sender: Node, receivers: Sequence[Node], not_to: Sequence[Node], wanted: _Wanted, deadline: float
) -> tuple[str, dict[str, int], dict[str, int], list[RuleDrop]]:
    """Send again and again until all has come.

    Returns why it was not sent, what came of the last time, to whom besides, and which firewall rules dropped it.
    """
    with ExitStack() as stack:
        rules = stack.enter_context(RuleTrace([sender, *receivers], wanted.carried_by))
        joined = {one.name: stack.enter_context(one.call(_join, wanted, _links(one))) for one in receivers}
        strangers = {one.name: one.call(Tap) for one in not_to}
        stack.callback(close_in_background, list(strangers.values()))
        while True:
            token = os.urandom(8)
            refusal = sender.call(_send, wanted, _links(sender)[0], token)
            last = time.monotonic() + _ROUND_S
            arrived = {name: _count(sock, token, wanted.count, last) for name, sock in joined.items()}
            if all(number == wanted.count for number in arrived.values()) or time.monotonic() >= deadline:
                break
        last = time.monotonic() + _UNWANTED_S
        unwanted = {name: _seen(tap, token, last) for name, tap in strangers.items()}
        return refusal, arrived, unwanted, rules.drops()


def _advice(sender: Node, receiver: Node | None, version: int, ttl: int, refusal: str) -> list[tuple[str, str]]:
    if refusal:
        cause = f"the kernel of {sender.name} does not send it: {refusal}"
        return [("cause", cause), ("next", f"look at the routes and the rules of {sender.name}")]
    if receiver is None:
        cause = "a switch floods what it knows no member of, or a router passes it on"
        return [("cause", cause), ("next", "have the switch look at who joins: its multicast snooping (IGMP, MLD)")]
    reached = measure_reach(sender, receiver, family="ipv4" if version == 4 else "ipv6")
    if not reached.ok and reached.autopsy is not None:
        return reached.autopsy.rows()
    networks = [{ip.network for port in end.ports for ip in port.addresses} for end in (sender, receiver)]
    if not networks[0] & networks[1]:
        word = ", and the TTL of 1 ends at the first one" if ttl == 1 else ""
        cause = f"{receiver.name} is in another subnet: routers pass multicast only where a daemon tells them to{word}"
        return [
            ("cause", cause),
            ("next", 'route multicast: lab.router(daemons=["pimd"], config=…), and a TTL above 1'),
        ]
    cause = f"{sender.name} reaches {receiver.name} by unicast, so only the group's datagrams are lost"
    step = "look at packet filters (nft list ruleset) and at the multicast snooping of switches in between"
    return [("cause", cause), ("next", step)]


def _group(group: str) -> IPAddress:
    address: IPAddress | None
    try:
        address = ip_address(group)
    except ValueError:
        address = None
    if address is None or not address.is_multicast:
        raise BadInput(f"{group!r} is the address of no multicast group: those are of 224.0.0.0/4 and ff00::/8")
    return address


def _links(node: Node) -> list[str]:
    return [port.name for port in node.ports]


def _join(wanted: _Wanted, interfaces: Sequence[str]) -> socket.socket:
    """A socket that gets what is for the group, in the calling thread's namespace."""
    group = wanted.group
    family = socket.AF_INET if group.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for index in map(socket.if_nametoindex, interfaces):
            if group.version == 4:
                sock.setsockopt(socket.IPPROTO_IP, _JOIN_V4, struct.pack("=4s4si", group.packed, bytes(4), index))
            else:
                member = struct.pack("=16si", group.packed, index)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
        sock.bind((str(group), wanted.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _seen(tap: Tap, token: bytes, deadline: float) -> int:
    """How many datagrams with the token come to any interface of a node until the deadline."""
    seen = 0
    while (left_s := deadline - time.monotonic()) > 0 and tap.wait(left_s):
        seen += sum(token in frame.payload for frame in tap.frames() if not frame.outgoing)
    return seen


def _send(wanted: _Wanted, interface: str, token: bytes) -> str:
    """Send the datagrams; why the kernel refuses to, else an empty text."""
    group, ttl = wanted.group, wanted.ttl
    index = socket.if_nametoindex(interface)
    with socket.socket(socket.AF_INET if group.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        if group.version == 4:
            by = struct.pack("=4s4si", bytes(4), bytes(4), index)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, by)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
        for number in range(wanted.count):
            try:
                sock.sendto(token + number.to_bytes(4, "big"), (str(group), wanted.port))
            except OSError as error:
                return error.strerror or str(error)
    return ""


def _count(sock: socket.socket, token: bytes, wanted: int, deadline: float) -> int:
    """How many different datagrams with the token came until the deadline, or until all that are wanted did."""
    seen: set[bytes] = set()
    while len(seen) < wanted and (left_s := deadline - time.monotonic()) > 0:
        sock.settimeout(left_s)
        try:
            data = sock.recv(65_535)
        except TimeoutError:
            break
        if data.startswith(token):
            seen.add(data)
    return len(seen)


def assert_multicast(
    sender: Node,
    group: str,
    receivers: Sequence[Node],
    *,
    not_to: Sequence[Node] = (),
    port: int = 5007,
    count: int = 3,
    ttl: int = 64,
    within: str | float = "2 s",
) -> MulticastReport:
    """Check that datagrams to a group come to all who join it, and to nobody named in `not_to`.

    Args:
        sender: sends by the link of its first address.
        group: the group's address, such as ``"239.1.2.3"`` or ``"ff05::1:3"``.
        receivers: who joins, on all of their links.
        not_to: nodes that do not join, and to whose interfaces no datagram shall come, not even to be dropped there.
        port: the UDP port.
        count: how many datagrams.
        ttl: how many hops they may go.
        within: send again until then, as routers and switches learn of members after a while.

    Raises:
        BadInput: an argument that cannot be.
        CheckFailed: one was lost, or came to somebody else; the text says why.
    """
    __tracebackhide__ = True
    options: dict[str, Any] = {"not_to": not_to, "port": port, "count": count, "ttl": ttl, "within": within}
    report = measure_multicast(sender, group, receivers, **options)
    report.demand()
    return report
