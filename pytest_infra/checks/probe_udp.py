"""A UDP datagram from within a node and its answer: runs there by ``node.call`` (udp(7), RFC 768)."""

from __future__ import annotations

import secrets
import select
import socket
import struct
import time
from dataclasses import dataclass

from .answer import Answer, Carried, local_refusal
from .echo_server import Echoing
from .icmp import ip_header_bytes
from .inet import family_of, queued_icmp_error, report_icmp_errors, sockaddr

__all__ = ["UdpProbe", "UdpResult", "ask"]

_TOKEN_BYTES = 16
_HEADER_BYTES = 8
_RECEIVE_BYTES = 1 << 16


@dataclass(frozen=True)
class UdpResult:
    """What became of a datagram."""

    answer: Answer
    delivered: bool | None
    """Whether it arrived at the check's own listener; None when there is none to tell."""


def ask(
    destination: str,
    port: int,
    *,
    payload: bytes | None = None,
    within_s: float = 1.0,
    source: str | None = None,
    listener: socket.socket | Echoing | None = None,
) -> UdpResult:
    """Send a datagram and wait for an answer; run it within the sending node.

    Args:
        destination: an IPv4 or IPv6 address, with ``%interface`` where it is link-local.
        port: the port to send to.
        payload: the bytes to send; random ones when not given.
        within_s: seconds to wait.
        source: the address to send from; the kernel chooses when not given.
        listener: the check's own socket in the other node: what arrives there is sent back as it is.
    """
    deadline = time.monotonic() + within_s
    with UdpProbe(destination, port, payload=payload, source=source, listener=listener) as probe:
        probe.send()
        answer = probe.answer(deadline) or Answer("silence")
        return UdpResult(answer, probe.delivered)


class UdpProbe:
    """One datagram; make it within the sending node, use it from anywhere, close it.

    Args:
        destination: an IPv4 or IPv6 address, with ``%interface`` where it is link-local.
        port: the port to send to.
        payload: the bytes to send; random ones when not given.
        source: the address to send from; the kernel chooses when not given.
        listener: the check's own socket in the other node: what arrives there is sent back as it is.
    """

    underway = False

    def __init__(
        self,
        destination: str,
        port: int,
        *,
        payload: bytes | None = None,
        source: str | None = None,
        listener: socket.socket | Echoing | None = None,
    ) -> None:
        self._to = sockaddr(destination, port)
        self._from = None if source is None else sockaddr(source)
        self._payload = secrets.token_bytes(_TOKEN_BYTES) if payload is None else payload
        self._listener = None if isinstance(listener, Echoing) else listener
        self._sock = socket.socket(family_of(destination), socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        report_icmp_errors(self._sock)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        if self._listener is not None:
            self._poll.register(self._listener, select.POLLIN)
        self._sent_at = 0.0
        self._answer: Answer | None = None
        self.local_port = 0
        self.delivered: bool | None = None if self._listener is None else False

    def __enter__(self) -> UdpProbe:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()

    def send(self) -> None:
        """Send the datagram."""
        self._sent_at = time.monotonic()
        try:
            if self._from is not None:
                self._sock.bind(self._from)
            self._sock.connect(self._to)
            self._sock.send(self._payload)
            self.local_port = int(self._sock.getsockname()[1])
        except OSError as error:
            self._answer = local_refusal(error)

    def answer(self, deadline: float) -> Answer | None:
        """What came back until `deadline`, None for nothing yet; the listener is served meanwhile."""
        while self._answer is None:
            left_s = deadline - time.monotonic()
            ready = dict(self._poll.poll(max(0.0, left_s * 1000)))
            if self._listener is not None and self._listener.fileno() in ready and self._echo_back(self._listener):
                self.delivered = True
            if self._sock.fileno() in ready:
                self._answer = self._read()
            if not ready and left_s <= 0:
                return None
        return self._answer

    def carried_by(self, packet: bytes) -> Carried:
        """Whether an IP packet seen somewhere is this datagram, or an answer to it; NAT may have changed one end."""
        header = ip_header_bytes(packet)
        if header is None or header[1] != socket.IPPROTO_UDP or len(packet) < header[0] + _HEADER_BYTES:
            return None
        source, destination = struct.unpack_from("!HH", packet, header[0])
        if destination == self.local_port or source == self._to[1]:
            return "reply"
        same = bool(self._payload) and packet[header[0] + _HEADER_BYTES :].startswith(self._payload)
        return "request" if same or destination == self._to[1] or source == self.local_port else None

    def _echo_back(self, listener: socket.socket) -> bool:
        try:
            data, sender = listener.recvfrom(_RECEIVE_BYTES)
            if data != self._payload:
                return False
            listener.sendto(data, sender)
        except BlockingIOError:
            return False
        except OSError:  # it arrived; that there is no way back is for the autopsy to find
            return True
        return True

    def _read(self) -> Answer | None:
        rtt_s = time.monotonic() - self._sent_at
        if error := queued_icmp_error(self._sock):
            return Answer("icmp", error.sender, rtt_s, icmp=error)
        try:
            self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except ConnectionRefusedError:  # the pending error of a message that the error queue has more about
            return None
        except OSError as failure:
            return local_refusal(failure)
        return Answer("reply", str(self._to[0]), rtt_s)
