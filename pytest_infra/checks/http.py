"""`assert_http`: a server answers a request from within a node as it should (RFC 9110, RFC 9112)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from typing import ClassVar

from ..core.errors import BadInput
from ..core.node import Node
from ..core.report import Report, explain
from ..core.units import format_duration
from .answer import Answer
from .arguments import seconds
from .autopsy import narrow_way, unacknowledged
from .causes import case_of
from .graph import node_having
from .http_request import Answered, check_headers, check_method, check_url, in_hosts_file, is_address, send
from .reach import ReachReport, measure_reach
from .resolve import ResolveReport, explained, measure_resolve
from .target import Family, choose_ends, versions_of
from .tries import try_until_ok

__all__ = ["HttpReport", "assert_http", "measure_http"]

_ONE_TRY_S = 5.0
_SHOWN_LINES, _SHOWN_WIDTH = 3, 100
_OF_REACH = ", or use serve=True to test only the network"


@dataclass(frozen=True)
class HttpReport(Report):
    """What a server answered to one request; times in seconds."""

    kind: ClassVar[str] = "http"

    node: str
    method: str
    url: str
    address: str
    """The address that was asked; empty where the name has none."""
    server: str
    """The node of the lab that has the address; empty where none has."""
    within_s: float
    """How long one answer was waited for."""
    answered: Answered
    wanted: tuple[int, ...]
    """The status codes that are right."""
    contains: str = ""
    """What the body has to contain."""
    resolution: ResolveReport | None = None
    """Why the name has no address; None where that is not the failure."""
    connection: ReachReport | None = None
    """Whether the server's port is reached, where it was not."""
    lost_in: str = ""
    """Where an answer was lost that the server has sent, in words; empty where that is not the failure."""

    @property
    def ok(self) -> bool:
        """Whether the answer is the wanted one."""
        answered = self.answered
        return not answered.failure and answered.status in self.wanted and self.contains in answered.text

    def explain(self) -> str:
        """What was answered, and why that is not what was wanted."""
        answered, what = self.answered, f"{self.node}: {self.method} {self.url}"
        if self.ok:
            return f"{what} is answered with {answered.line} in {format_duration(answered.took_s)}"
        if self.resolution is not None and self.resolution.found:
            found = f"{self.resolution.full_name} is {', '.join(self.resolution.found)}"
            rows = [
                ("measured", found),
                ("wanted", "an address of the family that was asked for"),
                ("next", "family=None"),
            ]
            return explain(f"{what} is not sent: no address of that family", rows)
        if self.resolution is not None:
            why, *lines = self.resolution.explain().split("\n")
            return "\n".join([f"{what} is not sent: {why.partition(': ')[2]}", *lines])
        if self.connection is not None and self.connection.autopsy is not None:
            rows = [("measured", f"no connection to {self._where()}"), ("wanted", self._wanted())]
            autopsy = [(label, text.replace(_OF_REACH, "")) for label, text in self.connection.autopsy.rows()]
            return explain(f"{what} gets no connection: {answered.words}", rows + autopsy)
        return explain(f"{what} {self._verdict()}", self._rows())

    def _verdict(self) -> str:
        return {
            "": f"is answered with {self.answered.line}",
            "connection": f"gets no connection: {self.answered.words}",
            "tls": "gets no TLS session",
            "silence": f"is not answered within {format_duration(self.within_s)}",
            "closed": "is not answered: the server closed the connection too early",
            "garbage": "is answered with something that is not HTTP",
        }[self.answered.failure]

    def _rows(self) -> list[tuple[str, str]]:
        answered = self.answered
        measured = [answered.words] if answered.failure else [f"{answered.line} from {self._where()}"]
        if software := answered.headers.get("server"):
            measured[0] += f", which calls itself {software[:_SHOWN_WIDTH]}"
        lines = [line.strip() for line in answered.text.splitlines() if line.strip()]
        measured += [f"| {line[:_SHOWN_WIDTH]}" for line in lines[:_SHOWN_LINES]]
        cause, step = self._cause()
        return [("measured", "\n".join(measured)), ("wanted", self._wanted()), ("cause", cause), ("next", step)]

    def _cause(self) -> tuple[str, str]:
        where = self.server or self.address
        look = f"look at the log of the server in {where}"
        if not self.answered.failure and self.answered.status in self.wanted:
            return f"the body does not contain {self.contains!r}", "look at what the server serves"
        return {
            "": (f"{where} answers, but not as wanted", look),
            "connection": (
                "a second connection came through: the first was lost, or the server was starting",
                "within=",
            ),
            "tls": self._no_session(where),
            "silence": (
                self.lost_in or f"{where} took the connection and sends nothing: the server is stuck, or waits",
                "see who drops large packets or ICMP errors between the two" if self.lost_in else look,
            ),
            "closed": (
                f"{where} took the connection and gave it up: the server, or a proxy's back end, is not ready",
                look,
            ),
            "garbage": ("another protocol is spoken on that port", "https:// instead of http://, or another port"),
        }[self.answered.failure]

    def _no_session(self, where: str) -> tuple[str, str]:
        if "WRONG_VERSION_NUMBER" in self.answered.words.upper().replace(" ", "_"):
            return f"{where} does not speak TLS on that port", "http:// instead of https://, or another port"
        return f"{where} takes the connection, but not the handshake", "give ca= its certificate, or look at its log"

    def _where(self) -> str:
        return f"{self.server} ({self.address})" if self.server else self.address

    def _wanted(self) -> str:
        wanted = "status " + " or ".join(map(str, self.wanted))
        return wanted + (f", with {self.contains!r} in the body" if self.contains else "")


def measure_http(
    node: Node,
    url: str,
    *,
    status: int | Sequence[int] = 200,
    contains: str = "",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | bytes = b"",
    ca: str | None = None,
    family: Family | None = None,
    timeout: str | float = _ONE_TRY_S,
) -> HttpReport:
    """Send one request and report what came back; the arguments are those of `assert_http`."""
    target = check_url(url)
    if ca is not None and not os.path.isfile(ca):
        raise BadInput(f"ca {ca!r} cannot be used; a file of certificates in PEM is wanted")
    if not isinstance(body, str | bytes):
        raise BadInput(f"body {body!r} cannot be used; text or bytes are wanted")
    if not isinstance(contains, str):
        raise BadInput(f"contains {contains!r} cannot be used; text is wanted")
    limit_s = seconds("timeout", timeout)
    answer_in = partial(
        node.call,
        send,
        target,
        method=check_method(method),
        headers=check_headers(headers),
        body=body.encode() if isinstance(body, str) else body,
        ca=ca,
        within_s=limit_s,
    )
    report = HttpReport(node.name, method, url, "", "", limit_s, Answered("connection"), _statuses(status), contains)
    address, resolution = _address(node, target.host, family)
    if not address:
        return replace(report, resolution=resolution)
    owner = node_having(node, ip_address(address))
    return replace(report, address=address, server=owner.name if owner else "", answered=answer_in(address=address))


def _statuses(status: int | Sequence[int]) -> tuple[int, ...]:
    wanted = (status,) if isinstance(status, int) else tuple(status)
    if not wanted or not all(type(one) is int and 100 <= one <= 599 for one in wanted):
        raise BadInput(f"status {status!r} cannot be used; a status code from 100 to 599 is wanted, or a list of them")
    return wanted


def _address(node: Node, host: str, family: Family | None) -> tuple[str, ResolveReport | None]:
    """The address to ask: the one in the URL, of the node's hosts file, or of its name servers."""
    versions = versions_of(family)
    if is_address(host):
        if ip_address(host).version not in versions:
            raise BadInput(f"{host} is no address of the family {family!r}")
        return host, None
    found, resolution = node.call(in_hosts_file, host), None
    if not found:
        resolution = measure_resolve(node, host)
        found = list(resolution.found)
    right = [address for version in versions for address in found if ip_address(address).version == version]
    return (right[0] if right else ""), resolution


def assert_http(
    node: Node,
    url: str,
    *,
    status: int | Sequence[int] = 200,
    contains: str = "",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | bytes = b"",
    ca: str | None = None,
    family: Family | None = None,
    timeout: str | float = _ONE_TRY_S,
    within: str | float | None = None,
) -> HttpReport:
    """Check that a server answers an HTTP request from within a node. Nothing needs to be installed there.

    Redirects are not followed: ask for their status. A name is looked up as the node does: hosts(5), then its name
    servers.

    Args:
        node: who asks.
        url: ``http://…`` or ``https://…``, with an address or a name, and a port where it is not the usual one.
        status: the status code that is right, or several of them (RFC 9110 section 15).
        contains: what the body has to contain, in its first MiB.
        method: the method.
        headers: more headers, or others than the usual ones.
        body: the request's content; text is sent as UTF-8.
        ca: a file of certificates to trust for https, on this machine; those of the system by default.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where the name has both.
        timeout: how long one answer may take.
        within: ``"5 s"`` or seconds as a number: try again until then; one try by default.

    Returns:
        What was answered: ``report.answered`` has status, headers and text.

    Raises:
        BadInput: an argument that cannot be used.
        CheckFailed: no answer, or another one; the text says why: the name, the way, the port, the server.
        Unavailable: the URL has a name, and dnspython is not installed.
    """
    __tracebackhide__ = True
    options = {"method": method, "headers": headers, "body": body, "ca": ca, "family": family, "timeout": timeout}

    def once() -> HttpReport:
        return measure_http(node, url, status=status, contains=contains, **options)  # type: ignore[arg-type]

    report = try_until_ok(once, within)
    if not report.ok:
        report = _explained(node, report)
    report.demand()
    return report


def _explained(node: Node, report: HttpReport) -> HttpReport:
    """The same report with why the name has no address, or why the port is not reached."""
    if not report.address and report.resolution is not None:
        return replace(report, resolution=explained(node, report.resolution))
    if report.answered.failure == "connection":
        port = check_url(report.url).port
        return replace(report, connection=measure_reach(node, report.address, protocol="tcp", port=port))
    if report.answered.failure == "silence":
        return replace(report, resolution=None, lost_in=_lost_in(node, report))
    return replace(report, resolution=None)


def _lost_in(node: Node, report: HttpReport) -> str:
    """Where the answer may be, when the server has sent one that nobody confirms."""
    ends = choose_ends(node, report.address)
    port = check_url(report.url).port
    if ends.destination is None or getattr(ends.destination, "remote", False):
        return ""
    sent = ends.destination.call(unacknowledged, port)
    narrow = narrow_way(case_of(ends, Answer("silence"), protocol="tcp", port=port)) if sent else ""
    told = f"{report.server} has sent an answer, {sent} bytes of which nobody confirms"
    if narrow:
        return f"{told}: {narrow}, and it is not told so (ICMP 'fragmentation needed' or 'packet too big', RFC 2923)"
    return f"{told}: it is lost on the way back" if sent else ""
