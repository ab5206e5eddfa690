"""Faults on request: memory pressure, a full disk, killed and frozen processes. Each is undone at its end."""

from __future__ import annotations

from .disk import fill_disk
from .memory import memory_pressure
from .processes import frozen, kill

__all__ = ["fill_disk", "frozen", "kill", "memory_pressure"]
