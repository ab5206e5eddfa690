"""`OvsPool`: the Open vSwitch instances of this process, kept from lab to lab."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from ..core.errors import InfraError
from ..core.requirement import PRIVILEGE
from ..core.resource import Facts, Resource
from .namespace import Entrance
from .ovs_instance import DirtyInstance, OvsInstance

__all__ = ["OvsPool"]

_PATIENCE_S = 0.2  # and at least as long as a new instance takes to start here
_KEPT = 3  # of each datapath, where labs follow each other faster than instances are made as good as new


@dataclass(eq=False)
class _Seat:
    """An instance, and whose it is."""

    instance: OvsInstance
    owner: object = None
    bridges: int = 0
    cleaning: bool = False


class OvsPool(Resource):
    """The Open vSwitch instances of this process.

    An instance belongs to at most one lab at a time. When the lab gives it back it is made as good as new in the
    background, which takes some 30 ms that the kernel mostly waits; one that cannot be is replaced.

    Args:
        entrance: makes the network namespaces.
    """

    requires = (PRIVILEGE,)  # a lab without Open vSwitch needs none: each instance asks for it itself

    def __init__(self, entrance: Entrance) -> None:
        self.entrance = entrance
        self._change = threading.Condition()
        self._seats: list[_Seat] = []
        self._threads: set[threading.Thread] = set()
        self._spares = 0
        self._patience_s = _PATIENCE_S
        self._number = 0
        self.replaced: list[str] = []
        """Why instances were given up, oldest first."""

    def _start(self, undo: ExitStack) -> None:
        undo.callback(self._stop_all)

    def _stop_all(self) -> None:
        while threads := list(self._threads):
            for thread in threads:
                thread.join()
        seats, self._seats = self._seats, []
        for seat in seats:
            seat.instance.stop()

    def _in_background(self, name: str, function: Callable[..., None], *args: object) -> None:
        def work() -> None:
            try:
                function(*args)
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def acquire(self, owner: object, datapath: str = "netdev") -> OvsInstance:
        """The instance of the lab `owner`; all bridges of a lab with the same datapath share one.

        Each call needs a `release`.

        Raises:
            Unavailable: this machine cannot run it.
            StartFailed: a daemon does not come up.
        """
        with self._change:
            if seat := self._find(datapath, lambda seat: seat.owner is owner):
                seat.bridges += 1
                return seat.instance
        while seat := self._take(owner, datapath):
            if seat.instance.running:
                return seat.instance
            with self._change:
                self._seats.remove(seat)
            self.replaced.append(f"{seat.instance.name}: a daemon has ended")
            seat.instance.stop()
        instance = self._new(datapath)
        with self._change:
            self._seats.append(_Seat(instance, owner, bridges=1))
        return instance

    def release(self, instance: OvsInstance) -> None:
        """Give an instance back; with the lab's last bridge, everything that the lab did to it goes."""
        with self._change:
            seat = next((seat for seat in self._seats if seat.instance is instance), None)
            if seat is None:
                return
            seat.bridges -= 1
            if seat.bridges > 0:
                return
            seat.owner = None
            seat.cleaning = True
            self._in_background(f"{instance.name}-cleaner", self._clean, seat)

    def give_away(self, instance: OvsInstance) -> None:
        """Let go of an instance that somebody else holds from now on; no other lab gets it."""
        with self._change:
            self._seats = [seat for seat in self._seats if seat.instance is not instance]
        instance.stop()

    def _take(self, owner: object, datapath: str) -> _Seat | None:
        """A free instance, waited for if one is about to be; None where one has to be started."""
        deadline = time.monotonic() + self._patience_s
        with self._change:
            while True:
                if seat := self._find(datapath, lambda seat: seat.owner is None and not seat.cleaning):
                    seat.owner, seat.bridges = owner, 1
                    return seat
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._find(datapath, lambda seat: seat.cleaning):
                    return None
                self._start_spare(datapath)
                self._change.wait(left_s)

    def _find(self, datapath: str, wanted: Callable[[_Seat], bool]) -> _Seat | None:
        return next((seat for seat in self._seats if seat.instance.datapath == datapath and wanted(seat)), None)

    def _new(self, datapath: str) -> OvsInstance:
        with self._change:
            self._number += 1
            number = self._number
        began_s = time.monotonic()
        instance = OvsInstance(f"ovs{number}", self.entrance, datapath).start()
        self._patience_s = max(_PATIENCE_S, time.monotonic() - began_s)
        return instance

    def _start_spare(self, datapath: str) -> None:
        """Somebody waits for the only instance: have a second one ready next time."""
        if len(self._kept(datapath)) + self._spares < _KEPT:
            self._spares += 1
            self._in_background("infra-ovs-spare", self._add_spare, datapath)

    def _kept(self, datapath: str) -> list[_Seat]:
        return [seat for seat in self._seats if seat.owner is None and seat.instance.datapath == datapath]

    def _add_spare(self, datapath: str) -> None:
        instance = None
        try:
            instance = self._new(datapath)
            instance.warm_up()
        except InfraError as error:
            if instance is not None:
                instance.stop()
            self.replaced.append(f"a spare instance: {error}")
            instance = None
        with self._change:
            if instance is not None:
                self._seats.append(_Seat(instance))
            self._spares -= 1
            self._change.notify_all()

    def _clean(self, seat: _Seat) -> None:
        why = "cleaning it was broken off"
        try:
            seat.instance.reset()
            why = ""
        except DirtyInstance as error:
            why = str(error)
        finally:
            with self._change:
                seat.cleaning = False
                surplus = len(self._kept(seat.instance.datapath)) > _KEPT
                if why or surplus:
                    self._seats.remove(seat)
                self._change.notify_all()
            if why:
                self.replaced.append(why)
            if why or surplus:
                seat.instance.stop()

    def describe(self) -> Facts:
        """The instances that there are, and why others were given up."""
        with self._change:
            return {"instances": [seat.instance.describe() for seat in self._seats], "replaced": list(self.replaced)}
