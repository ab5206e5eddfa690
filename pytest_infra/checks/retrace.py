"""A second probe after the first has failed, to see how far it gets."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

from ..core.errors import InfraError
from .follow import Follow
from .outcome import Outcome
from .probe_icmp import EchoProbe
from .probe_tcp import TcpProbe
from .probe_udp import UdpProbe
from .request import Request
from .serve import serving
from .target import Ends

__all__ = ["make_probe", "retrace"]

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


def retrace(ends: Ends, request: Request) -> Outcome:
    """Send one more probe and follow it, for half a second at most; it never raises.

    A server's own UDP port gets no second datagram: the server might act on it.
    """
    if request.protocol == "udp" and not request.serve:
        return Outcome("unproven", why="a UDP server gets no second datagram")
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
