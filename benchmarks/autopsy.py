"""What an autopsy costs: a lab of ten hops in which the last router is broken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

from measure import Row, progress

from pytest_infra import Infra, Lab
from pytest_infra.checks import measure_reach

ROUTERS = 9
PATIENCE_S = 0.1
LIMIT_S = 1.0


def chain(lab: Lab, rules: bool) -> list[object]:
    """Two hosts and nine routers in a row, each with a firewall where that is asked for."""
    nodes = [lab.host("a"), *(lab.router() for _ in range(ROUTERS)), lab.host("b")]
    for near, far in pairwise(nodes):
        lab.link(near, far)
    lab.up()
    for node in nodes[1:-1] if rules else []:
        node.run(["nft", "add table inet t"])
        node.run(["nft", "add chain inet t c { type filter hook forward priority 0; }"])
        node.run(["nft", "add rule inet t c counter accept"])
    return nodes


def pull_the_plug(lab: Lab) -> None:
    lab.nodes[f"r{ROUTERS}"].ports[1].down()


def drop_it(lab: Lab) -> None:
    lab.nodes[f"r{ROUTERS}"].run(["nft", "insert rule inet t c icmp type echo-request drop"])


def stay_silent(lab: Lab) -> None:
    lab.nodes["b"].sysctl["net.ipv4.icmp_echo_ignore_all"] = "1"


CASES: dict[str, tuple[bool, Callable[[Lab], None], str]] = {
    "an interface is down": (False, pull_the_plug, "interface-down"),
    "the target answers no echo requests": (False, stay_silent, "echo-ignored"),
    "a rule drops it, nine firewalls traced": (True, drop_it, "filtered"),
}


def autopsy(runs: int) -> list[Row]:
    """From the end of the failed probe to the end of the check, second probe included."""
    rows = []
    with Infra() as infra:
        for name, (rules, breaks, kind) in CASES.items():
            progress(f"  autopsy: {name}")
            took = []
            for _ in range(runs):
                with infra.lab() as lab:
                    nodes = chain(lab, rules)
                    assert measure_reach(nodes[0], nodes[-1], within="10 s").ok
                    breaks(lab)
                    began = time.monotonic()
                    report = measure_reach(nodes[0], nodes[-1], within=PATIENCE_S)
                    took.append(1e3 * (time.monotonic() - began - report.elapsed_s))
                    assert report.autopsy is not None
                    assert report.autopsy.finding is not None
                    assert report.autopsy.finding.kind == kind, report.explain()
            met = statistics.median(took) <= LIMIT_S * 1e3
            rows.append(Row(f"autopsy, ten hops: {name}", "ms", took, f"{LIMIT_S:.0f} s", met))
    return rows
