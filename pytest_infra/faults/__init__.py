"""Faults on request: of networks, of memory, disks, clocks and processes; undone at their end."""

from __future__ import annotations

from .clock import clock_moved
from .disk import fill_disk
from .memory import memory_pressure
from .network import (
    blackhole,
    cut,
    daemon_down,
    delay_step,
    duplicate_address,
    flapping,
    moved_mac,
    one_way,
    partition,
)
from .processes import frozen, kill

__all__ = [
    "blackhole",
    "clock_moved",
    "cut",
    "daemon_down",
    "delay_step",
    "duplicate_address",
    "fill_disk",
    "flapping",
    "frozen",
    "kill",
    "memory_pressure",
    "moved_mac",
    "one_way",
    "partition",
]
