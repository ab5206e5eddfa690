"""Faults on request: of networks, of memory, disks, clocks and processes; undone at their end."""

from __future__ import annotations

from .clock import clock_moved
from .disk import fill_disk
from .memory import memory_pressure
from .network import blackhole, cut, duplicate_address, one_way, partition
from .processes import frozen, kill

__all__ = [
    "blackhole",
    "clock_moved",
    "cut",
    "duplicate_address",
    "fill_disk",
    "frozen",
    "kill",
    "memory_pressure",
    "one_way",
    "partition",
]
