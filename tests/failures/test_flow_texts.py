"""Flows of Open vSwitch that change a packet so that nobody takes it, and meters: named by the switch's own trace.

The texts are in __snapshots__; ``pytest --snapshot-update`` writes them anew.
"""

from __future__ import annotations

from typing import Any

import pytest
from breaking import cause, nft, sh
from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks import assert_reachable
from pytest_infra.lab import Lab

LAB = "flows"
pytestmark = pytest.mark.infra_requires("ovs")

FROM_A, FROM_B = "in_port=sw-p1", "in_port=sw-p2"
CHANGES = {
    "the MAC address": (f"ip,{FROM_A}", "mod_dl_dst:02:00:00:00:00:99,output:sw-p2"),
    "the MAC address of the answer": (f"ip,{FROM_B}", "mod_dl_dst:02:00:00:00:00:99,output:sw-p1"),
    "the address": (f"ip,{FROM_A}", "mod_nw_dst:10.0.0.77,output:sw-p2"),
    "a tag": (f"ip,{FROM_A}", "mod_vlan_vid:7,output:sw-p2"),
    "a tag, and as usual": (f"ip,{FROM_A}", "mod_vlan_vid:7,NORMAL"),
}


def two_on_a_switch(lab: Lab, **vlan: Any) -> tuple[Any, Any, Any]:
    sw = lab.ovs("sw")
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, sw, ip="10.0.0.1/24", **vlan)
    lab.link(b, sw, ip="10.0.0.2/24")
    lab.up()
    assert_reachable(a, b)
    return sw, a, b


@pytest.mark.parametrize("what", CHANGES)
def test_a_flow_changes(lab: Lab, what: str, snapshot: SnapshotAssertion) -> None:
    sw, a, b = two_on_a_switch(lab)
    sw.flow(*CHANGES[what])
    cause(a, b, "flow-changes", "sw", snapshot)


def test_a_flow_changes_the_port(lab: Lab, snapshot: SnapshotAssertion) -> None:
    sw, a, b = two_on_a_switch(lab)
    b.spawn(["iperf3", "--server", "--port", "5001"])
    assert_reachable(a, b, protocol="tcp", port=5001, within="10 s")
    sw.flow(f"tcp,{FROM_A}", "mod_tp_dst:99,output:sw-p2")
    cause(a, b, "flow-changes", "sw", snapshot, protocol="tcp", port=5001)


def test_a_flow_takes_the_time_to_live(lab: Lab, snapshot: SnapshotAssertion) -> None:
    sw, a, r, b = lab.ovs("sw"), lab.host("a"), lab.router("r"), lab.host("b")
    lab.link(a, sw, ip="10.0.0.1/24")
    lab.link(r, sw, ip="10.0.0.254/24")
    lab.link(r, b, ip="10.0.1.254/24", peer_ip="10.0.1.1/24")
    lab.up()
    sw.flow(f"ip,{FROM_A}", "mod_nw_ttl:1,output:sw-p2")
    nft(r, "output", "icmp type time-exceeded drop")
    cause(a, b, "flow-changes", "sw", snapshot)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_flow_drops_what_asks_for_a_neighbour(lab: Lab, family: str, snapshot: SnapshotAssertion) -> None:
    sw, a, b = lab.ovs("sw"), lab.host("a"), lab.host("b")
    lab.link(a, sw, ip=["10.0.0.1/24", "fd00::1/64"])
    lab.link(b, sw, ip=["10.0.0.2/24", "fd00::2/64"])
    lab.up()
    sw.flow("arp" if family == "ipv4" else "icmp6,icmp_type=135", "drop")
    sh(a, "ip neighbour flush all")
    cause(a, b, "flow-drops", "sw", snapshot, family=family)


def test_flows_that_undo_each_other_are_no_cause(lab: Lab, snapshot: SnapshotAssertion) -> None:
    """One switch sets a tag and the other one takes it away; a rule of the server is to blame."""
    one, two, a, b = lab.ovs("one"), lab.ovs("two"), lab.host("a"), lab.host("b")
    lab.link(a, one, ip="10.0.0.1/24")
    lab.link(one, two)
    lab.link(b, two, ip="10.0.0.2/24")
    lab.up()
    one.flow("ip,in_port=one-p1", "mod_vlan_vid:7,output:one-p2")
    two.flow("in_port=two-p1,dl_vlan=7", "pop_vlan,output:two-p2")
    assert_reachable(a, b)
    nft(b, "input", "icmp type echo-request drop")
    cause(a, b, "filtered", "b", snapshot)


def test_a_trunk_without_the_vlan_of_two_hosts(lab: Lab, snapshot: SnapshotAssertion) -> None:
    """They are apart in the plan, so the lab has given them different subnets."""
    one, two, a, b = lab.ovs("one"), lab.ovs("two"), lab.host("a"), lab.host("b")
    lab.link(a, one, vlan=10)
    lab.link(one, two, trunk=[20, 30])
    lab.link(b, two, vlan=10)
    cause(a, b, "vlan", "one", snapshot)


def test_vlans_that_flows_do_not_heed_are_no_cause(lab: Lab, snapshot: SnapshotAssertion) -> None:
    """A flow that names a port passes the ports' VLANs by (ovs-actions(7))."""
    sw, a, b = lab.ovs("sw"), lab.host("a"), lab.host("b")
    lab.link(a, sw, ip="10.0.0.1/24", vlan=10)
    lab.link(b, sw, ip="10.0.0.2/24", vlan=20)
    lab.up()
    for near, far in ("12", "21"):
        sw.flow(f"in_port=sw-p{near}", f"output:sw-p{far}")
    assert_reachable(a, b)
    nft(b, "input", "icmp type echo-request drop")
    cause(a, b, "filtered", "b", snapshot)
