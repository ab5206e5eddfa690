"""`LabCaptures`: the part of a lab that captures frames."""

from __future__ import annotations

from ..net.capture import Capture
from ..net.port import Port
from .base import LabBase

__all__ = ["LabCaptures"]


class LabCaptures(LabBase):
    """The part of a lab that captures frames; captures end with it."""

    def capture(self, port: Port, filter: str = "", *, memory: int | str = "4 MiB") -> Capture:
        """Capture the frames that pass a port from now on, until `stop` is called or the lab ends.

        Args:
            port: where.
            filter: which ones, as pcap-filter(7) has it (``"icmp and host 10.0.0.1"``); all by default.
            memory: for those that nobody has looked at yet.

        Raises:
            BadInput: the port is not of this lab, or the filter is not understood.
            Unavailable: only tcpdump understands the filter, and it is not installed.
        """
        capture = Capture(port, filter, memory=memory)
        self._check_mine(port.node)
        self.up()
        self._as_a_whole(lambda: self._add(capture))
        return capture

    def _add(self, capture: Capture) -> None:
        self._stack.enter_context(capture)
        self.journal.captures.append(capture)
