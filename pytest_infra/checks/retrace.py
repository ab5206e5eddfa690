"""A second probe after the first has failed, to see how far it gets."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import Any

from ..core.errors import InfraError
from .answer import Answer
from .follow import Follow
from .outcome import Outcome
from .probe_icmp import EchoProbe, echo
from .probe_tcp import TcpProbe, connect
from .probe_udp import UdpProbe, ask
from .request import Request
from .serve import serving
from .target import Ends

__all__ = ["make_probe", "not_followed", "retrace", "send_from_afar"]

_AT_MOST_S = 0.5


def make_probe(
    ends: Ends, request: Request, port: int | None, listener: socket.socket | None
) -> EchoProbe | TcpProbe | UdpProbe:
    """The one probe that the request asks for, not sent yet; the caller closes it."""
    address, source = str(ends.address), ends.bind_to
    if request.protocol == "icmp":
        return ends.source.call(EchoProbe, address, source=source)
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


def retrace(ends: Ends, request: Request) -> Outcome:
    """Send one more probe and follow it, for half a second at most; it never raises.

    A server's own UDP port gets no second datagram: the server might act on it.
    """
    if request.protocol == "udp" and not request.serve:
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
            by_kernel = request.protocol != "udp"
            follow = stack.enter_context(Follow(ends, probe, kernel_answers=by_kernel, served=request.serve))
            probe.send()
            return follow.run(time.monotonic() + _AT_MOST_S)
    except (InfraError, OSError) as error:
        return Outcome("unproven", why=str(error))
