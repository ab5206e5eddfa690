"""`Frame`: a frame that was captured at an interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.requirement import PythonModule

__all__ = ["SCAPY", "SENTINEL", "Frame"]

SCAPY = PythonModule("scapy", extra="scapy", purpose="captured packets as scapy objects")
SENTINEL = b"sentinel of pytest-infra"
"""What the payload of a frame says that a check has sent behind its probe."""
_SENTINEL_WITHIN = 60  # such frames are that short


@dataclass(frozen=True)
class Frame:
    """A frame as it passed an interface, with its VLAN tag in its place.

    A packet that the sending kernel leaves to be cut up or completed later is shown as it is then: larger than the MTU
    (TCP segmentation offload), or without its TCP or UDP checksum (checksum offload).
    """

    time_ns: int
    """When it passed, nanoseconds since 1970."""
    interface: str
    """``NODE:INTERFACE``."""
    outgoing: bool
    """Whether the node sent it; else it arrived."""
    data: bytes
    """From the Ethernet header on; cut off where it was longer than the capture keeps."""
    length: int
    """The bytes that it had."""

    @property
    def is_sentinel(self) -> bool:
        """Whether a check of this plugin has sent it, to see when its probe must have arrived."""
        return SENTINEL in self.data[: _SENTINEL_WITHIN + 8]  # with two VLAN tags

    def packet(self) -> Any:
        """The frame as a scapy packet.

        Raises:
            Unavailable: scapy is not installed.
        """
        SCAPY.demand()
        import scapy.layers.all  # noqa: F401 - what may lie upon Ethernet
        from scapy.layers.l2 import Ether

        packet = Ether(self.data)
        packet.time = self.time_ns / 1e9
        packet.sniffed_on = self.interface
        packet.wirelen = self.length
        return packet
