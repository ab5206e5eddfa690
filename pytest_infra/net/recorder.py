"""`Recorder`: has the latest frames of every namespace at hand, at little cost (``--infra-pcap``)."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress

from ..core.errors import InfraError
from ..core.requirement import PRIVILEGE
from ..core.resource import Resource
from ..core.sockets import SO_TIMESTAMPNS, close_in_background
from .frame import Frame
from .namespace import NetNamespace
from .tape import Tape

__all__ = ["Recorder"]

_MOST_BYTES, _FEWEST_BYTES = 4 << 20, 256 << 10
_BYTES_OF_ALL = 64 << 20
_LOOK_EVERY_MS = 20
_JOIN_S = 1.0


class Recorder(Resource):
    """A tape in each namespace, with the latest frames of all interfaces there.

    Nothing is done for a frame, except by the kernel. A thread looks at the tapes now and then, and winds on those that
    are half full. Where frames come quicker than that, some are missing in between, which `lost` counts. A tape has
    4 MiB, less where there are very many; the first 2048 bytes of a frame are kept.
    """

    requires = (PRIVILEGE,)

    def __init__(self) -> None:
        self._tapes: dict[NetNamespace, Tape] = {}
        self._lock = threading.Lock()

    def _start(self, undo: ExitStack) -> None:
        self._keep_time(undo)
        self._thread = threading.Thread(target=self._loop, name="infra-recorder", daemon=True)
        self._waiting, self._ending = os.pipe2(os.O_CLOEXEC)
        undo.callback(self._finish)
        self._thread.start()
        undo.callback(self._drop_all)

    @staticmethod
    def _keep_time(undo: ExitStack) -> None:
        """As long as one socket wants time stamps, the kernel need not change its own code for the next one."""
        keeper = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        keeper.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def _finish(self) -> None:
        os.close(self._ending)
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
        os.close(self._waiting)

    def _loop(self) -> None:
        poll = select.poll()
        poll.register(self._waiting, select.POLLIN)
        while not poll.poll(_LOOK_EVERY_MS):
            self._look()

    def _look(self) -> None:
        """Wind on the tapes that are half full."""
        with self._lock:
            full = [(namespace, tape) for namespace, tape in self._tapes.items() if tape.full]
        for namespace, tape in full:  # without the lock: the thread that makes labs may be waiting for it
            with suppress(OSError, InfraError):  # the lab has ended
                close_in_background(namespace.within(tape.wind))
            with self._lock:
                kept = self._tapes.get(namespace) is tape
            if not kept:
                close_in_background(tape.sockets())

    def watch(self, namespace: NetNamespace) -> bool:
        """Record in a namespace from now on; whether it was not recorded already."""
        with self._lock:
            if namespace in self._tapes:
                return False
            size = min(_MOST_BYTES, max(_FEWEST_BYTES, _BYTES_OF_ALL // (len(self._tapes) + 1)))
        tape = namespace.within(Tape, size)
        with self._lock:
            self._tapes[namespace] = tape
        return True

    def drop(self, namespaces: Iterable[NetNamespace]) -> None:
        """Record there no longer, and forget what was recorded."""
        with self._lock:
            tapes = [self._tapes.pop(namespace) for namespace in namespaces if namespace in self._tapes]
        if tapes:
            close_in_background([item for tape in tapes for item in tape.sockets()])

    def _drop_all(self) -> None:
        self.drop(tuple(self._tapes))

    def lost(self, namespaces: Iterable[NetNamespace]) -> int:
        """How many frames found no room there."""
        with self._lock:
            return sum(self._tapes[namespace].lost() for namespace in namespaces if namespace in self._tapes)

    def frames(self, namespaces: Iterable[NetNamespace], names: Mapping[tuple[NetNamespace, str], str]) -> list[Frame]:
        """The frames at hand, in the order of their times.

        Args:
            namespaces: where.
            names: ``NODE:INTERFACE`` by namespace and interface; others get the namespace's and the interface's name.
        """
        found = []
        for namespace in namespaces:
            with self._lock:
                seen = self._tapes[namespace].frames() if namespace in self._tapes else []
            for item in seen:
                name = names.get((namespace, item.interface)) or f"{namespace.name}:{item.interface or 'gone'}"
                found.append(Frame(item.time_ns, name, *item[2:]))
        return sorted(found, key=lambda frame: frame.time_ns)
