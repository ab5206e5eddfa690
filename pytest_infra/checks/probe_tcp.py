"""A TCP connection from within a node: runs there by ``node.call`` (tcp(7), RFC 9293)."""

from __future__ import annotations

import errno
import secrets
import select
import socket
import time

from .answer import Answer, local_refusal
from .inet import family_of, queued_icmp_error, report_icmp_errors, sockaddr

__all__ = ["connect"]

_TOKEN_BYTES = 16


def connect(
    destination: str,
    port: int,
    *,
    within_s: float = 1.0,
    source: str | None = None,
    listener: socket.socket | None = None,
) -> Answer:
    """Connect to a TCP port and say what came back; run it within the connecting node.

    Args:
        destination: an IPv4 or IPv6 address, with ``%interface`` where it is link-local.
        port: the port to connect to.
        within_s: seconds to wait.
        source: the address to connect from; the kernel chooses when not given.
        listener: the check's own listening socket in the other node. Then the connection counts only when it
            arrives there and carries a token there and back.
    """
    deadline = time.monotonic() + within_s
    started = time.monotonic()
    with socket.socket(family_of(destination), socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        report_icmp_errors(sock)
        try:
            if source is not None:
                sock.bind(sockaddr(source))
            code = sock.connect_ex(sockaddr(destination, port))
        except OSError as error:
            return local_refusal(error)
        if code == errno.EINPROGRESS:
            if not _ready(sock, select.POLLOUT, deadline):
                return Answer("silence")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        rtt_s = time.monotonic() - started
        if code:
            return _refused(sock, code, destination, rtt_s)
        if listener is not None and not _token_passes(sock, listener, deadline):
            return Answer("silence")
        return Answer("reply", destination, rtt_s)


def _ready(sock: socket.socket, events: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(max(0.0, (deadline - time.monotonic()) * 1000)))


def _refused(sock: socket.socket, code: int, destination: str, rtt_s: float) -> Answer:
    if error := queued_icmp_error(sock):
        return Answer("icmp", error.sender, rtt_s, icmp=error)
    if code in (errno.ECONNREFUSED, errno.ECONNRESET):
        return Answer("reset", destination, rtt_s)
    if code == errno.ETIMEDOUT:
        return Answer("silence")
    return Answer("local", errno=code)


def _token_passes(sock: socket.socket, listener: socket.socket, deadline: float) -> bool:
    """Whether the connection ends at `listener` and carries bytes both ways."""
    token = secrets.token_bytes(_TOKEN_BYTES)
    if not _ready(listener, select.POLLIN, deadline):
        return False
    served, _ = listener.accept()
    with served:
        served.setblocking(False)
        return _send_over(sock, served, token, deadline) and _send_over(served, sock, token, deadline)


def _send_over(sender: socket.socket, receiver: socket.socket, token: bytes, deadline: float) -> bool:
    try:
        sender.sendall(token)
        got = b""
        while len(got) < len(token):
            if not _ready(receiver, select.POLLIN, deadline):
                return False
            chunk = receiver.recv(len(token))
            if not chunk:
                return False
            got += chunk
    except OSError:
        return False
    return got == token
