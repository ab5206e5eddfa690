"""Why a router whose daemons learn its routes has none (FRR); the texts are in __snapshots__."""

from __future__ import annotations

import re
from typing import Any

import pytest
from breaking import WITHIN, cause, normal
from syrupy.assertion import SnapshotAssertion

from pytest_infra import assert_reachable, until
from pytest_infra.checks import measure_reach
from pytest_infra.lab import Lab

LAB = "routing"

pytestmark = pytest.mark.infra_requires("frr")

INTERFACE = "interface eth0\n ip ospf area 0\n ip ospf hello-interval {}\n ip ospf dead-interval 20\n"
OSPF = INTERFACE + "router ospf\n redistribute connected\n"
BGP = "router bgp {}\n no bgp ebgp-requires-policy\n neighbor 10.0.0.{} remote-as {}\n"


def routers(lab: Lab, daemon: str, *configs: str) -> tuple[Any, Any]:
    """r1 and r2 on one wire, and a host behind r2."""
    r1, r2 = (lab.router(f"r{number}", daemons=[daemon], config=config) for number, config in enumerate(configs, 1))
    b = lab.host("b")
    lab.link(r1, r2, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.link(r2, b, ip="10.0.1.1/24", peer_ip="10.0.1.2/24")
    lab.up()
    return r1, b


def test_hello_intervals_differ(lab: Lab, snapshot: SnapshotAssertion) -> None:
    r1, b = routers(lab, "ospfd", OSPF.format(1), OSPF.format(5))
    cause(r1, b, "no-adjacency", "r1", snapshot)


def test_nobody_announces_it(lab: Lab, snapshot: SnapshotAssertion) -> None:
    r1, b = routers(lab, "ospfd", OSPF.format(1), INTERFACE.format(1) + "router ospf\n")
    until(lambda: "Full" in r1.vtysh("show ip ospf neighbor", json=False), within_s=60, what="they are neighbours")
    cause(r1, b, "no-route", "r1", snapshot)


def test_a_daemon_has_ended(lab: Lab, snapshot: SnapshotAssertion) -> None:
    r1, b = routers(lab, "ospfd", OSPF.format(1), OSPF.format(1))
    assert_reachable(r1, b, within="60 s")
    r1.kill_daemon("ospfd")

    def forgotten() -> bool:  # zebra takes its routes away, too, which may cross ours
        r1.run(["ip", "route", "flush", "proto", "ospf"], check=False)
        return not any(route.protocol == "ospf" for route in r1.routes)

    until(forgotten, within_s=20, what="its routes are gone")
    cause(r1, b, "daemon-ended", "r1", snapshot)


def test_the_number_of_an_as_is_wrong(lab: Lab, snapshot: SnapshotAssertion) -> None:
    r1, b = routers(lab, "bgpd", BGP.format(65001, 2, 65009), BGP.format(65002, 1, 65001))
    report = measure_reach(r1, b, within=WITHIN)
    assert report.autopsy is not None
    assert report.autopsy.finding is not None
    assert (report.autopsy.finding.kind, report.autopsy.finding.node) == ("no-adjacency", "r1")
    assert re.sub("state is [A-Za-z]+", "state is <state>", normal(report.explain())) == snapshot
