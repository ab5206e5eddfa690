"""The built-in traffic generator: a sending and a receiving process on sockets opened within the nodes.

Nothing needs to be installed there, so a container without a shell can be measured too.
"""

from __future__ import annotations

import math
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ..core.errors import InfraError
from ..core.process import Process, await_end
from . import generator_main
from .flow import Flow, merged
from .inet import family_of, sockaddr
from .target import Ends

__all__ = ["QUIET_S", "run_tcp", "run_udp"]

QUIET_S = 0.3
"""With UDP, the receiver ends when nothing has come for this long after the sender has ended."""

_BUFFER_BYTES = 8 << 20
_SO_RCVBUFFORCE = 33
_CONNECT_S = 5.0
_SPARE_S = 20.0


class _Child:
    """A generator process on a socket."""

    def __init__(self, undo: ExitStack, where: str, task: str, sock: socket.socket, *numbers: float) -> None:
        fd = sock.fileno()

        def popen(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
            return subprocess.Popen(argv, pass_fds=[fd], **options)

        argv = [sys.executable, "-I", "-S", generator_main.__file__, task, str(fd), *map(str, numbers)]
        self._longest_s = numbers[0]
        self.process = Process(argv, where=f"the generator of {where}", popen=popen)
        undo.callback(self.process.close)

    def result(self) -> dict[str, Any]:
        """What it says at its end.

        Raises:
            InfraError: it could not do its task.
        """
        import json

        done = self.process.wait(self._longest_s + _SPARE_S)
        if not done.ok:
            said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise InfraError(f"{done.where} failed: {said}")
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return facts


def run_tcp(ends: Ends, *, streams: int, duration_s: float) -> Flow:
    """Send over TCP connections, as fast as they take it.

    Raises:
        OSError: no connection came about.
        InfraError: one came about, but ended at another socket.
    """
    with ExitStack() as undo:
        pairs = [_connected(ends, undo) for _ in range(streams)]
        where = ends.destination_name
        receivers = [_Child(undo, where, "tcp-receive", theirs, duration_s) for _, theirs in pairs]
        senders = [_Child(undo, ends.source.name, "tcp-send", mine, duration_s) for mine, _ in pairs]
        for mine, theirs in pairs:
            mine.close()
            theirs.close()
        results = [(sender.result(), receiver.result()) for sender, receiver in zip(senders, receivers, strict=True)]
    return merged([_tcp_flow(sent, got) for sent, got in results])


def _tcp_flow(sent: dict[str, Any], got: dict[str, Any]) -> Flow:
    return Flow(
        payload_bytes=got["bytes"] - got["first"],
        duration_s=got["took_s"],
        packets=max(1, sent["segments"]),
        retransmits=sent["retransmits"],
        cpu_s=sent["cpu_s"] + got["cpu_s"],
        waited_s=max(sent["waited_s"], got["waited_s"]),
        held_back=min(1.0, max(0.0, 1 - sent["network_us"] / 1e6 / sent["took_s"])),
        mss=sent["mss"],
    )


def _connected(ends: Ends, undo: ExitStack) -> tuple[socket.socket, socket.socket]:
    """The two ends of a new connection."""
    assert ends.destination is not None
    listener = undo.enter_context(ends.destination.call(_listen, str(ends.address)))
    mine = undo.enter_context(ends.source.call(_connect, str(ends.address), listener.getsockname()[1], ends.bind_to))
    listener.settimeout(_CONNECT_S)
    try:
        theirs, _ = listener.accept()
    except TimeoutError as error:
        what = f"the connection of {ends.source.name} to {ends.address} came about, but not with the receiver"
        why = "it ended at another socket; a rule that redirects it (DNAT), or a proxy, may be why"
        raise InfraError(f"{what} in {ends.destination_name}: {why}") from error
    undo.enter_context(theirs)
    listener.close()
    return mine, theirs


def _listen(address: str) -> socket.socket:
    listener = socket.socket(family_of(address), socket.SOCK_STREAM)
    listener.bind(sockaddr(address))
    listener.listen(1)
    return listener


def _connect(address: str, port: int, source: str | None) -> socket.socket:
    sock = socket.socket(family_of(address), socket.SOCK_STREAM)
    try:
        sock.settimeout(_CONNECT_S)
        if source is not None:
            sock.bind(sockaddr(source))
        sock.connect(sockaddr(address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def run_udp(
    ends: Ends,
    *,
    streams: int,
    duration_s: float,
    size: int,
    per_s: float,
    quiet_s: float = QUIET_S,
    grace_s: float = math.inf,
) -> Flow:
    """Send datagrams, evenly or as fast as can be.

    Args:
        ends: from where to where.
        streams: how many flows.
        duration_s: for how long.
        size: bytes of payload of each datagram.
        per_s: datagrams a second of all streams together; 0 for as many as can be.
        quiet_s: how long nothing has arrived when all has.
        grace_s: what arrives later than `duration_s` and this after the first datagram is counted as late.
    """
    with ExitStack() as undo:
        pairs = [_datagrams(ends, undo) for _ in range(streams)]
        where = ends.destination_name
        times = (duration_s + quiet_s, quiet_s, duration_s + grace_s)
        receivers = [_Child(undo, where, "udp-receive", theirs, *times) for _, theirs in pairs]
        for receiver in receivers:
            receiver.process.wait_for("ready", within_s=_SPARE_S)
        senders = [
            _Child(undo, ends.source.name, "udp-send", mine, duration_s, size, per_s / streams) for mine, _ in pairs
        ]
        sent = [sender.result() for sender in senders]
        for receiver in receivers:
            receiver.process.send_signal(signal.SIGTERM)
            await_end(receiver.process.pid, quiet_s + _SPARE_S)
        got = [receiver.result() for receiver in receivers]
    return merged(
        [_udp_flow(mine, theirs, duration_s, per_s / streams) for mine, theirs in zip(sent, got, strict=True)]
    )


def _udp_flow(sent: dict[str, Any], got: dict[str, Any], duration_s: float, per_s: float) -> Flow:
    waited_s = max(sent["waited_s"], got["waited_s"])
    offered = sent["packets"] + (sent["refused"] if per_s else 0)
    short = 1 - offered / (per_s * duration_s) if per_s else waited_s / duration_s
    return Flow(
        payload_bytes=got["bytes"],
        duration_s=max(got["took_s"], duration_s),
        packets=got["packets"],
        offered_packets=offered,
        lost=max(0, offered - got["packets"] - got["dropped"]),
        dropped=got["dropped"],
        late=got["late"],
        cpu_s=sent["cpu_s"] + got["cpu_s"],
        waited_s=waited_s,
        held_back=min(1.0, max(0.0, short)),
    )


def _datagrams(ends: Ends, undo: ExitStack) -> tuple[socket.socket, socket.socket]:
    """A sending and a receiving socket."""
    assert ends.destination is not None
    theirs = undo.enter_context(ends.destination.call(_bound, str(ends.address)))
    mine = undo.enter_context(ends.source.call(_toward, str(ends.address), theirs.getsockname()[1], ends.bind_to))
    return mine, theirs


def _bound(address: str) -> socket.socket:
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    except PermissionError:  # an ordinary user gets what net.core.rmem_max allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    sock.bind(sockaddr(address))
    return sock


def _toward(address: str, port: int, source: str | None) -> socket.socket:
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    if source is not None:
        sock.bind(sockaddr(source))
    sock.connect(sockaddr(address, port))
    return sock
