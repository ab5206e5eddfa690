"""`Recorder`: has the latest frames of every namespace at hand, at little cost (``--infra-pcap``)."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress

from ..core.requirement import PRIVILEGE
from ..core.resource import Resource
from .capture_filter import compile_filter
from .frame import Frame
from .namespace import NetNamespace
from .ring import RecorderRing, close_in_background

__all__ = ["Recorder"]

_SNAP_BYTES = 2048
_BLOCK_BYTES = 1 << 15
_MOST_BLOCKS, _FEWEST_BLOCKS = 16, 4
_BLOCKS_OF_ALL = 2048  # 64 MiB
_JOIN_S = 1.0


class Recorder(Resource):
    """Rings in namespaces, each of which keeps the latest frames of all interfaces there.

    Nothing is done for a frame, except by the kernel. When half of a ring is full, a thread gives its oldest blocks
    back. Where frames come quicker than that, some are missing in between, which `lost` counts. A ring has 512 KiB,
    less where there are very many; the first 2048 bytes of a frame are kept.
    """

    requires = (PRIVILEGE,)

    def __init__(self) -> None:
        self._rings: dict[NetNamespace, RecorderRing] = {}
        self._lock = threading.Lock()
        self._program = compile_filter("", _SNAP_BYTES)

    def _finish(self) -> None:
        os.close(self._ending)
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
        os.close(self._waiting)

    def _start(self, undo: ExitStack) -> None:
        self._epoll = select.epoll()
        undo.callback(self._epoll.close)
        self._thread = threading.Thread(target=self._loop, name="infra-recorder", daemon=True)
        self._waiting, self._ending = os.pipe2(os.O_CLOEXEC)
        undo.callback(self._finish)
        self._epoll.register(self._waiting, select.EPOLLIN)
        self._thread.start()
        undo.callback(self._drop_all)

    def _loop(self) -> None:
        while True:
            full = {fd for fd, _ in self._epoll.poll()}
            if self._waiting in full:
                return
            with self._lock:
                for ring in self._rings.values():
                    if ring.fileno() in full:
                        ring.release()

    def watch(self, namespace: NetNamespace) -> bool:
        """Record in a namespace from now on; whether it was not recorded already."""
        with self._lock:
            if namespace in self._rings:
                return False
            blocks = min(_MOST_BLOCKS, max(_FEWEST_BLOCKS, _BLOCKS_OF_ALL // (len(self._rings) + 1)))
        ring = namespace.within(RecorderRing, self._program, _BLOCK_BYTES, blocks)
        with self._lock:
            self._rings[namespace] = ring
            self._epoll.register(ring.fileno(), select.EPOLLIN | select.EPOLLET)
        return True

    def drop(self, namespaces: Iterable[NetNamespace]) -> None:
        """Record there no longer, and forget what was recorded."""
        with self._lock:
            rings = [self._rings.pop(namespace) for namespace in namespaces if namespace in self._rings]
            for ring in rings:
                self._epoll.unregister(ring.fileno())
        if rings:
            close_in_background(rings)

    def _drop_all(self) -> None:
        self.drop(tuple(self._rings))

    def lost(self, namespaces: Iterable[NetNamespace]) -> int:
        """How many frames found no room there."""
        with self._lock:
            return sum(self._rings[namespace].lost() for namespace in namespaces if namespace in self._rings)

    def frames(self, namespaces: Iterable[NetNamespace], names: Mapping[int, str]) -> list[Frame]:
        """The frames at hand, in the order of their times.

        Args:
            namespaces: where.
            names: ``NODE:INTERFACE`` by the interface's index; others get the namespace's and the interface's name.
        """
        found = []
        for namespace in namespaces:
            with self._lock:
                seen = self._rings[namespace].packets() if namespace in self._rings else []
            known = {index: names.get(index) or _name(namespace, index) for index in {item.interface for item in seen}}
            found += [Frame(item.time_ns, known[item.interface], *item[2:]) for item in seen]
        return sorted(found, key=lambda frame: frame.time_ns)


def _name(namespace: NetNamespace, index: int) -> str:
    name = f"interface {index}"
    with suppress(OSError):  # it is gone
        name = namespace.within(socket.if_indextoname, index)
    return f"{namespace.name}:{name}"
