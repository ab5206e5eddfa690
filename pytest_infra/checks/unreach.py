"""`assert_unreachable`: packets do not come through, proven and not just waited for."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count
from math import ceil, log
from typing import Any, ClassVar, Final, Literal

from ..core.errors import BadInput
from ..core.node import Node
from ..core.report import Report, explain
from ..core.units import format_duration
from .answer import Answer
from .autopsy import View
from .follow import Follow
from .graph import same_address
from .obstacles import both_ways, delay_s, lost_part
from .outcome import Outcome, Status
from .probe_icmp import EchoProbe
from .probe_tcp import TcpProbe
from .probe_udp import UdpProbe
from .request import NOUNS, Protocol, Request, check_request, service
from .retrace import make_probe, not_followed, send_from_afar
from .serve import serving
from .target import Ends, Family, Target, choose_ends

__all__ = ["Proof", "UnreachableReport", "assert_unreachable", "measure_unreachable"]

Proof = Literal["answer", "sentinel", "state", "timeout"]
"""``answer``: an ICMP error, a TCP reset, a refusal by the sender's kernel, or an answer after all. ``sentinel``:
frames that were sent behind the probe arrived, and it did not. ``state``: an interface on the way is down or has no
carrier. ``timeout``: nothing came in time; slower and weaker than the others."""


_UNLIKELY = 1e-3
_MOST_TRIES = 20
_HOST_UNREACHABLE = {4: (3, 1), 6: (1, 3)}
_PROOFS: Final[Mapping[Status, Proof]] = {"lost": "sentinel", "down": "state"}


@dataclass(frozen=True)
class UnreachableReport(Report):
    """Whether a probe from one node to another stayed without the answer that it asks for; times in seconds."""

    kind: ClassVar[str] = "unreachable"

    source: str
    destination: str
    address: str
    protocol: Protocol
    port: int | None
    served: bool
    """Whether the check itself listened at the destination."""
    within_s: float
    answer: Answer
    proof: Proof
    place: str
    """Where the probe or its answer was lost, or who refused it; empty when that is not known."""
    why: str
    """Why there was no better proof than a timeout, or which interface is down."""
    undecided: bool
    """Whether silence proves nothing here: a UDP server may have taken the datagram."""
    elapsed_s: float
    tries: int = 1
    """How many probes were sent; several where the lab's own links lose packets by chance."""
    chance: float = 0.0
    """How likely it is that those links lost all of them, 0 to 1."""
    delay_s: float = 0.0
    """How long those links delay an answer."""
    closed: bool = False
    """Whether the target itself refused, as nothing listens there: then the probe did reach it."""

    @property
    def ok(self) -> bool:
        """Whether the probe was not answered, and that is proven as well as can be."""
        return not (self.answer.replied or self.undecided or self.closed or self._doubt())

    def _doubt(self) -> str:
        """Why the lab itself may have kept an answer away that would come without its impairments."""
        if self.proof == "state" or not _may_be_chance(self.answer):
            return ""
        if self.chance > _UNLIKELY:
            probes = "one probe is" if self.tries == 1 else f"{self.tries} probes in a row are"
            return f"its links lose packets, and so {probes} not answered in {100 * self.chance:.2g} % of all cases"
        if self.delay_s >= self.within_s:
            return f"its links delay an answer for {format_duration(self.delay_s)}"
        return ""

    def explain(self) -> str:
        """The verdict, what was measured and wanted, and what it rests on."""
        noun, where = NOUNS[self.protocol], service(self.address, self.protocol, self.port)
        elapsed = format_duration(self.elapsed_s)
        wanted = f"no answer from {where}"
        if self.undecided:
            return explain(
                f"it cannot be told whether {self.source} reaches {self.destination}: {where} stays silent",
                [
                    ("measured", f"1 {noun} sent, no answer in {elapsed}"),
                    ("wanted", wanted),
                    ("cause", f"a UDP server may take a datagram and stay silent{self._delivery()}"),
                    ("next", "name a payload= that the server answers, or test only the network with serve=True"),
                ],
            )
        if self.closed:
            return self._closed_port(noun, wanted)
        if doubt := self._doubt():
            return self._undecided_by_the_lab(doubt, noun, wanted)
        if self.ok:
            proof = f"{self.proof}{f' at {self.place}' if self.place else ''}{f' ({self.why})' if self.why else ''}"
            return explain(
                f"{self.source} cannot reach {self.destination}: {self.answer}",
                [
                    ("measured", f"{self.tries} {noun}{'s' * (self.tries > 1)} sent, {self.answer}, after {elapsed}"),
                    ("wanted", wanted),
                    ("proof", proof),
                ],
            )
        return explain(
            f"{self.source} reaches {self.destination}, which should be out of reach: {where} answered",
            [
                (
                    "measured",
                    f"1 {noun} answered in {format_duration(self.answer.rtt_s or 0.0)}",
                ),
                ("wanted", wanted),
                ("next", f"see by which way: print(traceroute({self.source}, {self.destination}))"),
            ],
        )

    def _closed_port(self, noun: str, wanted: str) -> str:
        return explain(
            f"{self.source} reaches {self.destination}, which should be out of reach: it refused by itself",
            [
                ("measured", f"1 {noun} sent, {self.answer}, after {format_duration(self.elapsed_s)}"),
                ("wanted", wanted),
                ("cause", f"nothing listens on {self.protocol.upper()} port {self.port} of {self.destination}"),
                ("next", "test the network alone with serve=True; that a port is closed, assert_reachable says"),
            ],
        )

    def _undecided_by_the_lab(self, doubt: str, noun: str, wanted: str) -> str:
        probes = f"{self.tries} {noun}{'s' * (self.tries > 1)}"
        return explain(
            f"it cannot be told whether {self.source} reaches {self.destination}: the lab itself impairs the way",
            [
                ("measured", f"{probes} sent, no answer in {format_duration(self.elapsed_s)}"),
                ("wanted", wanted),
                ("cause", doubt),
                ("next", "take them away: link.clear(); or allow for a delay: a longer within="),
            ],
        )

    def _delivery(self) -> str:
        return f"; it arrived at {self.place}, whose firewall may have dropped it" if self.place else ""


def measure_unreachable(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    protocol: Protocol = "icmp",
    port: int | None = None,
    serve: bool = False,
    payload: bytes | None = None,
    family: Family | None = None,
    within: str | float = "1 s",
) -> UnreachableReport:
    """Send one probe and prove what became of it; `assert_unreachable` takes the same and judges."""
    request = check_request(protocol, port, serve, payload, within)
    ends = choose_ends(a, b, family)
    started = time.monotonic()
    ways = both_ways(ends.source, ends.destination) if ends.destination is not None else []
    lost = _lost_probes(lost_part(ways))
    _check_source(ends)
    _check_single(ends)
    tries, port, answer, outcome = _send_until_told(ends, request, _tries(lost))
    proof = _PROOFS.get(outcome.status, "timeout") if answer is None else "answer"
    return UnreachableReport(
        source=ends.source.name,
        destination=ends.destination_name,
        address=str(ends.address),
        protocol=protocol,
        port=port,
        served=request.serve,
        within_s=request.within_s,
        answer=answer or Answer("silence"),
        proof=proof,
        place=outcome.place if answer is None else answer.sender,
        why=outcome.why,
        undecided=proof == "timeout" and protocol == "udp" and not request.serve and payload is None,
        elapsed_s=time.monotonic() - started,
        tries=tries,
        chance=lost**tries if lost < 1 else 0.0,
        delay_s=delay_s(ways),
        closed=_refused_by_closed_port(ends, request, answer),
    )


def _check_source(ends: Ends) -> None:
    """An address that the source does not have cannot be sent from: that says nothing of the way."""
    wanted = ends.source_address
    if wanted is not None and not any(item.ip.ip == wanted for item in ends.source.addresses):
        have = ", ".join(str(item.ip.ip) for item in ends.source.addresses if item.scope != "host") or "none"
        raise BadInput(f"{ends.source.name} has no address {wanted} to send from; it has {have}")


def _check_single(ends: Ends) -> None:
    """A packet to many is refused by the sender's own kernel, or answered by nobody, whatever the network does."""
    mine = [item.ip.network for item in ends.source.addresses if item.ip.version == 4]
    to_all = {ip_address("255.255.255.255"), *(net.broadcast_address for net in mine if net.prefixlen < 31)}
    if ends.address.is_multicast or ends.address in to_all:
        raise BadInput(f"the target {ends.address} is a broadcast or multicast address; give that of one node")


def _refused_by_closed_port(ends: Ends, request: Request, answer: Answer | None) -> bool:
    """Whether the target itself refused, for nothing listens there: then the probe did reach it."""
    if answer is None or request.serve or request.port is None or ends.destination is None:
        return False
    error = answer.icmp
    itself = answer.kind == "reset" or (error is not None and error.port_unreachable)
    if not itself or not same_address(ip_address(answer.sender), ends.address):
        return False
    sockets = View(ends.destination).listening
    return not any(item.protocol == request.protocol and item.port == request.port for item in sockets)


def _send_until_told(ends: Ends, request: Request, most: int) -> tuple[int, int | None, Answer | None, Outcome]:
    """Send probes until one shows more than what chance does, `most` at most; how many, and the last one's outcome."""
    for tries in count(1):
        port, answer, outcome = _send(ends, request)
        told = outcome.status == "down" or (answer is not None and not _may_be_chance(answer))
        if told or tries >= most:
            break
    return tries, port, answer, outcome


def _may_be_chance(answer: Answer) -> bool:
    """Whether lost packets may be all that is behind it: silence, or a neighbour that was not resolved in time."""
    error = answer.icmp
    unresolved = error is not None and (error.type, error.code) == _HOST_UNREACHABLE[error.version]
    return answer.kind == "silence" or answer.errno == errno.EHOSTUNREACH or unresolved


def _lost_probes(lost: float) -> float:
    """The part of the probes that go unanswered where links lose packets: a probe may need its neighbours resolved."""
    return float(1 - (1 - lost) ** 2)


def _tries(lost: float) -> int:
    """How many probes it takes until losing all of them is unlikely; one where chance does not decide, or too often."""
    if not 0 < lost < 1:
        return 1
    wanted = ceil(log(_UNLIKELY) / log(lost))
    return wanted if wanted <= _MOST_TRIES else 1


def _send(ends: Ends, request: Request) -> tuple[int | None, Answer | None, Outcome]:
    """Send the probe and settle what becomes of it; with the port that it was sent to."""
    with ExitStack() as stack:
        listener = stack.enter_context(serving(ends, request.protocol, request.port)) if request.serve else None
        port = request.port if listener is None else int(listener.getsockname()[1])
        if getattr(ends.source, "remote", False):
            return port, send_from_afar(ends, request, port, listener), not_followed(ends)
        probe = make_probe(ends, request, port, listener)
        stack.enter_context(probe)
        by_kernel = request.protocol != "udp"
        follow = stack.enter_context(Follow(ends, probe, kernel_answers=by_kernel, served=request.serve))
        deadline = time.monotonic() + request.within_s
        probe.send()
        answer, outcome = _settle(probe, follow, deadline)
    return port, answer, outcome


def _settle(probe: EchoProbe | TcpProbe | UdpProbe, follow: Follow, deadline: float) -> tuple[Answer | None, Outcome]:
    """The answer at once, else the proof that none will come, else what comes until the deadline."""
    if answer := probe.answer(time.monotonic()):
        return answer, Outcome("answered")
    outcome = follow.run(deadline)
    if outcome.status in ("lost", "down", "answered"):
        return probe.answer(time.monotonic()), outcome
    return probe.answer(deadline), outcome


def assert_unreachable(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    protocol: Protocol = "icmp",
    port: int | None = None,
    serve: bool = False,
    payload: bytes | None = None,
    family: Family | None = None,
    within: str | float = "1 s",
) -> UnreachableReport:
    """Check that a packet from `a` does not get the answer from `b` that `assert_reachable` asks for.

    A refusal (an ICMP error, a TCP reset, no route, an interface that is down) settles it at once; but not that of the
    target itself where nothing listens on the port: then the probe did reach it. For silence, a
    sentinel is sent behind the probe on each segment of the way and back: once it has arrived, the probe would have
    arrived before it, and nothing is waited for. Where the topology does not allow a sentinel (the other end is no node
    of the lab, no sentinel comes through, or the order of frames is not sure), `within` is waited out, which is weaker;
    `UnreachableReport.proof` says which it was, and `why`.

    Where links of the lab lose packets by chance, so many probes are sent that losing all of them is unlikely (one in a
    thousand); where that takes more than twenty, or where the links delay an answer for as long as `within`, silence
    proves nothing, and the check fails.

    Args:
        a: the node to send from, or the node and the address to send from.
        b: a node, an IP address, or a node and one of its addresses.
        protocol: ``"icmp"``, ``"tcp"`` or ``"udp"``.
        port: the TCP or UDP port of a server in `b`; without it, or with `serve`, the check itself listens in `b`,
            so that only the network can be the reason.
        serve: whether the check itself listens in `b`, on `port` where one is given.
        payload: the bytes of the UDP datagram, to which the server would answer.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.
        within: how long to wait where there is no better proof.

    Returns:
        What was measured, and the proof.

    Raises:
        CheckFailed: `b` answered, or refused as its port is closed; or silence proves nothing: that of a UDP server
            without `payload` or `serve`, or of links that lose or delay what they carry.
        BadInput: an argument that cannot be used.
        StartFailed: `port` is taken in `b`, so the check cannot listen there.
    """
    __tracebackhide__ = True
    report = measure_unreachable(
        a, b, protocol=protocol, port=port, serve=serve, payload=payload, family=family, within=within
    )
    report.demand()
    return report
