"""The values that both versions of control groups are read into."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.units import format_size

__all__ = ["DeviceIo", "Pressure"]


@dataclass(frozen=True)
class DeviceIo:
    """What was read from and written to one block device."""

    read_bytes: int = 0
    write_bytes: int = 0
    read_ops: int = 0
    write_ops: int = 0

    def __str__(self) -> str:
        return f"{format_size(self.read_bytes)} read, {format_size(self.write_bytes)} written"

    def __bool__(self) -> bool:
        return any((self.read_bytes, self.write_bytes, self.read_ops, self.write_ops))

    def __sub__(self, earlier: DeviceIo) -> DeviceIo:
        return DeviceIo(
            self.read_bytes - earlier.read_bytes,
            self.write_bytes - earlier.write_bytes,
            self.read_ops - earlier.read_ops,
            self.write_ops - earlier.write_ops,
        )


@dataclass(frozen=True)
class Pressure:
    """How long processes waited for a resource (pressure stall information)."""

    some_s: float
    """Seconds in which at least one process waited, since the group was made."""
    full_s: float
    """Seconds in which all of them waited."""
    some_avg10: float
    """The share of the last 10 seconds in which at least one waited, in percent."""

    def __sub__(self, earlier: Pressure) -> Pressure:
        return Pressure(self.some_s - earlier.some_s, self.full_s - earlier.full_s, self.some_avg10)
