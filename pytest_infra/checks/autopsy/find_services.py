"""At the destination: is anybody there to answer, and did a filter speak up."""

from __future__ import annotations

import errno

from .finding import Case, EndFinder, Finding

__all__ = ["ECHO_IGNORED", "LISTENER", "REJECTED"]

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
        others = ", ".join(sorted({str(item) for item in mine}))
        return Finding(
            "port-closed",
            name,
            f"nothing listens on {_service(case)} of {name}" + (f", only on {others}" if others else ""),
            f"start the server in {name} and wait until it listens, or use serve=True to test only the network",
            mark="PORT CLOSED",
        )
    if any(item.takes(case.address) for item in on_port):
        return None
    where = ", ".join(sorted({str(item.address) for item in on_port}))
    only = "the loopback address " if all(item.address.is_loopback for item in on_port) else ""
    return Finding(
        "port-elsewhere",
        name,
        f"{_service(case)} of {name} listens only on {only}{where}, not on {case.address}",
        f"have the server listen on {case.address} or on all addresses",
        mark="PORT CLOSED",
    )


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
    port_answer = case.answer.kind == "reset" or (error is not None and error.port_unreachable)
    if not port_answer or case.protocol == "icmp":
        return None
    return Finding(
        "rejected",
        case.name,
        f"a socket of {case.name} waits on {_service(case)}, yet the answer was: {case.answer}; "
        "a packet filter rejects it, or the server's queue is full",
        f"look at the rules on the way and in {case.name}: nft list ruleset",
    )


def _at_a_node(case: Case) -> bool:
    return case.destination is not None


LISTENER = EndFinder(
    "listening socket", _listener, applies=lambda case: _at_a_node(case) and not case.served and case.protocol != "icmp"
)
"""Whether a server is there."""
ECHO_IGNORED = EndFinder(
    "echo settings", _echo_ignored, applies=lambda case: _at_a_node(case) and case.protocol == "icmp"
)
"""Whether the kernel is told not to answer echo requests."""
REJECTED = EndFinder("rejections", _rejected, applies=lambda case: case.answer.kind != "silence")
"""Whether somebody refused it on purpose."""
