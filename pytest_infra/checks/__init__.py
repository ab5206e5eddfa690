"""Checks: they measure with sockets of their own, judge, and say why something failed."""

from __future__ import annotations

from . import workload
from .path import PathHop, PathReport, assert_path, traceroute
from .ping import PingReport, ping
from .reach import ReachReport, assert_reachable, measure_reach
from .unreach import UnreachableReport, assert_unreachable, measure_unreachable

__all__ = [
    "PathHop",
    "PathReport",
    "PingReport",
    "ReachReport",
    "UnreachableReport",
    "assert_path",
    "assert_reachable",
    "assert_unreachable",
    "measure_reach",
    "measure_unreachable",
    "ping",
    "traceroute",
    "workload",
]
