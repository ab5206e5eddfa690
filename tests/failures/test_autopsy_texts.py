"""What an autopsy says of whole labs: switches with VLANs and flows, labs that were planned wrongly, loops, paths.

The texts are in __snapshots__; ``pytest --snapshot-update`` writes them anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from breaking import WITHIN, cause, nft, normal, sh
from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks import assert_path, assert_reachable, measure_reach
from pytest_infra.core.errors import CheckFailed
from pytest_infra.core.process import run
from pytest_infra.lab import Lab
from pytest_infra.net.host import Host
from pytest_infra.net.ovs import OvsBridge

LAB = "autopsy"


@dataclass
class Trunked:
    """a - sw1 - sw2 - b, both switches Open vSwitch."""

    a: Host
    b: Host
    sw1: OvsBridge
    sw2: OvsBridge


@pytest.fixture
def trunked(lab: Lab) -> Trunked:
    sw1, sw2 = lab.ovs("sw1"), lab.ovs("sw2")
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, sw1, ip="192.168.1.10/24")
    lab.link(b, sw2, ip="192.168.1.20/24")
    lab.link(sw1, sw2)
    return Trunked(a, b, sw1, sw2)


def flows(switch: OvsBridge, *new: str) -> None:
    switch.ofctl(["del-flows", switch.name])
    for flow in new:
        switch.add_flow(flow)


def ports(switch: OvsBridge, **settings: str) -> None:
    """Set columns of the table Port: ``p1="tag=10"``."""
    for name, setting in settings.items():
        switch.vsctl(["set", "port", f"{switch.name}-{name}", setting])


TRUNKED: dict[str, tuple[str, str, Callable[[Trunked], object]]] = {
    "a flow in a later table drops": (
        "flow-drops",
        "sw2",
        lambda lab: flows(
            lab.sw2,
            "priority=10,actions=resubmit(,5)",
            "table=5,priority=7,icmp,actions=drop",
            "table=5,priority=1,actions=NORMAL",
        ),
    ),
    "no flow": ("no-flow", "sw1", lambda lab: flows(lab.sw1, "priority=10,arp,actions=NORMAL")),
    "no flow for the answer": (
        "no-flow",
        "sw1",
        lambda lab: flows(lab.sw1, "in_port=sw1-p1,actions=NORMAL", "in_port=sw1-p2,arp,actions=NORMAL"),
    ),
    "no flow for arp": (
        "no-flow",
        "sw1",
        lambda lab: [sh(lab.a, "ip neighbour flush all"), flows(lab.sw1, "ip,actions=NORMAL")],
    ),
    "a flow to another port": ("flow-elsewhere", "sw1", lambda lab: flows(lab.sw1, "actions=LOCAL")),
    "different access ports": ("vlan", "sw1", lambda lab: ports(lab.sw1, p1="tag=10", p2="tag=20")),
    "trunk without the vlan": (
        "vlan",
        "sw1",
        lambda lab: [ports(lab.sw1, p1="tag=10", p2="trunks=20,30"), ports(lab.sw2, p1="tag=10")],
    ),
    "different vlans at the ends": (
        "vlan",
        "sw2",
        lambda lab: [ports(lab.sw1, p1="tag=10"), ports(lab.sw2, p1="tag=20")],
    ),
    "tagged at the host": ("vlan", "sw2", lambda lab: ports(lab.sw1, p1="tag=10")),
}


@pytest.mark.parametrize("name", TRUNKED)
def test_behind_two_switches(trunked: Trunked, name: str, snapshot: SnapshotAssertion) -> None:
    kind, node, breaks = TRUNKED[name]
    assert_reachable(trunked.a, trunked.b)
    breaks(trunked)
    cause(trunked.a, trunked.b, kind, node, snapshot)


def test_vlans_that_fit(trunked: Trunked) -> None:
    ports(trunked.sw1, p1="tag=10", p2="trunks=10,20")
    ports(trunked.sw2, p1="tag=10")
    assert_reachable(trunked.a, trunked.b)


BRIDGED: dict[str, list[str]] = {
    "different vlans of a bridge": ["vlan del dev sw1-p2 vid 1", "vlan add dev sw1-p2 vid 20 pvid untagged"],
    "untagged frames are dropped": ["vlan del dev sw1-p1 vid 1", "vlan add dev sw1-p1 vid 20"],
    "tagged at the host of a bridge": ["vlan add dev sw1-p2 vid 1"],
}


@pytest.mark.parametrize("name", BRIDGED)
def test_on_a_bridge_that_filters_vlans(lab: Lab, name: str, snapshot: SnapshotAssertion) -> None:
    switch, a, b = lab.bridge("sw1"), lab.host("a"), lab.host("b")
    lab.link(a, switch, ip="192.168.1.10/24")
    lab.link(b, switch, ip="192.168.1.20/24")
    assert_reachable(a, b)
    filtering = "ip link set sw1 type bridge vlan_filtering 1 vlan_default_pvid 1"
    if switch.namespace.call(run, filtering.split(), check=False).returncode:
        pytest.skip("this kernel's bridges do not filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING)")
    assert_reachable(a, b)
    for command in BRIDGED[name]:
        switch.namespace.call(run, ["bridge", *command.split()])
    cause(a, b, "vlan", "sw1", snapshot)


def test_two_subnets_on_one_switch(lab: Lab, snapshot: SnapshotAssertion) -> None:
    switch, a, b = lab.bridge("sw1"), lab.host("a"), lab.host("b")
    lab.link(a, switch, ip="192.168.1.10/24")
    lab.link(b, switch, ip="192.168.2.20/24")
    cause(a, b, "other-subnet", "a", snapshot)


def test_a_wrong_prefix_length(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="192.168.1.10/28", peer_ip="192.168.2.20/24")
    cause(a, b, "other-subnet", "a", snapshot)


def test_an_end_without_an_address(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="192.168.1.10/24", peer_ip=[])
    cause(a, "192.168.1.20", "nobody", "a", snapshot)


def test_a_host_where_a_router_was_meant(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b, c = lab.host("a"), lab.host("b"), lab.host("c")
    lab.link(a, c, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.link(c, b, ip="10.0.1.1/24", peer_ip="10.0.1.2/24")
    lab.up()
    sh(a, "ip route add 10.0.1.0/24 via 10.0.0.2")
    sh(b, "ip route add 10.0.0.0/24 via 10.0.1.1")
    cause(a, b, "not-a-router", "c", snapshot)


def test_an_address_that_two_hosts_have(lab: Lab, snapshot: SnapshotAssertion) -> None:
    switch, a, b, c = lab.bridge("sw1"), lab.host("a"), lab.host("b"), lab.host("c")
    for number, node in enumerate((a, b, c), 1):
        lab.link(node, switch, ip=f"192.168.1.{number}0/24")
    lab.up()
    sh(c, "ip address add 192.168.1.20/24 dev eth0")
    nft(c, "input", "ip daddr 192.168.1.20 drop")
    sh(a, f"ip neighbour replace 192.168.1.20 lladdr {c.ports[0].mac} dev eth0")
    cause(a, b, "duplicate-address", "c", snapshot)


@pytest.mark.parametrize("options", [{}, {"protocol": "tcp", "port": 80}], ids=["icmp", "tcp"])
def test_a_source_address_that_the_node_does_not_have(
    lab: Lab, options: dict[str, Any], snapshot: SnapshotAssertion
) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="192.168.1.10/24", peer_ip="192.168.1.20/24")
    cause((a, "192.168.1.11"), b, "wrong-source", "a", snapshot, **options)


def routed(lab: Lab) -> tuple[Host, Host, Host, Host]:
    a, b, r1, r2 = lab.host("a"), lab.host("b"), lab.router("r1"), lab.router("r2")
    for number, (near, far) in enumerate([(a, r1), (r1, r2), (r2, b)]):
        lab.link(near, far, ip=f"10.0.{number}.1/24", peer_ip=f"10.0.{number}.2/24")
    return a, r1, r2, b


POLICY: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "a loop": (
        "routing-loop",
        "r2",
        ("ip route add 10.0.2.2 via 10.0.1.1 table 100", "ip rule add to 10.0.2.2 lookup 100"),
    ),
    "a wrong gateway": (
        "wrong-gateway",
        "r2",
        ("ip route add default via 10.0.2.9 table 100", "ip rule add from 10.0.0.0/24 iif eth0 lookup 100"),
    ),
    "a route that drops": (
        "blackhole-route",
        "r2",
        ("ip route add blackhole default table 100", "ip rule add from 10.0.0.1 lookup 100"),
    ),
    "a rule that drops": ("blackhole-route", "r2", ("ip rule add from 10.0.0.1 blackhole",)),
    "a rule that refuses the answer": ("prohibit-route", "r2", ("ip rule add from 10.0.2.2 iif eth1 prohibit",)),
    "no route in what it jumps to": (
        "no-route",
        "r2",
        ("ip rule add to 10.0.2.2 goto 32767", "ip rule add pref 32767 lookup 253"),
    ),
}


@pytest.mark.parametrize("name", POLICY)
def test_policy_routing(lab: Lab, name: str, snapshot: SnapshotAssertion) -> None:
    a, _, r2, b = routed(lab)
    lab.up()
    kind, node, commands = POLICY[name]
    for command in commands:
        sh(r2, command)
    cause(a, b, kind, node, snapshot)


@pytest.mark.parametrize("rule", ["from 10.0.0.9", "not from all", "iif eth1", "to 10.0.9.0/24", "fwmark 1"])
def test_a_rule_for_other_packets(lab: Lab, rule: str) -> None:
    """It drops nothing, and where something else does, it is not blamed."""
    a, _, r2, b = routed(lab)
    lab.up()
    sh(r2, f"ip rule add {rule} blackhole")
    if rule == "iif eth1":
        sh(r2, "ip rule add pref 10 from 10.0.2.2 lookup main")
    assert_reachable(a, b)
    nft(r2, "forward", "drop")
    report = measure_reach(a, b, within=WITHIN)
    assert report.autopsy is not None
    assert report.autopsy.finding is not None
    assert report.autopsy.finding.kind == "filtered", report.explain()


def test_a_loop_that_no_table_shows(lab: Lab, snapshot: SnapshotAssertion) -> None:
    """The rule goes by a mark that the firewall sets."""
    a, _, r2, b = routed(lab)
    lab.up()
    sh(r2, "ip route add 10.0.2.2 via 10.0.1.1 table 100")
    sh(r2, "ip rule add fwmark 1 lookup 100")
    nft(r2, "prerouting", "ip daddr 10.0.2.2 meta mark set 1")
    cause(a, b, "ttl-exceeded", "r2", snapshot)


def test_a_path_with_a_firewall(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, r1, r2, b = routed(lab)
    assert_path(a, b, [r1, r2, b])
    nft(r2, "forward", "ip saddr 10.0.0.0/24 drop")
    with pytest.raises(CheckFailed) as failure:
        assert_path(a, b, [r1, r2, b], within=WITHIN)
    assert normal(str(failure.value)) == snapshot


def test_the_policy_of_a_chain(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, _, r2, b = routed(lab)
    lab.up()
    r2.run(["nft", "add table ip f"])
    r2.run(["nft", "add chain ip f forward { type filter hook forward priority 0; policy drop; }"])
    cause(a, b, "filtered", "r2", snapshot)


def test_a_served_tcp_check_with_a_firewall(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, r1, _, b = routed(lab)
    lab.up()
    nft(r1, "forward", "ip protocol tcp tcp flags & (syn | ack) == syn | ack drop")
    cause(a, b, "filtered", "r1", snapshot, protocol="tcp", serve=True, port=8080)


def test_a_served_udp_check_with_a_firewall(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, r1, _, b = routed(lab)
    lab.up()
    nft(r1, "forward", "udp dport 8080 drop")
    cause(a, b, "filtered", "r1", snapshot, protocol="udp", serve=True, port=8080)


IMPAIRED: dict[str, dict[str, str]] = {
    "loses all that comes back": {"loss": "100 %", "toward": "a"},
    "delays longer than was waited": {"delay": "2 s"},
}


@pytest.mark.parametrize("name", IMPAIRED)
def test_impaired_by_the_lab(lab: Lab, name: str, snapshot: SnapshotAssertion) -> None:
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    first = lab.link(a, r, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.link(r, b, ip="10.0.1.1/24", peer_ip="10.0.1.2/24")
    assert_reachable(a, b, within="10 s")
    values = dict(IMPAIRED[name])
    toward = lab.nodes[values.pop("toward")] if "toward" in values else None
    first.impair(toward=toward, **values)  # type: ignore[arg-type]
    at = "r" if toward is a else "a"
    cause(a, b, "impaired", at, snapshot)
    cause(a, b, "impaired", at, snapshot, protocol="udp", serve=True, port=80)


def test_a_wire_that_lets_nothing_through(lab: Lab) -> None:
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    lab.link(a, r, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.link(r, b, ip="10.0.1.1/24", peer_ip="10.0.1.2/24").impair(loss="100 %")
    for options in ({}, {"protocol": "udp", "serve": True}, {"protocol": "tcp", "serve": True}, {"within": "5 s"}):
        report = measure_reach(a, b, **options)  # neighbours unknown, then unresolved: the answers differ by kernel
        finding = report.autopsy and report.autopsy.finding
        assert finding, report.explain()
        assert (finding.kind, finding.node) == ("impaired", "r"), report.explain()
        assert "r:eth1 -> b:eth0: loss 100 %; b:eth0 -> r:eth1: loss 100 %" in finding.cause


def test_a_source_without_an_address_of_the_family(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip=["10.0.0.2/24", "fd00::2/64"])
    assert_reachable(a, b, within="10 s")
    sh(a, "ip -6 address flush dev eth0")  # it has a link-local one
    sh(a, "ip -6 route add fd00::/64 dev eth0")
    cause(a, b, "no-address", "a", snapshot, family="ipv6")


VIRTUAL = {
    "nobody listens behind it": ("rejected", "10.96.0.1"),
    "no server": ("filtered", "r"),
    "no server, on the source": ("filtered", "a"),
}


@pytest.mark.parametrize("name", VIRTUAL)
def test_a_virtual_service(lab: Lab, name: str, snapshot: SnapshotAssertion) -> None:
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    lab.link(a, r, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.link(r, b, ip="10.0.1.1/24", peer_ip="10.0.1.2/24")
    behind = [] if name.startswith("no server") else [(b, 8080)]
    web = lab.service("web", behind, port=80, on=[a if name.endswith("source") else r])
    lab.up()
    cause(a, web.address, *VIRTUAL[name], snapshot, protocol="tcp", port=80, within=None)


def test_a_port_that_was_given_no_address(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip=[], peer_ip="10.0.0.2/24")
    lab.up()
    a.run(["ip", "route", "add", "10.0.0.0/24", "dev", "eth0"])
    cause(a, b, "no-address", "a", snapshot)


def test_an_address_that_the_target_never_had(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.up()
    a.run(["ip", "route", "add", "10.9.9.9", "via", "10.0.0.2"])
    cause(a, (b, "10.9.9.9"), "no-address", "b", snapshot)
