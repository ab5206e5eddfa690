"""`send_stream`: a series of numbered datagrams from one node to another, and when each of them arrived.

The kernel stamps each arrival (SO_TIMESTAMPNS, socket(7)), so that a busy test does not make the network look slow. All
nodes share one clock, so each delay is that of one way.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

from ..core.errors import InfraError, reason
from ..core.node import Node
from ..core.sockets import SO_TIMESTAMPNS
from .inet import family_of, sockaddr
from .target import Ends

__all__ = ["Stream", "send_back_home", "send_stream"]

_HEADER = struct.Struct("!QIq")  # which series, which datagram, when it was sent
_NS = 10**9
_BUFFER_BYTES = 1 << 20
_SPIN_S = 0.0001


@dataclass(frozen=True)
class Stream:
    """What became of a series of datagrams."""

    delays_s: tuple[float | None, ...]
    """By number, the time that each took; None: it did not arrive."""
    order: tuple[int, ...]
    """Their numbers in the order of arrival, duplicates included."""

    @property
    def sent(self) -> int:
        """How many were sent."""
        return len(self.delays_s)

    @property
    def arrived(self) -> tuple[float, ...]:
        """The delays of those that arrived, in the order they were sent."""
        return tuple(delay for delay in self.delays_s if delay is not None)

    @property
    def lost(self) -> int:
        """How many did not arrive."""
        return self.sent - len(self.arrived)

    @property
    def duplicates(self) -> int:
        """Arrivals beyond the first of the same datagram."""
        return len(self.order) - len(set(self.order))

    @property
    def reordered(self) -> int:
        """Datagrams that arrived after one that was sent later (RFC 4737, section 3)."""
        late, greatest, seen = 0, -1, set()
        for number in self.order:
            if number in seen:
                continue
            seen.add(number)
            late += number < greatest
            greatest = max(greatest, number)
        return late

    @property
    def variations_s(self) -> tuple[float, ...]:
        """How much the delay changed from each datagram to the next (RFC 3393), where both arrived."""
        pairs = zip(self.delays_s, self.delays_s[1:], strict=False)
        return tuple(abs(after - before) for before, after in pairs if before is not None and after is not None)


def send_stream(ends: Ends, *, count: int, interval_s: float, size: int, within_s: float) -> Stream:
    """Send numbered datagrams at even intervals.

    Args:
        ends: from where to where; the destination is a node.
        count: how many.
        interval_s: from one to the next; 0 sends them as fast as can be.
        size: bytes of payload, at least 20.
        within_s: how long to wait after the last one.

    Raises:
        InfraError: they cannot be sent.
    """
    assert ends.destination is not None
    with ExitStack() as undo:
        theirs = undo.enter_context(ends.destination.call(_receiver, str(ends.address)))
        try:
            mine = ends.source.call(_sender, str(ends.address), theirs.getsockname()[1], ends.bind_to)
        except OSError as error:
            what = f"{ends.source.name} cannot send to {ends.destination_name} ({ends.address})"
            raise InfraError(f"{what}: {reason(error)}; assert_reachable says why") from error
        undo.enter_context(mine)
        return _Series(mine, theirs, count, size).run(interval_s, within_s)


def send_back_home(node: Node, *, count: int, interval_s: float, size: int, family: int) -> Stream:
    """The same from a node to itself over its loopback: what the machine alone does to such a series."""
    address = ip_address("127.0.0.1" if family == 4 else "::1")
    return send_stream(Ends(node, None, node, address), count=count, interval_s=interval_s, size=size, within_s=1.0)


def _receiver(address: str) -> socket.socket:
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.bind(sockaddr(address))
    except BaseException:
        sock.close()
        raise
    return sock


def _sender(address: str, port: int, source: str | None) -> socket.socket:
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    try:
        if source is not None:
            sock.bind(sockaddr(source))
        sock.connect(sockaddr(address, port))
    except BaseException:
        sock.close()
        raise
    return sock


class _Series:
    """One series under way: one thread sends, and takes what arrives meanwhile."""

    def __init__(self, mine: socket.socket, theirs: socket.socket, count: int, size: int) -> None:
        self._mine, self._theirs = mine, theirs
        self._name = time.monotonic_ns()
        self._padding = bytes(max(0, size - _HEADER.size))
        self._delays: list[float | None] = [None] * count
        self._order: list[int] = []

    def run(self, interval_s: float, within_s: float) -> Stream:
        """Send all, and wait until all have arrived or the time is over."""
        began, count = time.monotonic(), len(self._delays)
        for number in range(count):
            self._take_until(began + number * interval_s)
            self._send(number)
        deadline = time.monotonic() + within_s
        while len(set(self._order)) < count and time.monotonic() < deadline:
            self._take_until(min(deadline, time.monotonic() + 0.01))
        self._take()
        return Stream(tuple(self._delays), tuple(self._order))

    def _send(self, number: int) -> None:
        try:
            self._send_once_more_if_refused(number)
        except OSError:  # an interface that is down: it does not arrive
            self._take()

    def _send_once_more_if_refused(self, number: int) -> None:
        """The kernel reports the ICMP error of an earlier datagram instead of sending this one (udp(7))."""
        for attempt in range(2):
            try:
                self._mine.send(_HEADER.pack(self._name, number, time.time_ns()) + self._padding)
                return
            except OSError:
                if attempt:
                    raise

    def _take_until(self, due: float) -> None:
        """Take what arrives until then, at least what is there."""
        self._take()
        while (left_s := due - time.monotonic()) > 0:
            if left_s > _SPIN_S and select.select([self._theirs], [], [], left_s - _SPIN_S)[0]:
                self._take()

    def _take(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._theirs.recvmsg(_HEADER.size, 64)
            except OSError:
                return
            if len(data) < _HEADER.size:
                continue
            name, number, sent_ns = _HEADER.unpack(data)
            if name != self._name or number >= len(self._delays):
                continue
            self._order.append(number)
            if self._delays[number] is None:
                self._delays[number] = (_stamp_ns(ancillary) - sent_ns) / _NS


def _stamp_ns(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(content) >= 16:
            seconds, nanoseconds = struct.unpack_from("@qq", content)
            return int(seconds) * _NS + int(nanoseconds)
    return time.time_ns()
