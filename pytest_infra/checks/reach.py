"""`assert_reachable`: packets of a protocol come through, and the answers come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from typing import Any, ClassVar

from ..core.node import Node
from ..core.report import Report, explain
from ..core.units import format_duration
from ..core.wait import until
from .answer import Answer
from .arguments import seconds
from .autopsy import Autopsy
from .causes import autopsy_of
from .graph import node_having
from .ping import figures, summary
from .probe_icmp import echo
from .probe_tcp import connect
from .probe_udp import ask
from .request import NOUNS, Protocol, Request, check_request, service
from .retrace import retrace
from .serve import serving
from .target import Ends, Family, Target, choose_ends

__all__ = ["ONE_TRY_S", "ReachReport", "assert_reachable", "measure_query", "measure_reach"]

ONE_TRY_S = 1.0
"""How long the answers of one try have, in seconds."""
_ERRORS_S = 1.0  # net.ipv4.icmp_ratelimit, by default
_LAST_TRY_S = 0.05  # a try that begins at the end of the time still has a chance


@dataclass(frozen=True)
class ReachReport(Report):
    """Whether probes from one node to another were answered; times in seconds."""

    kind: ClassVar[str] = "reach"

    source: str
    destination: str
    address: str
    protocol: Protocol
    port: int | None
    served: bool
    """Whether the check itself listened at the destination."""
    count: int
    """How many probes were to be answered."""
    within_s: float
    answers: tuple[Answer, ...]
    """One for each probe that was sent; no more are sent after one was refused."""
    delivered: bool | None
    """Whether a probe is known to have arrived, answered or not; None when nothing tells."""
    elapsed_s: float
    tries: int = 1
    """How often all probes were sent; the answers are those of the last time."""
    refused_by: str = ""
    """The node that has the address from which a refusal came, where it is one of the lab."""
    autopsy: Autopsy | None = None
    """Why it failed; None when it did not."""

    @property
    def ok(self) -> bool:
        """Whether every probe was answered."""
        return self.received == self.count

    @property
    def received(self) -> int:
        """Probes that were answered."""
        return sum(answer.replied for answer in self.answers)

    @property
    def rtts_s(self) -> tuple[float | None, ...]:
        """The round-trip time of each probe in seconds, None where no reply came."""
        return tuple(answer.rtt_s if answer.replied else None for answer in self.answers)

    @property
    def failure(self) -> Answer:
        """The answer that decides: the first refusal, else silence."""
        refusals = [answer for answer in self.answers if answer.negative]
        return refusals[0] if refusals else Answer("silence")

    def explain(self) -> str:
        """The verdict, what was measured and wanted, and where the autopsy found the cause."""
        noun = NOUNS[self.protocol] + ("s" if self.count != 1 else "")
        tries = f", at the last of {self.tries} tries" if self.tries > 1 else ""
        measured = [f"{self.received} of {self.count} {noun} answered in {format_duration(self.elapsed_s)}{tries}"]
        measured += summary([answer for answer in self.answers if answer.negative])
        wanted = f"{self.count} of {self.count} within {format_duration(self.within_s)}"
        rows = [("measured", "\n".join(measured)), ("wanted", wanted)]
        return explain(self._verdict(), rows + (self.autopsy.rows() if self.autopsy else []))

    def _verdict(self) -> str:
        ends = f"{self.source} reaches {self.destination}"
        if self.ok:
            return f"{ends}: {self._where()} answered"
        beginning = f"{self.source} cannot reach {self.destination}"
        if self.received:
            beginning = f"{ends} only {self.received} of {self.count} times"
        answer = self.failure
        if answer.kind == "silence":
            return f"{beginning}: no answer from {self._where()}"
        if answer.kind == "reset":
            return f"{beginning}: {self._where()} is closed"
        if answer.kind == "local":
            return f"{beginning}: the kernel of {self.source} sends nothing to {self._where()}"
        return f"{beginning}: {answer}" + (f" ({self.refused_by})" if self.refused_by else "")

    def _where(self) -> str:
        return service(self.address, self.protocol, self.port)

    def to_dict(self) -> dict[str, object]:
        """The report in JSON types, with the figures worked out."""
        return {**super().to_dict(), **figures(self.answers)}


def _probe(ends: Ends, request: Request) -> ReachReport:
    """Send the probes and collect the answers; nothing is judged."""
    with ExitStack() as stack:
        listener = stack.enter_context(serving(ends, request.protocol, request.port)) if request.serve else None
        port = request.port if listener is None else int(listener.getsockname()[1])
        started = time.monotonic()
        if request.protocol == "icmp":
            answers, delivered = _echo(ends, request), None
        else:
            assert port is not None
            send = partial(_connect if request.protocol == "tcp" else _ask, ends, request, port, listener)
            answers, delivered = _repeat(send, request.count, started + request.within_s)
    return ReachReport(
        source=ends.source.name,
        destination=ends.destination_name,
        address=str(ends.address),
        protocol=request.protocol,
        port=port,
        served=request.serve,
        count=request.count,
        within_s=request.within_s,
        answers=answers,
        delivered=delivered,
        elapsed_s=time.monotonic() - started,
    )


def _persist(ends: Ends, request: Request, within_s: float) -> ReachReport:
    """Probe again and again until it succeeds or the time is over.

    The last try counts; but where it met with silence, an ICMP error of the last second tells more: a kernel limits
    how many it sends in a second (RFC 1812 section 4.3.2.8).
    """
    started = time.monotonic()
    deadline = started + within_s
    tries: list[ReachReport] = []
    refused: list[tuple[float, ReachReport]] = []

    def settled() -> bool:
        left_s = max(deadline - time.monotonic(), _LAST_TRY_S)
        tries.append(_probe(ends, replace(request, within_s=min(request.within_s, left_s))))
        if tries[-1].failure.icmp is not None:
            refused.append((time.monotonic(), tries[-1]))
        return tries[-1].ok or time.monotonic() >= deadline

    until(settled, within_s=within_s, what="an answer", every_s=0.002)
    last = tries[-1]
    fresh = [report for at, report in refused if time.monotonic() - at < _ERRORS_S + last.elapsed_s]
    telling = fresh[-1] if fresh and not last.received and last.failure.kind == "silence" else last
    return replace(telling, within_s=within_s, tries=len(tries), elapsed_s=time.monotonic() - started)


def _echo(ends: Ends, request: Request) -> tuple[Answer, ...]:
    result = ends.source.call(
        echo,
        str(ends.address),
        count=request.count,
        within_s=request.within_s,
        size=request.size,
        source=ends.bind_to,
        dont_fragment=request.dont_fragment,
        stop_at_error=True,
    )
    return result.answers


def _repeat(
    send: Callable[[float], tuple[Answer, bool | None]], count: int, deadline: float
) -> tuple[tuple[Answer, ...], bool | None]:
    """Send one probe after the other until one fails."""
    answers: list[Answer] = []
    delivered = None
    while len(answers) < count and (not answers or answers[-1].replied):
        answer, delivered = send(max(0.0, deadline - time.monotonic()))
        answers.append(answer)
    return tuple(answers), delivered


def _connect(ends: Ends, _: Request, port: int, listener: Any, within_s: float) -> tuple[Answer, bool | None]:
    address = str(ends.address)
    answer = ends.source.call(connect, address, port, within_s=within_s, source=ends.bind_to, listener=listener)
    return answer, None


def _ask(ends: Ends, request: Request, port: int, listener: Any, within_s: float) -> tuple[Answer, bool | None]:
    address, payload = str(ends.address), request.payload
    result = ends.source.call(
        ask, address, port, payload=payload, within_s=within_s, source=ends.bind_to, listener=listener
    )
    return result.answer, result.delivered


def _explained(report: ReachReport, ends: Ends, request: Request) -> ReachReport:
    """The same report with its autopsy."""
    failure = report.failure
    autopsy = autopsy_of(
        ends,
        failure,
        protocol=report.protocol,
        port=report.port,
        served=report.served,
        trace=retrace(ends, request, failure),
        packet_bytes=_packet_bytes(request, ends),
        dont_fragment=request.dont_fragment,
        within_s=min(request.within_s, report.within_s),
    )
    node = node_having(ends.source, ip_address(failure.sender)) if failure.sender else None
    return replace(report, autopsy=autopsy, refused_by=node.name if node is not None else "")


def _packet_bytes(request: Request, ends: Ends) -> int:
    """The size of an echo request as an IP packet; 0 for the others, which are small."""
    return request.size + (28 if ends.address.version == 4 else 48) if request.protocol == "icmp" else 0


def measure_reach(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    protocol: Protocol = "icmp",
    port: int | None = None,
    serve: bool = False,
    payload: bytes | None = None,
    family: Family | None = None,
    count: int = 1,
    within: str | float | None = None,
    size: int = 56,
    dont_fragment: bool = False,
) -> ReachReport:
    """Probe `b` from `a` and report, with an autopsy where it failed; `assert_reachable` takes the same and judges."""
    patience_s = ONE_TRY_S if within is None else seconds("within", within)
    once_s = min(patience_s, ONE_TRY_S)
    request = check_request(protocol, port, serve, payload, once_s, count=count, size=size, dont_fragment=dont_fragment)
    ends = choose_ends(a, b, family)
    report = _probe(ends, request) if within is None else _persist(ends, request, patience_s)
    return report if report.ok else _explained(report, ends, request)


def measure_query(node: Node, address: str, port: int, payload: bytes) -> ReachReport:
    """Send a UDP server a query that it may get twice; report, with an autopsy where it does not answer in a second."""
    request = replace(check_request("udp", port, False, payload, ONE_TRY_S), repeatable=True)
    ends = choose_ends(node, address)
    report = _probe(ends, request)
    return report if report.ok else _explained(report, ends, request)


def assert_reachable(
    a: Node | tuple[Node, Any],
    b: Target,
    *,
    protocol: Protocol = "icmp",
    port: int | None = None,
    serve: bool = False,
    payload: bytes | None = None,
    family: Family | None = None,
    count: int = 1,
    within: str | float | None = None,
    size: int = 56,
    dont_fragment: bool = False,
) -> ReachReport:
    """Check that packets from `a` reach `b` and that the answers come back.

    * ``icmp``: `count` echo requests are answered (RFC 792, RFC 4443).
    * ``tcp``: a connection to `port` is accepted (RFC 9293). Without `port`, or with `serve`, the check itself listens
      in `b` for the time being, and the connection has to arrive there and carry data both ways.
    * ``udp``: a datagram to `port` is answered. Without `port`, or with `serve`, the check itself listens in `b` and
      sends it back. A server that stays silent cannot be told from a lost datagram: that fails; name a `payload`
      that the server answers, or test only the network with `serve`.

    Without `within`, an ICMP error, a TCP reset or a refusal by the kernel of `a` fails the check at once.

    Args:
        a: the node to send from, or the node and the address to send from.
        b: a node, an IP address, or a node and one of its addresses.
        protocol: ``"icmp"``, ``"tcp"`` or ``"udp"``.
        port: the TCP or UDP port of a server in `b`.
        serve: whether the check itself listens in `b`, on `port` where one is given.
        payload: the bytes of the UDP datagram; random ones when not given.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.
        count: how many probes, all of which have to be answered.
        within: ``"5 s"`` or seconds as a number: try again until it succeeds, for so long at most; for a server that is
            still starting, or a network that converges. Without it there is one try, whose answers have a second.
        size: bytes of payload of an echo request.
        dont_fragment: whether the echo request may not be fragmented, so that it tells whether `size` and its headers
            fit the MTU of every hop.

    Returns:
        What was measured.

    Raises:
        CheckFailed: a probe was not answered; the text says where on the way and why.
        BadInput: an argument that cannot be used.
        StartFailed: `port` is taken in `b`, so the check cannot listen there.
    """
    __tracebackhide__ = True
    report = measure_reach(
        a,
        b,
        protocol=protocol,
        port=port,
        serve=serve,
        payload=payload,
        family=family,
        count=count,
        within=within,
        size=size,
        dont_fragment=dont_fragment,
    )
    report.demand()
    return report
