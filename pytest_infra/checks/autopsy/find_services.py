"""At the destination: is anybody there to answer, and did a filter speak up."""

from __future__ import annotations

import errno
import shlex
import signal
import textwrap
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from ..graph import node_having
from .finding import Case, EndFinder, Finding
from .sockets import ListeningSocket

__all__ = [
    "BACKLOG",
    "ECHO_IGNORED",
    "LISTENER",
    "REFUSED_HERE",
    "REJECTED",
    "REJECTED_ON_THE_WAY",
    "rejecting_node",
]

_LAST_WORDS = 120
_PROHIBITED = {4: {(3, 9), (3, 10), (3, 13)}, 6: {(1, 1), (1, 5), (1, 6)}}
_ECHO_IGNORED = {4: "net.ipv4.icmp_echo_ignore_all", 6: "net.ipv6.icmp.echo_ignore_all"}


def _service(case: Case) -> str:
    return f"{case.protocol.upper()} port {case.port}"


def _listener(case: Case) -> Finding | None:
    """Whether a socket waits on the port, at the address that was asked."""
    assert case.destination is not None
    name = case.name
    mine = [item for item in case.view(case.destination).listening if item.protocol == case.protocol]
    on_port = [item for item in mine if item.port == case.port]
    if not on_port:
        return _closed(case, ", ".join(sorted({str(item) for item in mine})))
    if right := [item for item in on_port if item.takes(case.address)]:
        return _bound_elsewhere(case, right)
    where = ", ".join(sorted({str(item.address) for item in on_port}))
    kind, only = "port-elsewhere", ""
    if all(item.address.is_loopback for item in on_port):
        only = "the loopback address "
    elif not any(item.takes_family(case.address.version) for item in on_port):
        kind, only = "port-other-family", "the other family: on "
    no_mapping = ", which was told to take IPv6 only (IPV6_V6ONLY)" if any(item.v6only for item in on_port) else ""
    return Finding(
        kind,
        name,
        f"{_service(case)} of {name} listens only on {only}{where}{no_mapping}, not on {case.address}",
        f"have the server listen on {case.address} or on all addresses of IPv{case.address.version}",
        mark="PORT CLOSED",
    )


def _bound_elsewhere(case: Case, sockets: Sequence[ListeningSocket]) -> Finding | None:
    """Whether every socket takes the packets of one interface only, which is not the one with the address."""
    view = case.view(case.destination)
    here = {item.interface for item in view.addresses if int(item.ip.ip) == int(case.address)}
    if any(not item.interface or item.interface in here for item in sockets):
        return None
    only = ", ".join(sorted({item.interface for item in sockets}))
    return Finding(
        "port-elsewhere",
        case.name,
        f"{_service(case)} of {case.name} is taken only of packets that come in by {only} (SO_BINDTODEVICE), and "
        f"{case.address} is the address of {', '.join(sorted(here))}",
        "bind the server to no interface, or to the right one",
        mark="PORT CLOSED",
    )


def _closed(case: Case, others: str) -> Finding:
    """Nothing listens; where a process that the test started there has failed, that is the likelier cause."""
    name = case.name
    cause = f"nothing listens on {_service(case)} of {name}" + (f", only on {others}" if others else "")
    step = f"start the server in {name} and wait until it listens, or use serve=True to test only the network"
    ended = [item for item in getattr(case.destination, "processes", ()) if item.returncode is not None]
    failed = [item for item in ended if item.returncode]
    if failed:
        cause += f"; the process {_words(failed[-1])}"
        step = "see why it ended, in its output: Process.stdout and Process.stderr"
    elif ended:
        step += f"; a process ended: {_words(ended[-1])}"
    return Finding("server-ended" if failed else "port-closed", name, cause, step, mark="PORT CLOSED")


def _words(ended: Any) -> str:
    words = [line for line in (ended.stderr or ended.stdout).splitlines() if line.strip()]
    said = f"; its last words: {words[-1].strip()[:_LAST_WORDS]}" if words else ""
    argv = textwrap.shorten(shlex.join(ended.argv), _LAST_WORDS, placeholder=" …")
    return f"'{argv}' there {_ending(ended.returncode)}{said}"


def _ending(status: int) -> str:
    if status >= 0:
        return f"has ended with status {status}"
    try:
        return f"was ended by the signal {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by the signal {-status}"


def _backlog(case: Case) -> Finding | None:
    """Whether connections wait to be accepted until there is no room for more (listen(2))."""
    assert case.destination is not None
    for item in case.view(case.destination).listening:
        if item.protocol != "tcp" or item.port != case.port or not item.takes(case.address) or not item.full:
            continue
        return Finding(
            "backlog-full",
            case.name,
            f"the server on {_service(case)} of {case.name} does not accept: {item.waiting} connections wait, "
            f"and its backlog is {item.backlog} (listen(2)), so the kernel drops further ones",
            "see why the server does not call accept, or give it a larger backlog",
            mark="BACKLOG FULL",
        )
    return None


def _echo_ignored(case: Case) -> Finding | None:
    assert case.destination is not None
    name = _ECHO_IGNORED[case.address.version]
    if case.view(case.destination).sysctl(name) != "1":
        return None
    return Finding(
        "echo-ignored",
        case.name,
        f"{case.name} answers no echo requests: {name} = 1",
        f'set it to 0: {case.name}.sysctl["{name}"] = "0"',
        mark="IGNORED",
    )


def _rejected(case: Case) -> Finding | None:
    """Whether the negative answer can only be a packet filter's."""
    error = case.answer.icmp
    if error is not None and (error.type, error.code) in _PROHIBITED[error.version]:
        return Finding(
            "rejected",
            error.sender,
            f"a packet filter or a policy rejects it: {error}",
            f"look at the rules of the node that has {error.sender}: nft list ruleset",
        )
    if case.answer.kind == "local" and case.answer.errno == errno.EPERM:
        return Finding(
            "rejected",
            case.source.name,
            f"the kernel of {case.source.name} does not let it out: a packet filter on its output",
            f"look at the rules in {case.source.name}: nft list ruleset",
            mark="FILTERED",
        )
    if error is not None and error.time_exceeded:
        who = node_having(case.source, ip_address(error.sender))
        name = who.name if who is not None else error.sender
        return Finding(
            "ttl-exceeded",
            name,
            f"the packet had passed as many routers as it may when it came to {name}: {error}",
            "look for a circle: traceroute(a, b); or allow more hops: net.ipv4.ip_default_ttl of the sender",
            mark="TTL RAN OUT",
        )
    port_answer = case.answer.kind == "reset" or (error is not None and error.port_unreachable)
    if not port_answer or case.protocol == "icmp":
        return None
    return _port_refused(case)


def _port_refused(case: Case) -> Finding:
    """A port was refused: that a socket waits there is said only where somebody has looked."""
    if case.destination is None:
        return Finding(
            "rejected",
            case.name,
            f"{_service(case)} of {case.address} was refused, and no node of the lab has that address: {case.answer}; "
            "who translates it found nobody listening behind it, or a packet filter rejects it",
            "look at the rules of the nodes on the way, nft list ruleset, and whether the servers behind it listen",
        )
    waits = "a packet filter rejects it, or what listens there has changed since"
    view = case.view(case.destination)
    sockets = view.listening if view.has_read("listening") else ()
    if case.served or any((item.protocol, item.port) == (case.protocol, case.port) for item in sockets):
        waits = f"a socket of {case.name} waits there, so a packet filter rejects it, or the server's queue is full"
    return Finding(
        "rejected",
        case.name,
        f"{_service(case)} of {case.name} was refused: {case.answer}; {waits}",
        f"look at the rules on the way and in {case.name}: nft list ruleset",
    )


def rejecting_node(case: Case) -> Any:
    """The node whose rules sent the ICMP error, short of the destination; None where it may have another reason.

    Only a packet filter says for others that a port is closed; and of the source's own, its routes are no reason.
    """
    error = case.answer.icmp
    if error is None or error.sender == str(case.address):
        return None
    sender = ip_address(error.sender)
    node = case.source if case.view(case.source).owns(sender) else node_having(case.source, sender)
    if node is None or node is case.destination:
        return None
    own = node is case.source and (error.type, error.code) in _PROHIBITED[error.version]
    return node if error.port_unreachable or own else None


def _rejected_on_the_way(case: Case) -> Finding | None:
    node = rejecting_node(case)
    if node is None:
        return None
    return Finding(
        "rejected",
        node.name,
        f"the rules of {node.name} reject it: {case.answer}, which is an address of {node.name}",
        f"look at the rules of {node.name}: nft list ruleset",
        mark="REJECTED HERE",
    )


def _refused_here(case: Case) -> Finding | None:
    """Whether the sender's own kernel says what is wrong with the packet itself."""
    if case.answer.errno == errno.EMSGSIZE:
        return _too_large(case)
    return _wrong_source(case) if case.answer.errno == errno.EADDRNOTAVAIL else None


def _too_large(case: Case) -> Finding:
    return Finding(
        "mtu-too-small",
        case.source.name,
        f"the kernel of {case.source.name} does not send a packet of {case.packet_bytes} bytes by that route",
        "send less (size=), or raise the MTU of the interface or of the route",
        mark="TOO LARGE",
    )


def _wrong_source(case: Case) -> Finding:
    there = ", ".join(str(item.ip) for item in case.view(case.source).addresses) or "none"
    return Finding(
        "wrong-source",
        case.source.name,
        f"{case.source.name} does not have the source address {case.source_address}; its addresses are {there}",
        f"check from an address that {case.source.name} has, or give it that one",
        mark="WRONG SOURCE",
    )


def _at_a_node(case: Case) -> bool:
    return case.destination is not None


def _may_be_closed(case: Case) -> bool:
    """A closed TCP port is never silent; of UDP the kernel may hold the error back (net.ipv4.icmp_ratelimit)."""
    silent = case.answer.kind == "silence" and case.protocol == "tcp"
    return _at_a_node(case) and not case.served and case.protocol != "icmp" and not silent


LISTENER = EndFinder("listening socket", _listener, applies=_may_be_closed)
"""Whether a server is there."""
REFUSED_HERE = EndFinder("", _refused_here, applies=lambda case: case.answer.kind == "local")
"""Whether the sender's kernel refuses the packet for its size or its source address."""
BACKLOG = EndFinder(
    "backlog", _backlog, applies=lambda case: _at_a_node(case) and not case.served and case.protocol == "tcp"
)
"""Whether the server's queue of connections is full."""
ECHO_IGNORED = EndFinder(
    "echo settings", _echo_ignored, applies=lambda case: _at_a_node(case) and case.protocol == "icmp"
)
"""Whether the kernel is told not to answer echo requests."""
REJECTED_ON_THE_WAY = EndFinder("", _rejected_on_the_way)
"""Whether the rules of the source or of a router reject it."""
REJECTED = EndFinder("rejections", _rejected, applies=lambda case: case.answer.kind != "silence")
"""Whether somebody refused it on purpose."""
