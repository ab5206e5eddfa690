"""`Follow`: where on its planned way a probe, or its answer, got lost, proven by sentinels and not by waiting."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal, Protocol

from ..core.errors import InfraError
from ..core.node import Node, NodePort
from ..core.sockets import close_in_background
from .answer import Answer, Carried
from .autopsy import View, planned_wires
from .graph import Wire
from .order import why_unordered
from .outcome import Outcome
from .sentinel import Watch, flush, pass_sentinel
from .tap import Tap
from .target import Ends

__all__ = ["Follow", "Probe"]

_ROUNDS = 3
_LOOK_AT_STATE_AFTER_S = 0.02

_What = Literal["request", "reply"]


class Probe(Protocol):
    """A probe that is sent once and whose answer is looked for as often as one likes."""

    delivered: bool | None

    @property
    def underway(self) -> bool:
        """Whether a first answer has come, and more has to follow before it counts."""

    def send(self) -> None:
        """Send it."""

    def answer(self, deadline: float) -> Answer | None:
        """What came back until `deadline` (time.monotonic); None for nothing yet."""

    def carried_by(self, packet: bytes) -> Carried:
        """What an IP packet that was seen somewhere has to do with it."""


class _Settled(Exception):
    """There is an outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.status)
        self.outcome = outcome


def _unproven(why: str) -> _Settled:
    return _Settled(Outcome("unproven", why=why))


class Follow:
    """Follows one probe along the way that the lab planned. Enter it before the probe is sent.

    Args:
        ends: where the probe comes from and goes to.
        probe: the probe, not sent yet.
        kernel_answers: whether the destination's kernel answers by itself, at once (an echo, a TCP connection).
        served: whether the check itself serves at the destination, whenever the probe is asked for its answer.
    """

    def __init__(self, ends: Ends, probe: Probe, *, kernel_answers: bool, served: bool) -> None:
        self._ends, self._probe = ends, probe
        self._kernel_answers, self._served = kernel_answers, served
        self._forth: list[Wire] = []
        self._back: list[Wire] = []
        self._watches: dict[int, Watch] = {}
        self._deadline = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> Follow:
        source, destination, version = self._ends.source, self._ends.destination, self._ends.address.version
        if destination is None:
            return self
        self._forth = list(planned_wires(source, destination, version))
        self._back = list(planned_wires(destination, source, version))
        with ExitStack() as stack:
            for wire in (*self._forth, *self._back):
                self._open(wire.near.node, stack)
                self._open(wire.far.node, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _open(self, node: Node, stack: ExitStack) -> None:
        if id(node) not in self._watches:
            tap = _place(node).call(Tap)
            stack.callback(close_in_background, [tap])
            self._watches[id(node)] = Watch(node, tap, self._probe.carried_by)

    def run(self, deadline: float) -> Outcome:
        """Follow the probe that has been sent, and its answer back, until `deadline` at the latest."""
        self._deadline = deadline
        try:
            self._run()
        except _Settled as settled:
            last = self._watches.get(id(self._ends.destination))
            return replace(settled.outcome, arrived_from=last.source if last is not None else "")
        except InfraError as error:  # a node that cannot be looked at, such as a guest that is paused
            return Outcome("unproven", why=str(error))
        raise AssertionError("following a probe always ends with an outcome")

    def _run(self) -> None:
        destination = self._ends.destination
        if destination is None or not (self._forth and self._back):
            raise _unproven(f"the lab has no planned way to {self._ends.address}")
        self._carry(self._forth, "request")
        self._look_for_answer()
        if not self._kernel_answers:
            if not self._served:
                raise _Settled(Outcome("delivered", at=destination.name))
            if not self._probe.delivered:
                raise self._lost("reply", destination.name)
        self._carry(self._back, "reply")
        self._look_for_answer()
        raise self._lost("reply", self._ends.source.name)

    def _carry(self, wires: Sequence[Wire], what: _What) -> None:
        """Follow one direction; ends with an outcome where the packet got no further."""
        for wire in wires:
            near, far = self._watches[id(wire.near.node)], self._watches[id(wire.far.node)]
            for number in range(_ROUNDS):
                self._cross(near, wire.near, far, wire.far, wire)
                if what in far.arrived:
                    break
                self._look_for_answer()
                if number < _ROUNDS - 1:
                    self._cross(far, wire.far, near, wire.near, wire)
            else:
                raise self._not_seen(what, wire, near)

    def _not_seen(self, what: _What, wire: Wire, near: Watch) -> _Settled:
        """The outcome when the sentinels have passed a wire and the packet has not."""
        near.look()
        left_by = near.left_by.get(what, set())
        name = near.node.name
        if others := sorted(left_by - {wire.near.name}):
            planned = wire.near.name
            return _unproven(f"{name} sends it by {', '.join(others)}, not by {planned} as planned")
        if left_by:
            return self._lost(what, _spot(wire.near), _spot(wire.far))
        pending = [
            entry.ip
            for entry in View(near.node).neighbours
            if entry.interface == wire.near.name
            and entry.state == "INCOMPLETE"
            and (entry.interface, entry.ip) not in near.resolved
        ]
        if pending:
            return _unproven(f"{name} was already waiting for the neighbour {pending[0]}")
        return self._lost(what, name)

    def _cross(self, near: Watch, out: NodePort, far: Watch, into: NodePort, wire: Wire) -> None:
        """Send a sentinel over a wire, twice where there is a switch, and work off what it may have overtaken."""
        patience = time.monotonic() + _LOOK_AT_STATE_AFTER_S
        looked = False

        def idle() -> bool:
            nonlocal looked
            self._look_for_answer()
            if not looked and time.monotonic() > patience:
                looked = True
                _look_at_state(wire)
            return False

        try:
            for _ in range(2 if wire.switch_ports else 1):
                if not pass_sentinel(near, out, far, into, deadline=self._deadline, idle=idle):
                    raise _unproven(f"no frame passes from {_spot(out)} to {_spot(into)}")
        except OSError as error:
            _look_at_state(wire)
            raise _unproven(f"{_spot(out)} sends no frame: {error}") from error
        if not _place(far.node).call(flush, far, self._deadline):
            raise _unproven(f"the loopback interface of {far.node.name} does not work")

    def _look_for_answer(self) -> None:
        if self._probe.answer(time.monotonic()) is not None:
            raise _Settled(Outcome("answered"))

    def _lost(self, what: _What, at: str, before: str = "") -> _Settled:
        """It is lost, if everything on the way keeps the order of frames."""
        if self._probe.underway:
            return _unproven("the connection was accepted, and its data is still on the way")
        if why := why_unordered([*self._forth, *self._back]):
            return _unproven(why)
        if any(watch.tap.lost() for watch in self._watches.values()):
            return _unproven("there was too much traffic to see every frame")
        return _Settled(Outcome("lost", what, at, before))


def _place(node: Any) -> Any:
    """Where the frames of a node can be seen: of a guest, on the machine's side of its cards."""
    return getattr(node, "outside", node)


def _look_at_state(wire: Wire) -> None:
    """Whether either end of a wire is down; a wire has only these two ends, whatever is in between."""
    for port in (wire.near, wire.far):
        interface = View(port.node).interface(port)
        if interface is None:
            raise _Settled(Outcome("down", at=_spot(port), why=f"{_spot(port)} is gone"))
        if not (interface.up and interface.carrier):
            why = f"{_spot(port)} {'has no carrier' if interface.up else 'is down'}"
            raise _Settled(Outcome("down", at=_spot(port), why=why))


def _spot(port: NodePort) -> str:
    return f"{port.node.name}:{port.name}"
