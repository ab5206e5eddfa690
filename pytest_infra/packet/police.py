"""`Police`: a rate and a burst beyond which a rule drops what it matches."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import BadInput
from ..core.units import rate_bps, size_bytes

__all__ = ["Police"]


@dataclass(frozen=True)
class Police:
    """A token bucket that a rule's packets must find tokens in, or else are dropped, or left to the next rule.

    Two rules with buckets of their own, the first of which leaves the rest to the second, are a two rate three colour
    marker of RFC 4115; it is aware of colours if they match the DSCP that stands for them.

    Which bytes of a packet count is the device's: Open vSwitch counts the frame, nftables and tc what is in it.

    Args:
        rate: ``"1 Mbit/s"``, or bits per second.
        burst: what the bucket holds: ``"10 kB"``, or bytes.
        packet_bytes: the largest packet that will come.
        beyond: what becomes of the rest: ``"drop"``, or ``"next"`` for the rules behind.

    Raises:
        BadInput: something else beyond, a rate or size that is none, or a bucket that is smaller than a packet.
    """

    rate: str | float
    burst: str | int
    packet_bytes: int = 1500
    beyond: str = "drop"

    def __post_init__(self) -> None:
        if self.beyond not in ("drop", "next"):
            raise BadInput(f"police: beyond is {self.beyond!r}; allowed are 'drop' and 'next'")
        if self.rate_bps < 8:
            raise BadInput(f"police: rate is {self.rate!r}; at least 8 bit/s are wanted")
        if self.burst_bytes < self.packet_bytes:
            raise BadInput(
                f"police: burst is {self.burst_bytes} bytes, less than a packet of {self.packet_bytes}, which could "
                f"never pass; give a larger burst, or the size of the largest packet as packet_bytes"
            )

    @property
    def rate_bps(self) -> int:
        """Bits per second."""
        return int(rate_bps(self.rate))

    @property
    def burst_bytes(self) -> int:
        """Bytes."""
        return size_bytes(self.burst)
