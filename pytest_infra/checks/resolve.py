"""`assert_resolves`: a name stands for the right address where a node asks (RFC 1035, resolv.conf(5))."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.node import Node
from ..core.report import Report, explain
from ..core.requirement import PythonModule
from .graph import node_having
from .reach import ReachReport, measure_query
from .tries import try_until_ok

__all__ = ["DNSPYTHON", "ResolveReport", "assert_resolves", "explained", "measure_resolve"]

DNSPYTHON = PythonModule("dnspython", purpose="assert_resolves", module="dns", extra="dns")
_ANSWER_S = 2.0
_SAYS_NO = ("no such name", "no address")
_PORT = 53
_QUERY = bytes.fromhex("5049 0100 0001 0000 0000 0000 00 0002 0001")
"""A query for the name servers of the root (RFC 1035 section 4.1): name servers answer it, if only with a refusal."""


@dataclass(frozen=True)
class ResolveReport(Report):
    """What a node finds under a name."""

    kind: ClassVar[str] = "resolve"

    node: str
    name: str
    servers: tuple[str, ...]
    """The name servers of its resolv.conf."""
    search: tuple[str, ...]
    found: tuple[str, ...]
    """The addresses, in order."""
    full_name: str
    """The name that had them: with one of the search domains, or an alias's."""
    failure: str
    """``no name server``, ``no such name``, ``no address``, ``no answer`` or ``refused``; empty where it resolves."""
    wanted: tuple[str, ...] | None = None
    """The addresses that it should have; None for any, an empty tuple for none."""
    owners: tuple[str, ...] = ()
    """The nodes of the lab that have the addresses found."""
    asked_again: ReachReport | None = None
    """Whether its first name server is reached, where that one did not answer."""

    @property
    def ok(self) -> bool:
        """Whether it has the wanted addresses."""
        if self.wanted is None:
            return bool(self.found)
        if not self.wanted:
            return self.failure in _SAYS_NO  # no answer proves nothing
        return not self.failure and set(self.found) == set(self.wanted)

    def explain(self) -> str:
        """What was found, and why it is not what was wanted."""
        found = ", ".join(self.found)
        verdict = {
            (True, True): f"{self.node}: {self.name} is {found}",
            (True, False): f"{self.node}: {self.name} does not resolve",
            (False, True): f"{self.node}: {self.name} resolves elsewhere, to {found}",
            (False, False): f"{self.node}: {self.name} does not resolve: {self.failure}",
        }[self.ok, bool(self.found)]
        if not self.ok and self.wanted == ():
            verdict = (
                f"{self.node}: it cannot be told whether {self.name} resolves: {self.failure}"
                if not found
                else (f"{self.node}: {self.name} resolves, to {found}")
            )
        servers = ", ".join(self.servers) or "no name server"
        measured = f"{f'{self.full_name} is {found}' if found else self.failure}; asked {servers}"
        if self.owners and not self.ok:
            measured = measured.replace(found, f"{found} ({', '.join(self.owners)})", 1)
        if self.search:
            measured += f"; search domains {', '.join(self.search)}"
        wanted = "any address" if self.wanted is None else ", ".join(self.wanted) or "no address"
        rows = [("measured", measured), ("wanted", wanted)]
        return explain(verdict, rows if self.ok else [*rows, *self._advice()])

    def _advice(self) -> list[tuple[str, str]]:
        if self.asked_again is not None and not self.found:
            return self._about_the_server(self.asked_again)
        causes = {
            "no name server": ("its resolv.conf names no server", "lab.host(…, dns=server)"),
            "no such name": ("the server knows no such name, with none of the search domains", "look at its records"),
            "no address": ("the server knows the name, but no address of it", "look at its records"),
            "no answer": ("no name server answers", "look whether it runs, and at the way to it"),
            "refused": ("the name server refuses to answer", "look at its log"),
            "": ("the name server has other addresses for it", "look at its records"),
        }
        cause, step = causes["" if self.found else self.failure]
        return [("cause", cause), ("next", step)]

    def _about_the_server(self, asked: ReachReport) -> list[tuple[str, str]]:
        if asked.autopsy is not None:
            finding, nobodys = asked.autopsy.finding, asked.destination == asked.address
            if nobodys and finding is not None and finding.kind in ("no-route", "nobody"):
                whose = f"the resolv.conf of {self.node} (the machine's, where no dns= was given)"
                return [
                    ("cause", f"{whose} names {asked.address}, which nobody in the lab has; {finding.cause}"),
                    ("next", "give the lab a name server: lab.dns(…), and lab.host(…, dns=server)"),
                ]
            return asked.autopsy.rows()
        server = asked.destination if asked.destination == asked.address else f"{asked.destination} ({asked.address})"
        if self.failure == "refused":
            return [("cause", f"the name server {server} answers, but refuses this name"), ("next", "look at its log")]
        cause = f"the name server {server} answers, but not this query within {_ANSWER_S:g} s"
        return [("cause", cause), ("next", "look at its log: it may wait for another server; or give within=")]


def measure_resolve(node: Node, name: str) -> ResolveReport:
    """Look a name up as a node does: its name servers, its search domains, IPv4 and IPv6. Its hosts(5) is not asked.

    Raises:
        BadInput: no name can be like that.
        Unavailable: dnspython is not installed.
    """
    DNSPYTHON.demand()
    import dns.exception
    import dns.name

    try:
        dns.name.from_text(name)
    except (dns.exception.DNSException, TypeError, AttributeError, ValueError) as error:
        raise BadInput(f"{name!r} is no domain name: {error}") from None
    return node.call(_look_up, node.name, name)


def _look_up(node: str, name: str) -> ResolveReport:
    """Runs in the node: its files, its sockets."""
    import dns.resolver

    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.lifetime = _ANSWER_S
    try:
        resolver.read_resolv_conf(io.StringIO(text))
        servers = tuple(map(str, resolver.nameservers))
    except dns.resolver.NoResolverConfiguration:
        servers = ()
    search = tuple(str(domain).rstrip(".") for domain in resolver.search)
    found, full_name, failures = [], "", []
    for kind in ("A", "AAAA") if servers else ():
        try:
            answer = resolver.resolve(name, kind, search=True)
            full_name = str(answer.canonical_name).rstrip(".")
            found += [str(record) for record in answer]
        except dns.resolver.NXDOMAIN:
            failures.append("no such name")
        except dns.resolver.NoAnswer:
            failures.append("no address")
        except dns.resolver.LifetimeTimeout:
            failures.append("no answer")
            break
        except dns.resolver.NoNameservers as error:
            failures.append("no answer" if "timed out" in str(error) or "unreach" in str(error) else "refused")
            break
    heeded = ("refused", *_SAYS_NO) if found else _SAYS_NO  # servers refuse what they have no record of that kind of
    unanswered = [failure for failure in failures if failure not in heeded]
    failure = "" if found and not unanswered else (unanswered or failures or ["no name server"])[0]
    return ResolveReport(node, name, servers, search, tuple(found), full_name, failure)


def _addresses(to: Any) -> tuple[str, ...]:
    if isinstance(to, str):
        try:
            return (str(ip_address(to)),)
        except ValueError:
            raise BadInput(f"to is an address, a node, a service or a list of them, not {to!r}") from None
    if hasattr(to, "address"):
        return (str(to.address),)
    if hasattr(to, "ports"):
        found = tuple(str(ip.ip) for port in to.ports for ip in port.addresses)
        if not found:
            raise BadInput(f"{to.name} has no address for a name to stand for; to=[] is for no address")
        return found
    if isinstance(to, Sequence):
        return tuple(address for one in to for address in _addresses(one))
    raise BadInput(f"to is an address, a node, a service or a list of them, not {to!r}")


def assert_resolves(node: Node, name: str, to: Any = None, *, within: str | float | None = None) -> ResolveReport:
    """Check what a name stands for where a node asks.

    Args:
        node: who asks.
        name: the name; with fewer than ``ndots`` dots the search domains are tried first (resolv.conf(5)).
        to: the addresses it has, no more and no less: an address, a node, a service, or a list; an empty list for none;
            any address by default.
        within: try again until then; one try by default.

    Raises:
        BadInput: an argument that cannot be.
        CheckFailed: it has other addresses, or none; the text says why.
        Unavailable: dnspython is not installed.
    """
    __tracebackhide__ = True
    wanted = None if to is None else _addresses(to)

    def once() -> ResolveReport:
        return replace(measure_resolve(node, name), wanted=wanted)

    report = try_until_ok(once, within)
    if not report.ok:
        report = explained(node, report)
    report.demand()
    return report


def explained(node: Node, report: ResolveReport) -> ResolveReport:
    """The same report with whose the addresses are, or with the autopsy of the way to the name server."""
    nodes = [node_having(node, ip_address(address)) for address in report.found]
    owners = tuple(dict.fromkeys(one.name for one in nodes if one is not None))
    asked = None
    if report.servers and report.failure in ("no answer", "refused"):
        asked = measure_query(node, report.servers[0], _PORT, _QUERY)
    return replace(report, owners=owners, asked_again=asked)
