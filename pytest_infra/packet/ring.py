"""`Ring`: what arrives at an interface, and a way to send from it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from ..core.node import NodePort
from ..net.ring import CaptureRing

__all__ = ["Ring"]

_HEADROOM = 128  # of a frame in the ring, for its header
_TAGGED_BYTES = 22  # an Ethernet header with two VLAN tags


class Ring(CaptureRing):
    """What arrives at a node's interface, with VLAN tags put back where the kernel took them out.

    Args:
        port: the interface.
        frames: how many frames it holds; more that come before they are taken are lost.

    Raises:
        OSError: the interface is gone, or the kernel refuses so much memory.
    """

    def __init__(self, port: NodePort, frames: int = 8192) -> None:
        slot_bytes = 1 << (port.mtu + _TAGGED_BYTES + _HEADROOM - 1).bit_length()
        port.node.call(self._open, port.name, slot_bytes, frames)

    def _open(self, name: str, slot_bytes: int, frames: int) -> None:
        super().__init__(socket.if_nametoindex(name), slot_bytes, frames, outgoing=False)

    def send(self, frame: bytes) -> None:
        """Send a frame from the interface.

        Raises:
            OSError: the interface is down or gone.
        """
        self.socket.send(frame)

    def timed(self) -> Iterator[tuple[int, bytes]]:
        """The frames that have arrived since the last call, with the kernel's time of arrival in nanoseconds."""
        return ((seen.time_ns, seen.data) for seen in self.take())
