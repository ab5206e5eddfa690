"""What is said where a switch itself is in the way: controllers, spanning trees, bonds, meters, shaped ports."""

from __future__ import annotations

import re
import socket
import struct

import pytest
from breaking import cause
from syrupy.assertion import SnapshotAssertion

from pytest_infra import CheckFailed, assert_converged, assert_loss, assert_reachable, assert_throughput, until
from pytest_infra.checks import measure_reach
from pytest_infra.lab import Lab

LAB = "switching"


@pytest.mark.parametrize("connected", [False, True])
def test_a_controller(lab: Lab, connected: bool, snapshot: SnapshotAssertion) -> None:
    """One that is not there, and one that says hello and then nothing (OpenFlow 1.3)."""
    manager, controller, a, b = (lab.host(name) for name in ("manager", "controller", "a", "b"))
    lab.link(manager, controller, ip="10.9.0.1/24", peer_ip="10.9.0.2/24")
    sw = lab.ovs("sw", host=manager, controller="tcp:10.9.0.2:6653")
    for host in (a, b):
        lab.link(host, sw)
    if not connected:
        cause(a, b, "controller-gone", "sw", snapshot)
        return
    with controller.call(socket.create_server, ("10.9.0.2", 6653)) as server:
        server.settimeout(30)
        connection, _ = server.accept()
        with connection:
            connection.sendall(struct.pack("!BBHI", 4, 0, 8, 1))
            until(lambda: sw.controller_connected, within_s=30, what="the switch says so")
            cause(a, b, "controller-silent", "sw", snapshot)


@pytest.mark.parametrize("protocol", ["stp", "rstp"])
def test_a_spanning_tree_that_has_not_settled(lab: Lab, protocol: str, snapshot: SnapshotAssertion) -> None:
    sw = lab.ovs("sw", spanning_tree=protocol)  # type: ignore[call-overload]
    a, b = lab.host("a"), lab.host("b")
    for host in (a, b):
        lab.link(host, sw)
    report = measure_reach(a, b, within="100 ms")
    assert report.autopsy is not None
    assert report.autopsy.finding is not None
    assert report.autopsy.finding.kind == "port-blocked"
    text = re.sub("Listening|Learning|Discarding", "<state>", report.autopsy.finding.cause)
    assert text == snapshot
    assert_reachable(a, b, within="30 s")


def test_a_bond_whose_other_end_knows_nothing_of_it(lab: Lab, snapshot: SnapshotAssertion) -> None:
    sw1, sw2, a, b = lab.ovs("sw1"), lab.ovs("sw2"), lab.host("a"), lab.host("b")
    lab.link(a, sw1)
    lab.link(b, sw2)
    bond = lab.bond(sw1, sw2, mode="balance-tcp")
    assert_converged([a, b], within="60 s")
    sw2.vsctl(["set", "port", bond.name_at("sw2"), "lacp=off", "bond_mode=active-backup"])
    until(lambda: not any(sw1.bond(bond).members.values()), within_s=30, what="LACP gives up")
    cause(a, b, "bond-down", "sw1", snapshot)


def test_a_bond_without_a_wire(lab: Lab, snapshot: SnapshotAssertion) -> None:
    sw1, sw2, a, b = lab.ovs("sw1"), lab.ovs("sw2"), lab.host("a"), lab.host("b")
    lab.link(a, sw1)
    lab.link(b, sw2)
    bond = lab.bond(sw1, sw2, mode="active-backup", lacp=False)
    assert_converged([a, b], within="60 s")
    for link in bond.links:
        link.a.down()
    until(lambda: not any(sw1.bond(bond).members.values()), within_s=30, what="the switch sees it")
    cause(a, b, "interface-down", "sw1", snapshot)


def metered(lab: Lab) -> tuple[object, object]:
    sw, a, b = lab.ovs("sw"), lab.host("a"), lab.host("b")
    for host in (a, b):
        lab.link(host, sw)
    assert_reachable(a, b)
    sw.meter(1, "1 packets/s", burst=1)
    sw.flow("in_port=sw-p1,ip", "meter:1,NORMAL")
    return a, b


def test_a_meter_that_drops_probes(lab: Lab) -> None:
    a, b = metered(lab)
    report = measure_reach(a, b, count=10, within="1 s")  # type: ignore[arg-type]
    assert not report.ok
    words = r"above a rate of the switch: meter 1 of sw \(1 packets/s\) has dropped \d+ of \d+ packets"
    assert re.search(words, report.explain()), report.explain()


def test_a_meter_that_drops_datagrams(lab: Lab) -> None:
    a, b = metered(lab)
    words = r"(?s)cause +meter 1 of sw \(1 packets/s\) has dropped .*change what the switch does"
    with pytest.raises(CheckFailed, match=words):
        assert_loss(a, b, at_most=0.1, count=200)  # type: ignore[arg-type]


@pytest.mark.infra_requires("iperf3")
def test_a_port_that_the_switch_shapes(lab: Lab) -> None:
    sw, a, b = lab.ovs("sw"), lab.host("a"), lab.host("b")
    for host in (a, b):
        lab.link(host, sw)
    sw.qos(sw.ports[1], "5 Mbit/s")
    words = r"(?s)cause +sw shapes sw:sw-p2: rate 5 Mbit/s.*change what the switch does: switch.qos"
    with pytest.raises(CheckFailed, match=words):
        assert_throughput(a, b, at_least="50 Mbit/s")


def test_a_select_group_that_leads_elsewhere(lab: Lab, snapshot: SnapshotAssertion) -> None:
    sw, a, b, c = lab.ovs("sw"), lab.host("a"), lab.host("b"), lab.host("c")
    for host in (a, b, c):
        lab.link(host, sw)
    assert_reachable(a, b)
    sw.group(1, "select", ["output:sw-p3"])
    sw.flow("in_port=sw-p1,icmp", "group:1")
    cause(a, b, "flow-elsewhere", "sw", snapshot)


def test_a_select_group_that_works_is_no_cause(lab: Lab) -> None:
    """A trace ends where the datapath computes the hash, as if the packet were dropped."""
    sw, a, b = lab.ovs("sw"), lab.host("a"), lab.host("b")
    for host in (a, b):
        lab.link(host, sw)
    sw.group(1, "select", ["output:sw-p2"])
    sw.flow("in_port=sw-p1,icmp", "group:1")
    assert_reachable(a, b)
    b.sysctl["net.ipv4.icmp_echo_ignore_all"] = "1"
    report = measure_reach(a, b, within="100 ms")
    assert report.autopsy is not None
    assert report.autopsy.finding is not None
    assert report.autopsy.finding.kind == "echo-ignored"


@pytest.mark.parametrize("cut", [False, True])
def test_a_bond_that_works_is_no_cause(lab: Lab, cut: bool) -> None:
    sw1, sw2, a, b = lab.ovs("sw1"), lab.ovs("sw2"), lab.host("a"), lab.host("b")
    lab.link(a, sw1)
    lab.link(b, sw2)
    bond = lab.bond(sw1, sw2, mode="balance-tcp")
    assert_converged([a, b], within="60 s")
    if cut:
        bond.links[0].a.down()
        assert_reachable(a, b, within="30 s")
    b.sysctl["net.ipv4.icmp_echo_ignore_all"] = "1"
    report = measure_reach(a, b, within="100 ms")
    assert report.autopsy is not None
    assert report.autopsy.finding is not None
    assert report.autopsy.finding.kind == "echo-ignored"


def test_a_fast_failover_group_without_a_live_port(lab: Lab, snapshot: SnapshotAssertion) -> None:
    sw, a, b, c = lab.ovs("sw"), lab.host("a"), lab.host("b"), lab.host("c")
    for host in (a, b, c):
        lab.link(host, sw)
    assert_reachable(a, b)
    sw.group(1, "fast_failover", ["output:sw-p3"])
    sw.flow("in_port=sw-p1,icmp", "group:1")
    c.ports[0].down()
    cause(a, b, "flow-drops", "sw", snapshot)


@pytest.mark.parametrize("way", ["the kernel's", "over bridges", "over bridges that are not linked"])
def test_a_tunnel_without_a_way(lab: Lab, way: str, snapshot: SnapshotAssertion) -> None:
    m1, m2, r = lab.host("m1"), lab.host("m2"), lab.router("r")
    lab.link(m1, r, mtu=1600)
    lab.link(r, m2, mtu=1600)
    br1, u1 = lab.ovs("br1", host=m1), lab.ovs("u1", host=m1)
    br2, u2 = lab.ovs("br2", host=m2), lab.ovs("u2", host=m2)
    link = None if way.endswith("not linked") else lab.link(u1, u2, mtu=1600)
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, br1)
    lab.link(b, br2)
    lab.tunnel(br1, br2, over=(u1, u2) if way.startswith("over") else None)
    if link is not None:
        assert_reachable(a, b)
        link.down()
        r.ports[1].down()
    cause(a, b, "interface-down" if link else "not-a-port", {"the kernel's": "r"}.get(way, "u1"), snapshot)
