"""Checks: they measure with sockets of their own, judge, and say why something failed."""

from __future__ import annotations

from .ping import PingReport, ping
from .reach import ReachReport, assert_reachable, measure_reach

__all__ = [
    "PingReport",
    "ReachReport",
    "assert_reachable",
    "measure_reach",
    "ping",
]
