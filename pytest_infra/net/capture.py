"""`Capture`: the frames that pass a port, from the moment it is made."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import BadInput, WaitTimeout
from ..core.keep import Holdings
from ..core.private import write_private
from ..core.requirement import PRIVILEGE
from ..core.resource import Facts, Resource
from ..core.sockets import close_in_background
from ..core.units import duration_s, size_bytes
from .capture_filter import compile_filter
from .frame import SCAPY, Frame
from .pcapng import pcapng
from .port import Port
from .ring import CaptureRing

__all__ = ["Capture"]

_SLOT_HEADER_BYTES = 128
_LEAST_SLOT_BYTES, _LARGEST_SLOT_BYTES = 256, 1 << 16
_ETHERNET_BYTES = 18  # with a VLAN tag
_LARGEST_MEMORY_BYTES = 1 << 30


class Capture(Resource):
    """The frames that pass a port, in both directions; `Lab.capture` makes one.

    The kernel writes them into a ring from the moment `start` returns; nothing is lost between two looks unless the
    ring is full, which `lost` tells. Frames that have been looked at stay in `frames` until `clear`.

    Args:
        port: where.
        filter: which ones, as pcap-filter(7) has it (``"icmp and host 10.0.0.1"``); all by default.
        memory: the size of the ring.

    Raises:
        BadInput: the filter is not understood, or the size is not allowed.
        Unavailable: only tcpdump understands the filter, and it is not installed.
    """

    requires = (PRIVILEGE,)

    def __init__(self, port: Port, filter: str = "", *, memory: int | str = "4 MiB") -> None:
        if not isinstance(port, Port):
            raise BadInput(f"a capture is taken at a port, such as lab.node('a').ports[0]; got {port!r}")
        self.port = port
        self.filter = filter
        self._memory_bytes = size_bytes(memory)
        if not 1 << 16 <= self._memory_bytes <= _LARGEST_MEMORY_BYTES:
            raise BadInput(f"a capture's memory is from 64 KiB to 1 GiB, not {memory!r}")
        self._slot_bytes = _slot_bytes(port.mtu)
        self._program = compile_filter(filter, self._slot_bytes - _SLOT_HEADER_BYTES)
        self._frames: list[Frame] = []
        self._lost = 0
        self._ring: CaptureRing | None = None

    def __repr__(self) -> str:
        return f"<Capture at {self.port}{', ' + repr(self.filter) if self.filter else ''}: {len(self._frames)} frames>"

    def hand_over(self, holdings: Holdings) -> None:
        """Nothing: it ends, and what it has seen is in the evidence."""

    def _start(self, undo: ExitStack) -> None:
        slots = self._memory_bytes // self._slot_bytes
        self._ring = self.port.node.namespace.within(
            partial(CaptureRing, self.port.index, self._slot_bytes, slots, program=self._program)
        )
        undo.callback(self._close)

    def _close(self) -> None:
        self._read()
        ring, self._ring = self._ring, None
        if ring is not None:
            self._lost = ring.lost()
            close_in_background([ring])

    def _read(self) -> None:
        if self._ring is not None:
            name = str(self.port)
            self._frames += [
                Frame(seen.time_ns, name, seen.outgoing, seen.data, seen.length) for seen in self._ring.take()
            ]

    @property
    def frames(self) -> list[Frame]:
        """The frames so far, in order."""
        self._read()
        return list(self._frames)

    @property
    def packets(self) -> list[Any]:
        """The frames so far as scapy packets.

        Raises:
            Unavailable: scapy is not installed.
        """
        SCAPY.demand()
        return [frame.packet() for frame in self.frames]

    @property
    def count(self) -> int:
        """How many frames there are so far."""
        self._read()
        return len(self._frames)

    @property
    def lost(self) -> int:
        """How many frames passed and found no room in the ring."""
        return self._ring.lost() if self._ring is not None else self._lost

    def clear(self) -> None:
        """Forget the frames so far."""
        self._read()
        self._frames.clear()

    def wait(
        self, count: int = 1, *, within: str | float = "1 s", where: Callable[[Frame], bool] = lambda _: True
    ) -> list[Frame]:
        """Wait until `count` frames are there, and return these; it returns with the frame that was missing.

        Args:
            count: how many.
            within: how long, a duration (``"500 ms"``) or seconds.
            where: which frames count.

        Raises:
            WaitTimeout: there were fewer; the text says how many.
        """
        within_s = duration_s(within)
        deadline = time.monotonic() + within_s
        while True:
            late = time.monotonic() >= deadline
            found = [frame for frame in self.frames if where(frame)]
            if len(found) >= count:
                return found[:count]
            if late or self._ring is None:
                raise WaitTimeout(self._too_few(len(found), count, within_s))
            self._ring.wait(deadline - time.monotonic())

    def _too_few(self, found: int, count: int, within_s: float) -> str:
        which = f" that match {self.filter!r}" if self.filter else ""
        lost = f"; {self.lost} were lost, as the ring was full" if self.lost else ""
        ended = "" if self._ring is not None else "; the capture has ended"
        return f"{count} frames{which} at {self.port}: {found} within {within_s:g} s{lost}{ended}"

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the frames so far to a pcapng file, and return its path."""
        target = Path(path)
        write_private(target, self.content())
        return target

    def content(self, note: str = "") -> bytes:
        """The frames so far as the content of a pcapng file; `note` is a comment on the file and on the last frame."""
        comment = f"captured at {self.port}" + (f", filter {self.filter!r}" if self.filter else "")
        frames = self.frames
        last = {len(frames) - 1: note} if note else {}
        return pcapng(frames, comment="; ".join(filter(None, [comment, note])), comments=last)

    def describe(self) -> Facts:
        """Where it captures what."""
        return {"port": str(self.port), "filter": self.filter, "frames": len(self._frames), "lost": self.lost}


def _slot_bytes(mtu: int) -> int:
    """The power of two that holds a frame of this MTU."""
    wanted = mtu + _ETHERNET_BYTES + _SLOT_HEADER_BYTES
    size = _LEAST_SLOT_BYTES
    while size < wanted and size < _LARGEST_SLOT_BYTES:
        size *= 2
    return size
