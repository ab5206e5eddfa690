"""Whole networks: how long a fat tree and a leaf-spine take, and probing many of their pairs at once."""

from __future__ import annotations

import time
from collections.abc import Callable

from measure import Row, progress, rest

from pytest_infra import Infra, Lab, assert_all_reachable

PAIRS = 150  # the kernel's ARP table has 1024 entries for the whole machine


def _fat_tree(lab: Lab) -> object:
    return lab.fat_tree(8)


def _leaf_spine(lab: Lab) -> object:
    return lab.leaf_spine(spines=4, leaves=32, hosts=1000)


def topologies(runs: int) -> list[Row]:
    """A fat tree of 80 routers and 128 hosts, and a leaf-spine of 36 routers, 32 switches and 1,000 hosts."""
    rows = []
    for what, declare, limit_s in (
        ("fat tree, k = 8, 208 nodes", _fat_tree, 3.0),
        ("leaf-spine, 1,000 hosts", _leaf_spine, 10.0),
    ):
        rows += _rows(what, declare, limit_s, runs)
    return rows


def _rows(what: str, declare: Callable[[Lab], object], limit_s: float, runs: int) -> list[Row]:
    wall, cpu, probes = [], [], []
    for run in range(runs):
        progress(f"  {what}, {run + 1} of {runs}")
        with Infra() as infra:
            began, began_cpu = time.perf_counter(), time.process_time()
            with infra.lab() as lab:
                declare(lab)
                lab.up()
                wall.append(time.perf_counter() - began)
                cpu.append(time.process_time() - began_cpu)
                probes.append(assert_all_reachable(lab, pairs=PAIRS, within="5 s").elapsed_s * 1e3)
        rest()
    met = sorted(wall)[len(wall) // 2] <= limit_s
    return [
        Row(f"{what}: set-up", "s", wall, f"{limit_s:g} s", met),
        Row(f"{what}: set-up, processor time", "s", cpu),
        Row(f"{what}: {PAIRS} pairs probed at once", "ms", probes),
    ]
