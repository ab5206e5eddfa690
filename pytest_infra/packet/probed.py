"""`Probed`: a device's verdicts by real packets, sent into its ports and seen where they come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from ..core.errors import BadInput
from ..core.node import NodePort
from ..core.resource import Resource
from .classifier import Classifier, Verdict
from .packet import Packet
from .probe import Bench, Fate, sentinel_frame
from .wire import decode, encode

__all__ = ["SENTINEL_TYPE", "Again", "External", "Probed", "Wired"]

SENTINEL_TYPE = 0x88B6
"""The EtherType of the frame behind a batch (IEEE 802, local experimental EtherType 2)."""

_TRIES = 5


class Wired(Protocol):
    """A device with wires to its ports, which delivers frames of `SENTINEL_TYPE` to all of them."""

    name: str
    wires: Mapping[str, NodePort]
    """For each port, the interface at the other end of its wire."""
    window: int
    """How many frames its queues hold."""
    classes: Mapping[str, str]
    """The class or port that stands for each port."""


class External:
    """The user's own device: any program or black box with ports in the lab.

    Args:
        name: for messages.
        wires: for each of its ports, the interface of the lab at the other end of the wire.
        classes: the classes that ports stand for; a port stands for itself.
        window: how many frames its queues hold.
        quiet_s: for a device that cannot deliver frames of `SENTINEL_TYPE` to all its ports: how long nothing may
            arrive before a packet counts as dropped. A slower device is then misjudged, so prefer the sentinel.
    """

    def __init__(
        self,
        name: str,
        wires: Mapping[str, NodePort],
        *,
        classes: Mapping[str, str] | None = None,
        window: int = 64,
        quiet_s: float | None = None,
    ) -> None:
        self.name = name
        self.wires = dict(wires)
        self.classes = {**{port: port for port in wires}, **{port: name for name, port in (classes or {}).items()}}
        self.window = window
        self.quiet_s = quiet_s


@dataclass(frozen=True)
class Again:
    """What became of a packet that was sent by itself."""

    fate: Fate
    counts: bool
    """Whether the device counts what its rules do."""
    moved: Mapping[str, int]
    """How much each rule counted meanwhile, where it did."""


class Probed(Resource):
    """A device that is asked by sending packets through it; a judge for the checks.

    Args:
        device: the device.
        rules: whether to say which rule decided, from its counters: one packet at a time, and much slower.

    Raises:
        BadInput: it has no counters.
    """

    def __init__(self, device: Wired, *, rules: bool = False) -> None:
        self.device: Any = device
        self.name = f"{device.name}, by packets,"
        seen = ("packet",) if getattr(device, "transparent", True) else ()
        self.shows: tuple[str, ...] = ("rule", *seen) if rules else seen
        self.outputs: tuple[str, ...] = tuple(dict.fromkeys(device.classes.values()))
        self.ports = tuple(device.wires)
        self.matches = tuple(name for name in getattr(device, "matches", ()) if name != "tunnel_id")
        self._rules = rules
        if rules and not hasattr(device, "counters"):
            raise BadInput(f"{device.name} has no counters to tell which rule decided")
        quiet_s = getattr(device, "quiet_s", None)
        sentinel = sentinel_frame(SENTINEL_TYPE) if quiet_s is None else None
        self.bench = Bench(device.wires, sentinel, device.window, quiet_s or 0.0)

    def _start(self, undo: ExitStack) -> None:
        undo.enter_context(self.bench)

    @property
    def installed(self) -> Classifier | None:
        """The rules that were installed on the device last, where it takes rules."""
        found: Classifier | None = getattr(self.device, "installed", None)
        return found

    def install(self, classifier: Classifier) -> None:
        """Replace the device's rules.

        Raises:
            Unavailable: it cannot express one of them.
        """
        self.device.install(classifier)

    def classify_all(self, packets: Sequence[Packet]) -> list[Verdict]:
        """Send the packets, and say what became of each."""
        self.start()
        packets = [self._addressed(packet) for packet in packets]
        if self._rules:
            return [self._with_rule(packet) for packet in packets]
        fates = self.bench.send([(packet.in_port, packet) for packet in packets])
        return [self._verdict(packet, fate) for packet, fate in zip(packets, fates, strict=True)]

    def send_again(self, packet: Packet) -> Again:
        """Send a packet by itself, and say which rules' counters moved each time; other traffic may move others."""
        packet = self._addressed(packet)
        moved: dict[str, int] = {}
        for number in range(_TRIES):
            before = self._counts()
            (fate,) = self.bench.send([(packet.in_port, packet)])
            after = self._counts()
            now = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
            moved = {
                name: min(count, moved.get(name, count)) for name, count in now.items() if not number or name in moved
            }
            if len(moved) <= 1:
                break
        return Again(fate, bool(after), moved)

    def _addressed(self, packet: Packet) -> Packet:
        """The packet as it must be sent: a router takes only what is sent to its own MAC address."""
        found: Packet = self.device.addressed(packet) if hasattr(self.device, "addressed") else packet
        return found

    def _counts(self) -> dict[str, int]:
        if self.installed is None or not hasattr(self.device, "counters"):
            return {}
        found: dict[str, int] = self.device.counters()
        return found

    def reproduce(self, packet: Packet) -> str:
        """A line that sends a packet once more, and where to run it."""
        port = self.device.wires[packet.in_port]
        packet = self._addressed(packet)
        code = f"s = socket.socket(17, 3); s.bind(({port.name!r}, 0)); s.send(bytes.fromhex({encode(packet).hex()!r}))"
        return f'in {port.node.name}: python3 -c "import socket; {code}"'

    def _verdict(self, packet: Packet, fate: Fate, rule: str | None = None) -> Verdict:
        to: list[str] = []
        for place, (port, _) in enumerate(fate.arrivals):
            name = self.device.classes[port]
            if name not in to or port in fate.ports_before(place):  # a class of several ports counts once
                to.append(name)
        after = None
        if fate.arrivals:
            frame = fate.arrivals[0][1]
            after = packet if frame == fate.sent else decode(frame, packet.in_port)
        seen = [f"{port}: {frame.hex()}" for port, frame in fate.arrivals]
        return Verdict(tuple(to), rule, after, evidence="\n".join([fate.kind, *seen]))

    def _with_rule(self, packet: Packet) -> Verdict:
        """The verdict with the rule whose counter moves each time the packet is sent."""
        again = self.send_again(packet)
        (rule,) = again.moved if len(again.moved) == 1 else (None,)
        return self._verdict(packet, again.fate, rule)
