"""What a reach check probes with: its arguments, once they have been looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ..core.errors import BadInput
from .arguments import check_count, check_port, check_size, seconds

__all__ = ["NOUNS", "Protocol", "Request", "check_request", "service"]

Protocol = Literal["icmp", "tcp", "udp"]
NOUNS: Final = {"icmp": "ICMP echo request", "tcp": "TCP connection", "udp": "UDP datagram"}
"""What one probe of a protocol is called."""


def service(address: str, protocol: str, port: int | None) -> str:
    """The address, with the port where there is one, as the texts name it."""
    return address if port is None else f"{address} {protocol.upper()} port {port}"


@dataclass(frozen=True)
class Request:
    """What to probe with, once the arguments have been looked at."""

    protocol: Protocol
    port: int | None
    serve: bool
    payload: bytes | None
    within_s: float
    count: int = 1
    size: int = 56
    dont_fragment: bool = False
    repeatable: bool = False
    """Whether a server may get the datagram twice: it only asks."""


def check_request(
    protocol: Protocol,
    port: int | None,
    serve: bool,
    payload: bytes | None,
    within: str | float,
    *,
    count: int = 1,
    size: int = 56,
    dont_fragment: bool = False,
) -> Request:
    """Look at the arguments that reach checks share.

    Raises:
        BadInput: one of them cannot be used, or does not go with the protocol.
    """
    if not isinstance(protocol, str) or protocol not in NOUNS:
        raise BadInput(f"protocol {protocol!r} is not known; allowed are {', '.join(map(repr, NOUNS))}")
    if protocol == "icmp" and (port is not None or serve):
        raise BadInput("port and serve do not go with protocol 'icmp': ICMP has no ports; use 'tcp' or 'udp'")
    if protocol != "udp" and payload is not None:
        raise BadInput(f"payload does not go with protocol {protocol!r}, only with 'udp'")
    if protocol != "icmp" and dont_fragment:
        raise BadInput(f"dont_fragment does not go with protocol {protocol!r}, only with 'icmp'")
    if payload is not None and (serve or port is None):
        raise BadInput("payload is for the server on port=; the check's own server (serve) takes none")
    if port is not None:
        check_port(port)
    serve = protocol != "icmp" and (serve or port is None)
    return Request(
        protocol,
        port,
        serve,
        payload,
        seconds("within", within),
        check_count(count),
        check_size(size),
        dont_fragment,
    )
