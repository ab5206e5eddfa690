"""A check's own service at the other end, for the time of the check."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from ..core.errors import BadInput, StartFailed
from .echo_server import Echoing, EchoServer
from .inet import listen
from .target import Ends

__all__ = ["serving"]

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@contextmanager
def serving(ends: Ends, protocol: str, port: int | None) -> Iterator[Any]:
    """A listening socket in the destination's node; its port is the one asked for, or a free one.

    Where an end is in another kernel, it is an `Echoing` instead, and a server there sends back what it gets.

    Raises:
        BadInput: the destination is no node, so nothing can listen there for the check.
        StartFailed: the port is taken.
    """
    if ends.destination is None:
        raise BadInput(
            f"no node of the lab has {ends.address}, so the check cannot listen there; "
            "give port= of the server that does"
        )
    try:
        if any(getattr(node, "remote", False) for node in (ends.source, ends.destination)):
            server = ends.destination.call(EchoServer, _KINDS[protocol], str(ends.address), port)
            with closing(server):
                yield Echoing(str(ends.address), server.port_number())
            return
        listener = ends.destination.call(listen, _KINDS[protocol], str(ends.address), port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise StartFailed(
            f"{ends.destination.name} has a server on {protocol.upper()} port {port} already; "
            "leave serve=True out to test that one, or leave port out to have a free port chosen"
        ) from error
    with listener:
        yield listener
