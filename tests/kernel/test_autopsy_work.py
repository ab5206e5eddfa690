"""What an autopsy of ten hops does is bounded: commands are counted, not time, which a busy machine would decide."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from typing import Any

import pytest

from pytest_infra.checks import measure_reach

pytestmark = [pytest.mark.infra_requires("nft")]
ROUTERS = 9
FIREWALL = """table inet t {
    chain c { type filter hook forward priority 0; counter accept; }
}
"""
OF_A_FIREWALL = 2  # its table of traces is made, and taken away
OF_THE_DROP = 2  # which family the table has, and the rule's text


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The commands that this process starts from now on."""
    found: list[Any] = []
    start = subprocess.Popen.__init__

    def counting(self: Any, argv: Any, *rest: Any, **options: Any) -> None:
        found.append(argv)
        start(self, argv, *rest, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", counting)
    return found


def chain(lab: Any, ruleset: str) -> list[Any]:
    nodes = [lab.host("a"), *(lab.router(f"r{number}") for number in range(1, ROUTERS + 1)), lab.host("b")]
    for near, far in pairwise(nodes):
        lab.link(near, far)
    lab.up()
    for node in nodes[1:-1] if ruleset else []:
        node.nft(ruleset)
    assert measure_reach(nodes[0], nodes[-1], within="30 s").ok
    return nodes


def test_nine_firewalls_cost_two_commands_each(lab: Any, started: list[Any]) -> None:
    nodes = chain(lab, FIREWALL)
    nodes[-2].run(["nft", "insert rule inet t c icmp type echo-request drop"])
    started.clear()
    report = measure_reach(nodes[0], nodes[-1], within="100 ms")
    assert report.autopsy is not None
    assert report.autopsy.finding is not None, report.explain()
    assert (report.autopsy.finding.kind, report.autopsy.finding.node) == ("filtered", f"r{ROUTERS}"), report.explain()
    assert 0 < len(started) <= OF_A_FIREWALL * ROUTERS + OF_THE_DROP, started


def test_without_firewalls_no_command_is_run(lab: Any, started: list[Any]) -> None:
    nodes = chain(lab, "")
    nodes[-2].ports[1].down()
    started.clear()
    report = measure_reach(nodes[0], nodes[-1], within="100 ms")
    assert report.autopsy is not None
    assert report.autopsy.finding is not None, report.explain()
    assert report.autopsy.finding.kind == "interface-down", report.explain()
    assert started == []
