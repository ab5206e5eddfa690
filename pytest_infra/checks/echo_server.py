"""A server that sends back what it gets: the check's own, where the two ends do not share a kernel."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass

from .inet import listen

__all__ = ["EchoServer", "Echoing"]

_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Echoing:
    """Says to a probe that the other end sends back what it gets, and where it listens."""

    address: str
    port: int

    def getsockname(self) -> tuple[str, int]:
        """As a socket has it."""
        return self.address, self.port


class EchoServer:
    """Make it within the serving node, close it from anywhere.

    Args:
        kind: ``socket.SOCK_STREAM`` or ``socket.SOCK_DGRAM``.
        address: to listen on.
        port: to listen on; a free one when None.
    """

    def __init__(self, kind: socket.SocketKind, address: str, port: int | None) -> None:
        self._kind = kind
        self._sock = listen(kind, address, port)
        self._sock.setblocking(True)
        threading.Thread(target=self._serve, name="infra-echo", daemon=True).start()

    def port_number(self) -> int:
        """Where it listens."""
        return int(self._sock.getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                if self._kind == socket.SOCK_DGRAM:
                    data, sender = self._sock.recvfrom(_CHUNK_BYTES)
                    if sender is None:
                        return
                    self._sock.sendto(data, sender)
                else:
                    client, _ = self._sock.accept()
                    threading.Thread(target=_echo, args=(client,), name="infra-echo", daemon=True).start()


def _echo(client: socket.socket) -> None:
    with client, suppress(OSError):
        while data := client.recv(_CHUNK_BYTES):
            client.sendall(data)
