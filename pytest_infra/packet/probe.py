"""Probes: real packets into a device, and where they come out, decided without a sleep.

Each frame ends with a number of its own. Behind a batch a sentinel is sent that the device delivers to all its
ports: when it has arrived everywhere, so has all that was sent before it, and what is missing was dropped. A second
sentinel follows the first, because a switch in user space may send a batch in another order than it took it in. The
batch is sent from one CPU, so that the kernel's queues, one for each CPU, cannot reorder it.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ..core.errors import BadInput, InfraError
from ..core.node import NodePort
from ..core.resource import Resource
from .packet import Packet
from .ring import Ring
from .wire import encode

__all__ = ["NONCE_BYTES", "SENTINEL_ADDRESS", "Bench", "Fate", "SentinelLost", "Timed", "numbered", "sentinel_frame"]

_MAGIC = 0x5EA7BE11
_NONCE = struct.Struct("!IIII")
NONCE_BYTES = _NONCE.size
"""What a probe adds to a packet's payload."""
SENTINEL_ADDRESS = "01:00:5e:90:01:01"
"""Where sentinels go to: a group address that nothing else uses."""
_MARK = struct.pack("!I", _MAGIC)
_ROUNDS = 2  # sentinels behind a batch
_SENTINEL = 0xFFFF0000  # the first number of a sentinel; those of probes are below
_WAIT_S = 5.0
_LOOK_S = 0.0005
_AGAIN_S = 0.1


class SentinelLost(InfraError):
    """The frame behind a batch did not arrive: nothing can be said about the packets that are missing."""


@dataclass(frozen=True)
class Fate:
    """What came out of a device for one frame that went in."""

    sent: bytes
    arrivals: tuple[tuple[str, bytes], ...]
    """The port of the device by which it left, and the frame, in the order of arrival."""
    reordered: bool = False
    """Whether a frame that was sent later, by the same way, arrived before it."""
    turn: int = -1
    """Its place by arrival among all that were sent; of frames that left by the same port the smaller one was first."""

    @property
    def ports(self) -> tuple[str, ...]:
        """The ports it left by, each once."""
        return tuple(dict.fromkeys(port for port, _ in self.arrivals))

    def ports_before(self, place: int) -> set[str]:
        """The ports by which it left before its arrival of that place."""
        return {port for port, _ in self.arrivals[:place]}

    @property
    def kind(self) -> str:
        """``dropped``, ``duplicated``, ``reordered``, ``changed`` or ``arrived``: the first of them that is so."""
        if not self.arrivals:
            return "dropped"
        if len(self.arrivals) > 1:
            return "duplicated"
        if self.reordered:
            return "reordered"
        return "arrived" if self.arrivals[0][1] == self.sent else "changed"


@dataclass(frozen=True)
class Timed:
    """When a frame was sent, and when, by the kernel's clock, and as what it came out; None when it did not."""

    sent_ns: int
    arrived_ns: int | None
    frame: bytes | None


class _Seen(NamedTuple):
    port: str
    number: int
    frame: bytes
    at_ns: int


def _nonce(number: int) -> bytes:
    """A number whose sum is the same for all, so that no checksum has to be worked out again."""
    return _NONCE.pack(_MAGIC, number, number ^ 0xFFFFFFFF, _MAGIC ^ 0xFFFFFFFF)


def sentinel_frame(ethertype: int) -> bytes:
    """The frame that is sent behind a batch; the device delivers its like to all ports."""
    return encode(Packet(eth_type=ethertype, eth_dst=SENTINEL_ADDRESS), _nonce(_SENTINEL))


@lru_cache(maxsize=4096)
def _template(packet: Packet) -> bytes:
    return encode(packet, packet.payload + _nonce(0))[:-NONCE_BYTES]


def numbered(packet: Packet, number: int) -> bytes:
    """The frame of a packet, with a number behind its payload and the right checksum."""
    return _template(packet) + _nonce(number)


def _number_in(frame: bytes) -> int | None:
    at = frame.rfind(_MARK)
    if at < 0 or len(frame) < at + NONCE_BYTES:
        return None
    _, number, inverse, _ = _NONCE.unpack_from(frame, at)
    return int(number) if number ^ inverse == 0xFFFFFFFF else None


class Bench(Resource):
    """Wires around a device: sends frames into its ports and sees what comes out of them.

    Args:
        wires: for each port of the device, the interface at the other end of its wire.
        sentinel: the frame that the device delivers to all its ports, also the one it came in by; None to wait.
        window: how many frames are on their way at once; no more than the device's queues hold.
        quiet_s: without a sentinel, how long nothing may arrive before what is missing counts as dropped.

    Raises:
        BadInput: no wires, a window below 1, a sentinel without a number, or neither a sentinel nor a time to wait.
    """

    def __init__(
        self, wires: Mapping[str, NodePort], sentinel: bytes | None, window: int = 128, quiet_s: float = 0.0
    ) -> None:
        if not wires:
            raise BadInput("a bench needs at least one wire")
        if not isinstance(window, int) or window < 1:
            raise BadInput(f"window is {window!r}; a whole number from 1 up is wanted")
        if sentinel is None and quiet_s <= 0:
            raise BadInput("without a sentinel, quiet_s must say how long to wait")
        if sentinel is not None and _number_in(sentinel) is None:
            raise BadInput("the sentinel has no number; make it with sentinel_frame()")
        self.wires = dict(wires)
        self._sentinel = sentinel
        self._quiet_s = quiet_s
        self._window = window
        self._last = 0
        self._rings: dict[str, Ring] = {}
        self._lost: dict[str, int] = {}

    def _start(self, undo: ExitStack) -> None:
        for name, port in self.wires.items():
            self._rings[name] = Ring(port)
            undo.callback(self._close, name)

    def _close(self, name: str) -> None:
        self._rings.pop(name).close()

    def send(self, probes: Sequence[tuple[str, Packet]]) -> list[Fate]:
        """Send packets, in this order, and return what became of each.

        Args:
            probes: the device's port to send into, and the packet.

        Raises:
            BadInput: a port that the bench has no wire to.
            SentinelLost: the device does not deliver the sentinel, or loses frames.
        """
        frames = []
        for place, (port, packet) in enumerate(probes):
            if port not in self.wires:
                raise BadInput(f"no wire to port {port!r}; there are wires to {', '.join(self.wires)}")
            frames.append((port, numbered(packet, place % _SENTINEL)))
        return self.send_frames(frames)

    def send_frames(self, frames: Sequence[tuple[str, bytes]]) -> list[Fate]:
        """As `send`, for frames that have been built; their numbers must be 0, 1, 2, … (see `numbered`)."""
        self.start()
        fates: list[Fate] = []
        with _one_cpu():
            self._forget()
            for first in range(0, len(frames), self._window):
                fates += self._send_window(frames[first : first + self._window], first)
        return fates

    def send_raw(self, port: str, frames: Sequence[bytes]) -> list[tuple[str, bytes]]:
        """Send frames as they are, however malformed, and return what came out with one of their source addresses.

        Raises:
            BadInput: a port that the bench has no wire to.
            SentinelLost: the device does not deliver the sentinel afterwards, or there is none.
        """
        self.start()
        if port not in self.wires:
            raise BadInput(f"no wire to port {port!r}; there are wires to {', '.join(self.wires)}")
        if self._sentinel is None:
            raise SentinelLost("without a sentinel nothing proves that the device still lives")
        sources = {frame[6:12] for frame in frames} - {self._sentinel[6:12]}
        seen: list[tuple[str, bytes]] = []
        with _one_cpu():
            self._forget()
            for frame in frames:
                self._rings[port].send(frame)
            for _ in range(_ROUNDS):
                for one in self._until_sentinel(port, self._sentinel, unnumbered=True):
                    if one.frame[6:12] in sources:
                        seen.append((one.port, one.frame))
        return seen

    def _forget(self) -> None:
        for name, ring in self._rings.items():
            for _ in ring.take():
                pass
            self._lost[name] = ring.lost()

    def _send_window(self, frames: Sequence[tuple[str, bytes]], first: int) -> list[Fate]:
        arrivals: list[list[tuple[str, bytes]]] = [[] for _ in frames]
        order: dict[str, list[int]] = {name: [] for name in self._rings}
        turns: dict[int, int] = {}
        for port, frame in frames:
            self._rings[port].send(frame)
        for one in self._behind(dict.fromkeys(port for port, _ in frames)):
            if 0 <= one.number - first < len(frames):
                arrivals[one.number - first].append((one.port, one.frame))
                order[one.port].append(one.number - first)
                turns.setdefault(one.number - first, first + len(turns))
        self._demand_all()
        late = _overtaken(frames, order)
        return [
            Fate(sent, tuple(seen), place in late, turns.get(place, -1))
            for place, ((_, sent), seen) in enumerate(zip(frames, arrivals, strict=True))
        ]

    def _demand_all(self) -> None:
        """Make sure that the captures have lost nothing."""
        lost = {name: ring.lost() - self._lost.get(name, 0) for name, ring in self._rings.items()}
        if lost := {name: count for name, count in lost.items() if count}:
            raise SentinelLost(f"frames did not fit into the capture: {lost}; use a smaller window")

    def send_paced(self, port: str, frames: Sequence[tuple[int, bytes]]) -> list[Timed]:
        """Send frames into a port, each at its time, and return when each was sent, and when it arrived.

        Args:
            port: the device's port.
            frames: nanoseconds from now, in order, and the frame; its number is its place (see `numbered`).

        Raises:
            BadInput: a port that the bench has no wire to.
            SentinelLost: the device does not deliver the sentinel, or loses frames.
        """
        self.start()
        if port not in self.wires:
            raise BadInput(f"no wire to port {port!r}; there are wires to {', '.join(self.wires)}")
        sent: list[int] = []
        arrived: dict[int, tuple[int, bytes]] = {}
        self._forget()
        began = time.time_ns()
        for after_ns, frame in frames:
            while (now := time.time_ns()) < began + after_ns:
                arrived |= self._arrivals(min(_LOOK_S, (began + after_ns - now) / 1e9))
            sent.append(now)
            self._rings[port].send(frame)
        for one in self._behind([port]):
            arrived.setdefault(one.number, (one.at_ns, one.frame))
        self._demand_all()
        return [Timed(at_ns, *arrived.get(place, (None, None))) for place, at_ns in enumerate(sent)]

    def _arrivals(self, within_s: float) -> dict[int, tuple[int, bytes]]:
        """What has arrived, or does within a time: numbers, times of arrival, and frames."""
        if not any(ring.wait(0.0) for ring in self._rings.values()):
            next(iter(self._rings.values())).wait(within_s)
        seen = [
            (number, (at_ns, frame))
            for ring in self._rings.values()
            for at_ns, frame in ring.timed()
            if (number := _number_in(frame)) is not None
        ]
        return dict(seen)

    def _behind(self, ports: Iterable[str]) -> Iterator[_Seen]:
        """What arrives until all that was sent into these ports must have."""
        if self._sentinel is None:
            yield from self._until_quiet()
            return
        for port in ports:
            for _ in range(_ROUNDS):
                yield from self._until_sentinel(port, self._sentinel)

    def _until_quiet(self) -> Iterator[_Seen]:
        poll = select.poll()
        for ring in self._rings.values():
            poll.register(ring.socket, select.POLLIN)
        while True:
            for name, ring in self._rings.items():
                for at_ns, frame in ring.timed():
                    if (number := _number_in(frame)) is not None:
                        yield _Seen(name, number, frame, at_ns)
            if not poll.poll(self._quiet_s * 1000):
                return

    def _until_sentinel(self, port: str, sentinel: bytes, *, unnumbered: bool = False) -> Iterator[_Seen]:
        """Send a sentinel into a port; what arrives until it has come out of all ports.

        It is sent again after a while: a policer may have dropped it.
        """
        self._last = (self._last + 1) % 0xFFFF
        wanted = _SENTINEL + self._last
        frame = sentinel[:-NONCE_BYTES] + _nonce(wanted)
        self._rings[port].send(frame)
        waiting = dict(self._rings)
        deadline, again = time.monotonic() + _WAIT_S, time.monotonic() + _AGAIN_S
        while waiting:
            for name, ring in list(waiting.items()):
                for at_ns, seen in ring.timed():
                    number = _number_in(seen)
                    if number == wanted:
                        waiting.pop(name, None)
                    elif number is not None or unnumbered:
                        yield _Seen(name, -1 if number is None else number, seen, at_ns)
            if not waiting or next(iter(waiting.values())).wait(_LOOK_S):
                continue
            if (now := time.monotonic()) > again:
                self._rings[port].send(frame)
                again = now + _AGAIN_S
            if now > deadline:
                raise SentinelLost(
                    f"the sentinel sent into {port} did not come out of {', '.join(waiting)} within {_WAIT_S:g} s: "
                    f"the device must deliver it to all its ports"
                )


def _overtaken(frames: Sequence[tuple[str, bytes]], order: Mapping[str, Sequence[int]]) -> set[int]:
    """Places of the frames that one sent later, from and to the same port, arrived before."""
    late: set[int] = set()
    for places in order.values():
        highest: dict[str, int] = {}
        for place in places:
            port = frames[place][0]
            if place < highest.get(port, -1):
                late.add(place)
            highest[port] = max(place, highest.get(port, -1))
    return late


@contextmanager
def _one_cpu() -> Iterator[None]:
    """Keep this thread on one of its CPUs."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
