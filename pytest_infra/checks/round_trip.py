"""A token that goes over a TCP connection and back, to prove that it ends where it should and carries data."""

from __future__ import annotations

import secrets
import select
import socket
import time

from .echo_server import Echoing

__all__ = ["RoundTrip", "ready"]

_TOKEN_BYTES = 16


def ready(sock: socket.socket, events: int, deadline: float) -> bool:
    """Whether a socket is ready for `events` (poll(2)) before `deadline` (time.monotonic); errors count as ready."""
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(max(0.0, (deadline - time.monotonic()) * 1000)))


class RoundTrip:
    """The token's way: from the client to the check's own listener, and back.

    Args:
        client: a connected socket that does not block.
        listener: the listening socket that the connection should have reached, which does not block; or what says that
            the other end sends the token back by itself.
    """

    def __init__(self, client: socket.socket, listener: socket.socket | Echoing) -> None:
        self._client = client
        self._listener = client if isinstance(listener, Echoing) else listener
        self._by_itself = isinstance(listener, Echoing)
        self._token = secrets.token_bytes(_TOKEN_BYTES)
        self._served: socket.socket | None = None
        self._received = b""
        self._turned = False
        self.done = False
        self.broken = False
        """Whether the connection broke on the way."""

    def close(self) -> None:
        """Close the listener's end of the connection."""
        if self._served is not None:
            self._served.close()

    def go_on(self, deadline: float) -> bool:
        """Go on from where the last call stopped, until `deadline` at the latest; whether the token is back."""
        if self._by_itself and not self._turned:
            self._turned = True
            self._client.sendall(self._token)
        while not (self.done or self.broken):
            waiting = self._waiting()
            if not ready(waiting, select.POLLIN, deadline):
                return False
            try:
                self._step(waiting)
            except BlockingIOError:
                continue
            except OSError:
                self.broken = True
        return self.done

    def _waiting(self) -> socket.socket:
        if self._by_itself or self._served is None:
            return self._listener
        return self._client if self._turned else self._served

    def _step(self, waiting: socket.socket) -> None:
        if self._served is None and not self._by_itself:
            self._served, _ = self._listener.accept()
            self._served.setblocking(False)
            self._client.sendall(self._token)
            return
        data = waiting.recv(_TOKEN_BYTES)
        self._received += data
        if not data or not self._token.startswith(self._received):
            self.broken = True
        elif self._received == self._token and self._turned:
            self.done = True
        elif self._received == self._token and self._served is not None:
            self._turned, self._received = True, b""
            self._served.sendall(self._token)
