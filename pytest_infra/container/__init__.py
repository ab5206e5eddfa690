"""Containers as nodes of a lab: the engine, images, containers, and how to wait until one is ready."""

from __future__ import annotations

from . import ready
from .options import Health
from .volume import Bind, Tmpfs, Volume

__all__ = ["Bind", "Health", "Tmpfs", "Volume", "ready"]
