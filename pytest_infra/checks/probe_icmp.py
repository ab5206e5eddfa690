"""ICMP echo from within a node: runs there by ``node.call`` and opens a raw socket of its own (raw(7), icmp(7)).

A random identifier and a random nonce in the payload mark the requests of one call, so that pings which run at the
same time never take each other's answers. Round trips are measured from the clock reading before the request is
given to the kernel to the kernel's own time stamp of the answer (SO_TIMESTAMPNS, socket(7)); on the rare packet that
has none, to the moment it was read.
"""

from __future__ import annotations

import errno
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..core.sockets import SO_TIMESTAMPNS
from .answer import Answer, Carried, local_refusal
from .icmp import ECHO_REPLY, ECHO_REQUEST, ERRORS, echo_request, ip_header_bytes, parse_echo, parse_error
from .inet import sockaddr

__all__ = ["EchoProbe", "EchoResult", "EchoRun", "Settled", "echo", "icmp_socket", "open_echo"]

_SOL_RAW, _ICMP_FILTER = 255, 1
_ICMPV6_FILTER = 1
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _PMTUDISC_PROBE = 10, 23, 62, 3
_TIMESPEC = struct.Struct("@ll")
_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_NONCE_BYTES = 8
_RECEIVE_BYTES = 1 << 16
_RECEIVE_BUFFER = 1 << 20
_NS = 1_000_000_000


Settled = Callable[[Mapping[int, Answer], int], bool]
"""Told the answers so far, by number from 0, and how many requests were sent: whether to wait no longer."""


@dataclass(frozen=True)
class EchoResult:
    """What became of a series of echo requests."""

    answers: tuple[Answer, ...]
    """One for each request, in the order they were sent."""
    duplicates: int
    """Replies beyond the first to the same request."""
    elapsed_s: float
    """From the first request to the last answer, or to the end of the wait."""


def echo(
    destination: str,
    *,
    count: int = 1,
    interval_s: float = 0.0,
    within_s: float = 1.0,
    size: int = 56,
    hop_limits: Sequence[int] | None = None,
    source: str | None = None,
    dont_fragment: bool = False,
    stop_at_error: bool = False,
    settled: Settled | None = None,
) -> EchoResult:
    """Send echo requests and collect what comes back; run it within the sending node.

    Args:
        destination: an IPv4 or IPv6 address, with ``%interface`` where it is link-local.
        count: how many requests, 1 to 65535.
        interval_s: seconds from one request to the next; 0 sends them back to back.
        within_s: seconds to wait for answers after the last request.
        size: bytes of payload after the 8 bytes of ICMP header.
        hop_limits: the TTL (hop limit) of each request; the kernel's own when not given.
        source: the address to send from; the kernel chooses when not given.
        dont_fragment: let nobody fragment them, this node included.
        stop_at_error: send no more requests after one was refused or answered by an ICMP error.
        settled: when to wait no longer; by default when each request has its answer.
    """
    settled = _all_answered_or_one_refused if stop_at_error else settled
    try:
        opened = open_echo(destination, size=size, source=source, dont_fragment=dont_fragment, settled=settled)
    except OSError as error:
        if source is None or error.errno != errno.EADDRNOTAVAIL:
            raise
        return EchoResult((local_refusal(error),), 0, 0.0)
    with opened as run:
        started = time.monotonic()
        for number in range(count):
            if hop_limits is not None:
                run.set_hop_limit(hop_limits[number])
            run.send(number)
            if number < count - 1:
                run.receive(started + (number + 1) * interval_s, to_the_end=True)
            if stop_at_error and _one_refused(run.answers):
                break
        run.receive(time.monotonic() + within_s)
        answers = tuple(run.answers.get(number, Answer("silence")) for number in range(run.sent))
        return EchoResult(answers, run.duplicates, time.monotonic() - started)


def open_echo(
    destination: str,
    *,
    size: int = 56,
    source: str | None = None,
    dont_fragment: bool = False,
    settled: Settled | None = None,
) -> EchoRun:
    """Echo requests that are sent one by one; open it within the sending node, use it from anywhere, close it.

    Args:
        destination: an IPv4 or IPv6 address, with ``%interface`` where it is link-local.
        size: bytes of payload after the 8 bytes of ICMP header.
        source: the address to send from; the kernel chooses when not given.
        dont_fragment: let nobody fragment them, this node included.
        settled: when to wait no longer; by default when each request has its answer.
    """
    version = 6 if ":" in destination else 4
    address = sockaddr(destination)
    sock = icmp_socket(version)
    try:
        if dont_fragment:
            _forbid_fragments(sock, version)
        if source is not None:
            sock.bind(sockaddr(source))
    except BaseException:
        sock.close()
        raise
    return EchoRun(sock, version, address, size, settled or _all_answered)


def icmp_socket(version: int) -> socket.socket:
    """A raw socket that takes echo replies and ICMP errors, and nothing else."""
    wanted = (ECHO_REPLY[version], *ERRORS[version])
    if version == 4:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        blocked = 0xFFFFFFFF
        for kind in wanted:
            blocked &= ~(1 << kind)
        sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", blocked))
    else:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        words = [0xFFFFFFFF] * 8
        for kind in wanted:
            words[kind >> 5] &= ~(1 << (kind & 31))
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("=8I", *words))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return sock


def _forbid_fragments(sock: socket.socket, version: int) -> None:
    """Set "do not fragment", and pay no heed to what is known of the path's MTU (IP_PMTUDISC_PROBE, ip(7))."""
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)


def _all_answered(answers: Mapping[int, Answer], sent: int) -> bool:
    return len(answers) == sent


def _one_refused(answers: Mapping[int, Answer]) -> bool:
    return any(answer.negative for answer in answers.values())


def _all_answered_or_one_refused(answers: Mapping[int, Answer], sent: int) -> bool:
    return len(answers) == sent or _one_refused(answers)


class EchoRun:
    """Echo requests of one identifier and nonce, and their answers (see `open_echo`)."""

    def __init__(
        self, sock: socket.socket, version: int, destination: tuple[object, ...], size: int, settled: Settled
    ) -> None:
        self._settled = settled
        self._sock, self._version, self._destination = sock, version, destination
        self._identifier = secrets.randbits(16)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        self._payload = (nonce + bytes(i & 0xFF for i in range(len(nonce), size)))[:size]
        self._nonce = self._payload[:_NONCE_BYTES]
        self._sent_at: dict[int, tuple[int, int]] = {}
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.sent = 0
        self.answers: dict[int, Answer] = {}
        self.duplicates = 0

    def __enter__(self) -> EchoRun:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def set_hop_limit(self, limit: int) -> None:
        """The TTL (hop limit) of the requests from now on."""
        if self._version == 4:
            self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, limit)
        else:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, limit)

    def send(self, number: int) -> None:
        """Send request `number`; a refusal by this node's kernel is its answer."""
        request = echo_request(self._version, self._identifier, number, self._payload)
        self._sent_at[number] = time.time_ns(), time.monotonic_ns()
        self.sent += 1
        try:
            self._sock.sendto(request, self._destination)
        except OSError as error:
            self.answers[number] = local_refusal(error)

    def receive(self, deadline: float, *, to_the_end: bool = False) -> None:
        """Take what comes until `deadline`, or, unless `to_the_end`, until the requests are settled."""
        while to_the_end or not self._settled(self.answers, self.sent):
            left_s = deadline - time.monotonic()
            if not self._poll.poll(max(0.0, left_s * 1000)):
                if left_s <= 0:
                    return
                continue
            self._take()

    def carried_by(self, packet: bytes) -> Carried:
        """Whether an IP packet seen somewhere is one of these requests, or a reply to one."""
        header = ip_header_bytes(packet)
        if header is None or header[1] != _PROTOCOL[self._version] or packet[0] >> 4 != self._version:
            return None
        message = parse_echo(packet[header[0] :])
        if message is None or message.identifier != self._identifier:
            return None
        if message.payload[: len(self._nonce)] != self._nonce:
            return None
        if message.type == ECHO_REQUEST[self._version]:
            return "request"
        return "reply" if message.type == ECHO_REPLY[self._version] else None

    def _take(self) -> None:
        try:
            data, ancillary, _, address = self._sock.recvmsg(_RECEIVE_BYTES, 128, socket.MSG_DONTWAIT)
        except BlockingIOError:  # a packet with a wrong checksum: poll saw it, the kernel dropped it
            return
        read_at = time.monotonic_ns()
        if self._version == 4:
            header = ip_header_bytes(data)
            data = data[header[0] :] if header else b""
        answer, number = self._judge(data, str(address[0]))
        if answer is None or number not in self._sent_at:
            return
        if number in self.answers:
            self.duplicates += answer == "reply"
            return
        rtt_s = self._rtt_s(number, ancillary, read_at)
        if answer == "reply":
            self.answers[number] = Answer("reply", str(address[0]), rtt_s)
        else:
            error = parse_error(self._version, str(address[0]), data)
            assert error is not None
            self.answers[number] = Answer("icmp", str(address[0]), rtt_s, icmp=error[0])

    def _judge(self, data: bytes, sender: str) -> tuple[str | None, int]:
        """Whether an ICMP message belongs to this call: ``reply`` or ``error``, and to which request."""
        kind, wanted = "reply", ECHO_REPLY[self._version]
        if parsed := parse_error(self._version, sender, data):
            kind, wanted = "error", ECHO_REQUEST[self._version]
            header = ip_header_bytes(parsed[1])
            data = parsed[1][header[0] :] if header and header[1] == _PROTOCOL[self._version] else b""
        message = parse_echo(data)
        if message is None or (message.type, message.identifier) != (wanted, self._identifier):
            return None, 0
        shared = min(len(message.payload), len(self._nonce)) if kind == "error" else len(self._nonce)
        if message.payload[:shared] != self._nonce[:shared]:
            return None, 0
        return kind, message.sequence

    def _rtt_s(self, number: int, ancillary: Sequence[tuple[int, int, bytes]], read_at: int) -> float:
        wall_ns, monotonic_ns = self._sent_at[number]
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(content) >= _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack_from(content)
                rtt_ns = seconds * _NS + nanoseconds - wall_ns
                if 0 <= rtt_ns <= read_at - monotonic_ns:  # else the wall clock was set in between
                    return float(rtt_ns) / _NS
        return (read_at - monotonic_ns) / _NS


class EchoProbe:
    """One echo request; make it within the sending node, use it from anywhere, close it.

    Args:
        destination: an IPv4 or IPv6 address, with ``%interface`` where it is link-local.
        source: the address to send from; the kernel chooses when not given.
        size: bytes of payload.
        dont_fragment: let nobody fragment it.
    """

    delivered: bool | None = None
    underway = False

    def __init__(
        self, destination: str, *, source: str | None = None, size: int = 56, dont_fragment: bool = False
    ) -> None:
        self._run = open_echo(destination, source=source, size=size, dont_fragment=dont_fragment)
        self.carried_by = self._run.carried_by

    def __enter__(self) -> EchoProbe:
        return self

    def __exit__(self, *exc: object) -> None:
        self._run.close()

    def send(self) -> None:
        """Send the request."""
        self._run.send(0)

    def answer(self, deadline: float) -> Answer | None:
        """What came back until `deadline`; None for nothing yet."""
        self._run.receive(deadline)
        return self._run.answers.get(0)
