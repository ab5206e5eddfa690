"""A TCP connection from within a node: runs there by ``node.call`` (tcp(7), RFC 9293)."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time

from .answer import Answer, Carried, local_refusal
from .echo_server import Echoing
from .icmp import ip_header_bytes
from .inet import family_of, queued_icmp_error, report_icmp_errors, sockaddr
from .round_trip import RoundTrip, ready

__all__ = ["TcpProbe", "connect"]

_FLAGS_AT, _SYN, _ACK = 13, 0x02, 0x10


def connect(
    destination: str,
    port: int,
    *,
    within_s: float = 1.0,
    source: str | None = None,
    listener: socket.socket | Echoing | None = None,
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
    with TcpProbe(destination, port, source=source, listener=listener) as probe:
        probe.send()
        return probe.answer(deadline) or Answer("silence")


class TcpProbe:
    """One connection attempt; make it within the connecting node, use it from anywhere, close it.

    Args:
        destination: an IPv4 or IPv6 address, with ``%interface`` where it is link-local.
        port: the port to connect to.
        source: the address to connect from; the kernel chooses when not given.
        listener: the check's own listening socket in the other node.
    """

    delivered: bool | None = None

    def __init__(
        self, destination: str, port: int, *, source: str | None = None, listener: socket.socket | Echoing | None = None
    ) -> None:
        self._to = sockaddr(destination, port)
        self._from = None if source is None else sockaddr(source)
        self._sock = socket.socket(family_of(destination), socket.SOCK_STREAM)
        self._sock.setblocking(False)
        report_icmp_errors(self._sock)
        self._sent_at = 0.0
        self._answer: Answer | None = None
        self._rtt_s: float | None = None
        self._trip = None if listener is None else RoundTrip(self._sock, listener)
        self.local_port = 0

    def __enter__(self) -> TcpProbe:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()
        if self._trip is not None:
            self._trip.close()

    def send(self) -> None:
        """Begin to connect."""
        self._sent_at = time.monotonic()
        try:
            if self._from is not None:
                self._sock.bind(self._from)
            code = self._sock.connect_ex(self._to)
            if code not in (0, errno.EINPROGRESS):
                self._answer = self._refused(code)
            self.local_port = int(self._sock.getsockname()[1])
        except OSError as error:
            self._answer = local_refusal(error)

    def answer(self, deadline: float) -> Answer | None:
        """What came back until `deadline`; None for nothing yet."""
        if self._answer is None and self._rtt_s is None and ready(self._sock, select.POLLOUT, deadline):
            self._rtt_s = time.monotonic() - self._sent_at
            if code := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._answer = self._refused(code)
        if self._answer is None and self._rtt_s is not None:
            if self._trip is None or self._trip.go_on(deadline):
                self._answer = Answer("reply", str(self._to[0]), self._rtt_s)
            elif self._trip.broken:
                self._answer = Answer("reset", str(self._to[0]), self._rtt_s)
        return self._answer

    @property
    def underway(self) -> bool:
        """Whether the connection is established, and its token is not back yet."""
        return self._answer is None and self._rtt_s is not None

    def carried_by(self, packet: bytes) -> Carried:
        """Whether an IP packet seen somewhere is this attempt, or an answer to it; NAT may have changed one end."""
        header = ip_header_bytes(packet)
        if header is None or header[1] != socket.IPPROTO_TCP or len(packet) < header[0] + _FLAGS_AT + 1:
            return None
        source, destination = struct.unpack_from("!HH", packet, header[0])
        flags = packet[header[0] + _FLAGS_AT]
        ours, theirs = self.local_port, self._to[1]
        if flags & _SYN and not flags & _ACK and (source == ours or destination == theirs):
            return "request"
        return "reply" if source == theirs or destination == ours else None

    def _refused(self, code: int) -> Answer:
        rtt_s = time.monotonic() - self._sent_at
        if error := queued_icmp_error(self._sock):
            return Answer("icmp", error.sender, rtt_s, icmp=error)
        if code in (errno.ECONNREFUSED, errno.ECONNRESET):
            return Answer("reset", str(self._to[0]), rtt_s)
        return Answer("silence") if code == errno.ETIMEDOUT else Answer("local", errno=code)
