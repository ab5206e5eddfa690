"""Faults on request: memory pressure, a full disk, wrong clocks, killed and frozen processes; undone at their end."""

from __future__ import annotations

from .clock import clock_moved
from .disk import fill_disk
from .memory import memory_pressure
from .processes import frozen, kill

__all__ = ["clock_moved", "fill_disk", "frozen", "kill", "memory_pressure"]
