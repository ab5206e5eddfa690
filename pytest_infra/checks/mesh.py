"""Echo requests between many pairs of nodes at once, from one thread: one raw socket for each node that sends."""

from __future__ import annotations

import random
import secrets
import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import permutations
from typing import Any

from ..core.errors import BadInput
from ..core.node import Node
from .icmp import ECHO_REPLY, echo_request, ip_header_bytes, parse_echo
from .inet import sockaddr
from .probe_icmp import icmp_socket
from .target import Ends, Family, choose_ends

__all__ = ["Mesh", "choose_pairs", "ends_of", "named"]

_PAYLOAD = struct.Struct("!8sII")  # nonce, pair, tick
_RECEIVE_BYTES = 2048
_BURST = 64  # requests that are sent before answers are taken: less than a receive buffer holds
_MOST_PAIRS = 100_000


def choose_pairs(where: Any, pairs: int | Sequence[tuple[Node, Node]] | None, most: int) -> list[tuple[Node, Node]]:
    """The pairs that are probed: those that are named, so many by chance, or all of them where they are at most `most`.

    Args:
        where: a lab or a list of nodes. Of a lab the hosts, or where it has fewer than two of them, all nodes.
        pairs: pairs of nodes, or how many are chosen by chance; None for all, or `most` of them.
        most: how many are probed by default.

    Raises:
        BadInput: fewer than two nodes, or not so many pairs.
    """
    if pairs is not None and not isinstance(pairs, int):
        if not (named_pairs := list(pairs)):
            raise BadInput("pairs is empty, and of no pair nothing can be said; give pairs of nodes, or None for all")
        return named_pairs
    nodes = _nodes(where)
    possible = len(nodes) * (len(nodes) - 1)
    if not possible:
        raise BadInput("two nodes are wanted at least")
    if pairs is not None and (isinstance(pairs, bool) or not 1 <= pairs <= min(possible, _MOST_PAIRS)):
        raise BadInput(f"pairs {pairs!r} cannot be used: {len(nodes)} nodes have 1 to {min(possible, _MOST_PAIRS)}")
    wanted = min(possible, most) if pairs is None else pairs
    if wanted == possible:
        return list(permutations(nodes, 2))
    chosen = random.Random(len(nodes)).sample(range(possible), wanted)  # noqa: S311 - the same ones in each run
    return [_pair(nodes, number) for number in sorted(chosen)]


def _pair(nodes: Sequence[Node], number: int) -> tuple[Node, Node]:
    first, second = divmod(number, len(nodes) - 1)
    return nodes[first], nodes[second + (second >= first)]


def _nodes(where: Any) -> list[Node]:
    if hasattr(where, "nodes"):
        everyone = list(where.nodes.values())
        hosts = [node for node in everyone if not getattr(node, "forwards", False)]
        return hosts if len(hosts) > 1 else everyone
    if isinstance(where, Iterable):
        return list(where)
    raise BadInput(f"a lab or a list of nodes is wanted; got {where!r}")


def ends_of(pairs: Iterable[tuple[Node, Node]], family: Family | None) -> list[Ends]:
    """The addresses between which each pair is probed."""
    return [choose_ends(a, b, family) for a, b in pairs]


def named(ends: Ends) -> str:
    """A pair, for people."""
    return f"{ends.source.name} -> {ends.destination_name}"


class Mesh:
    """Echo requests of one random identifier between pairs of ends. Use it as a context manager.

    Each round of requests is a *tick*; `answered` has the pairs whose answers came, by tick.

    Args:
        ends: the pairs.
    """

    def __init__(self, ends: Sequence[Ends]) -> None:
        self.ends = ends
        self.stopped = False
        """Set by another thread that wants the probing to end."""
        self.answered: dict[int, set[int]] = {}
        self.sent_at: dict[int, float] = {}
        """When each tick was sent, by time.monotonic."""
        self._nonce = secrets.token_bytes(8)
        self._identifier = secrets.randbits(16)
        self._poll = select.epoll()
        self._undo = ExitStack()
        self._undo.callback(self._poll.close)
        self._sockets: dict[tuple[int, int, str | None], socket.socket] = {}
        self._by_fd: dict[int, tuple[socket.socket, int]] = {}
        self._ways: list[tuple[socket.socket, Any, int]] = []

    def __enter__(self) -> Mesh:
        try:
            self._ways = [self._way(item) for item in self.ends]
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._undo.close()

    def _way(self, ends: Ends) -> tuple[socket.socket, Any, int]:
        version, source = ends.address.version, ends.bind_to
        key = (id(ends.source), version, source)
        if key not in self._sockets:
            sock: socket.socket = ends.source.call(_open, version, source)
            self._undo.callback(sock.close)
            sock.setblocking(False)
            self._poll.register(sock, select.EPOLLIN)
            self._sockets[key] = sock
            self._by_fd[sock.fileno()] = sock, version
        address = str(ends.address)
        scoped = ends.source.call(sockaddr, address) if "%" in address else sockaddr(address)
        return self._sockets[key], scoped, version

    def send(self, tick: int) -> None:
        """Send one request for each pair; what the kernel of a node refuses stays without an answer."""
        self.sent_at[tick] = time.monotonic()
        self.answered[tick] = set()
        for pair, (sock, address, version) in enumerate(self._ways):
            payload = _PAYLOAD.pack(self._nonce, pair, tick)
            try:
                sock.sendto(echo_request(version, self._identifier, tick & 0xFFFF, payload), address)
            except OSError:
                continue
            if pair % _BURST == _BURST - 1:
                self._take_all(0)

    def receive(self, deadline: float, tick: int | None = None) -> None:
        """Take answers until `deadline`, or until the tick has all of its own."""
        while tick is None or len(self.answered[tick]) < len(self._ways):
            left_s = deadline - time.monotonic()
            if not self._take_all(max(0.0, left_s)) and left_s <= 0:
                return

    def _take_all(self, wait_s: float) -> bool:
        ready = self._poll.poll(wait_s)
        for fd, _ in ready:
            sock, version = self._by_fd[fd]
            try:
                while True:
                    self._note(sock.recv(_RECEIVE_BYTES), version)
            except OSError:  # it is empty, or has an error of a request that came back
                continue
        return bool(ready)

    def _note(self, data: bytes, version: int) -> None:
        if version == 4:
            header = ip_header_bytes(data)
            data = data[header[0] :] if header else b""
        message = parse_echo(data)
        if message is None or (message.type, message.identifier) != (ECHO_REPLY[version], self._identifier):
            return
        if len(message.payload) != _PAYLOAD.size:
            return
        nonce, pair, tick = _PAYLOAD.unpack(message.payload)
        if nonce == self._nonce and tick in self.answered:
            self.answered[tick].add(pair)


def _open(version: int, source: str | None) -> socket.socket:
    sock = icmp_socket(version)
    try:
        if source is not None:
            sock.bind(sockaddr(source))
    except BaseException:
        sock.close()
        raise
    return sock
