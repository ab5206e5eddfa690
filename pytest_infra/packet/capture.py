"""`Capture`: what arrives at a node's interface, with the kernel's times, for the checks that judge times."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from ..core.node import NodePort
from ..core.resource import Resource
from ..core.wait import until
from .ring import Ring

__all__ = ["Capture"]


class Capture(Resource):
    """The frames that arrive at an interface while it is up.

    Args:
        port: the interface.
        wanted: which frames count; all by default.
        frames: how many the kernel keeps until they are looked at.
    """

    def __init__(self, port: NodePort, wanted: Callable[[bytes], object] = bool, frames: int = 8192) -> None:
        self._port = port
        self._wanted = wanted
        self._room = frames
        self._seen: list[tuple[int, bytes]] = []

    def _start(self, undo: ExitStack) -> None:
        self._ring = Ring(self._port, self._room)
        undo.callback(self._ring.close)

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """What has arrived so far: the time in nanoseconds, and the frame."""
        self._seen += [(at_ns, frame) for at_ns, frame in self._ring.timed() if self._wanted(frame)]
        return self._seen

    def wait_for(self, count: int, within_s: float = 5.0) -> list[tuple[int, bytes]]:
        """Wait until so many frames have arrived, and return all.

        Raises:
            WaitTimeout: they did not arrive in time.
        """
        until(
            lambda: len(self.frames) >= count,
            within_s=within_s,
            what=f"{count} frames at {self._port.name}",
            last_words=lambda: f"{len(self.frames)} arrived",
        )
        return self.frames
