"""A UDP datagram from within a node and its answer: runs there by ``node.call`` (udp(7), RFC 768)."""

from __future__ import annotations

import errno
import secrets
import select
import socket
import time
from dataclasses import dataclass

from .answer import Answer, local_refusal
from .inet import family_of, queued_icmp_error, report_icmp_errors, sockaddr

__all__ = ["UdpResult", "ask", "random_payload"]

_TOKEN_BYTES = 16
_RECEIVE_BYTES = 1 << 16


@dataclass(frozen=True)
class UdpResult:
    """What became of a datagram."""

    answer: Answer
    delivered: bool | None
    """Whether it arrived at the check's own listener; None when there is none to tell."""


def random_payload() -> bytes:
    """A payload that no other check sends."""
    return secrets.token_bytes(_TOKEN_BYTES)


def ask(
    destination: str,
    port: int,
    *,
    payload: bytes,
    within_s: float = 1.0,
    source: str | None = None,
    listener: socket.socket | None = None,
) -> UdpResult:
    """Send a datagram and wait for an answer; run it within the sending node.

    Args:
        destination: an IPv4 or IPv6 address, with ``%interface`` where it is link-local.
        port: the port to send to.
        payload: the bytes to send.
        within_s: seconds to wait.
        source: the address to send from; the kernel chooses when not given.
        listener: the check's own socket in the other node: what arrives there is sent back as it is.
    """
    asked_at = time.monotonic()
    with socket.socket(family_of(destination), socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        report_icmp_errors(sock)
        try:
            if source is not None:
                sock.bind(sockaddr(source))
            sock.connect(sockaddr(destination, port))
            sock.send(payload)
        except OSError as error:
            return UdpResult(local_refusal(error), None if listener is None else False)
        if listener is None:
            return UdpResult(_wait(sock, asked_at, asked_at + within_s), None)
        return _wait_and_serve(sock, listener, payload, asked_at, within_s)


def _wait(sock: socket.socket, asked_at: float, deadline: float) -> Answer:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        left_s = deadline - time.monotonic()
        if poll.poll(max(0.0, left_s * 1000)):
            if answer := _read(sock, time.monotonic() - asked_at):
                return answer
        elif left_s <= 0:
            return Answer("silence")


def _wait_and_serve(
    sock: socket.socket, listener: socket.socket, payload: bytes, asked_at: float, within_s: float
) -> UdpResult:
    """Wait for the datagram at the listener, send it back, and wait for it at the sender."""
    deadline = asked_at + within_s
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(listener, select.POLLIN)
    while True:
        left_s = deadline - time.monotonic()
        ready = dict(poll.poll(max(0.0, left_s * 1000)))
        if sock.fileno() in ready and (answer := _read(sock, time.monotonic() - asked_at)):
            return UdpResult(answer, False)
        if listener.fileno() in ready and _echo_back(listener, payload):
            return UdpResult(_wait(sock, asked_at, deadline), True)
        if not ready and left_s <= 0:
            return UdpResult(Answer("silence"), False)


def _echo_back(listener: socket.socket, payload: bytes) -> bool:
    try:
        data, sender = listener.recvfrom(_RECEIVE_BYTES)
        if data != payload:
            return False
        listener.sendto(data, sender)
    except BlockingIOError:
        return False
    except OSError:  # it arrived; that there is no way back is for the autopsy to find
        return True
    return True


def _read(sock: socket.socket, rtt_s: float) -> Answer | None:
    if error := queued_icmp_error(sock):
        return Answer("icmp", error.sender, rtt_s, icmp=error)
    try:
        sock.recv(_RECEIVE_BYTES)
    except BlockingIOError:
        return None
    except OSError as failure:
        if failure.errno == errno.ECONNREFUSED:
            return None  # the pending error of a message that the error queue has more about
        return local_refusal(failure)
    return Answer("reply", str(sock.getpeername()[0]), rtt_s)
