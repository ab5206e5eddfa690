"""VLANs, OpenFlow groups and meters, mirrors, shaping, spanning tree, bonds and tunnels, on real switches."""

from __future__ import annotations

import json
import socket

import pytest

from pytest_infra import (
    BadInput,
    Bucket,
    CheckFailed,
    WaitTimeout,
    assert_converged,
    assert_reachable,
    assert_reconverged,
    assert_throughput,
    assert_unreachable,
    until,
)


def test_two_offices_share_a_trunk(lab):
    """Each VLAN reaches both switches, and nobody reaches another VLAN."""
    sw1, sw2 = lab.ovs(), lab.ovs()
    a, b, guest = lab.host("a"), lab.host("b"), lab.host("guest")
    lab.link(a, sw1, vlan=10, ip="10.0.0.1/24")
    lab.link(b, sw2, vlan=10, ip="10.0.0.2/24")
    lab.link(guest, sw2, vlan=20, ip="10.0.0.66/16")
    trunk = lab.link(sw1, sw2, trunk=[10, 20], native=99)
    assert_reachable(a, b)
    assert 10 in {entry.vlan for entry in sw2.fdb}
    assert_unreachable(guest, b)
    assert str(trunk.a.vlans) == "trunk of VLANs 10, 20, native 99"


def test_a_trunk_that_lacks_a_vlan(lab):
    """The failing twin."""
    sw1, sw2 = lab.ovs(), lab.ovs()
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, sw1, vlan=10, ip="10.0.0.1/24")
    lab.link(b, sw2, vlan=10, ip="10.0.0.2/24")
    lab.link(sw1, sw2, trunk=[20])
    with pytest.raises(CheckFailed, match=r"VLAN 10"):
        assert_reachable(a, b)


@pytest.fixture
def switch(lab):
    """a, b and c on the ports 1, 2 and 3."""
    sw = lab.ovs("sw")
    for name in ("a", "b", "c"):
        lab.link(lab.host(name), sw)
    return sw


def test_a_group_fails_over(lab, switch):
    """Two wires between two switches, without a spanning tree: the second one is used while the first one is cut."""
    other = lab.ovs("other")
    first, second = lab.link(switch, other), lab.link(switch, other)
    far = lab.host("far")
    lab.link(far, other)
    for sw in (switch, other):
        wires = [port.name for port in sw.ports if port.link in (first, second)]
        (host, *_) = [port.name for port in sw.ports if port.name not in wires]
        sw.group(1, "fast_failover", [f"output:{wire}" for wire in wires])
        sw.flow(f"in_port={host}", "group:1")
        for wire in wires:
            sw.flow(f"in_port={wire}", f"output:{host}")
    a = lab.node("a")
    assert_reachable(a, far)
    print(assert_reconverged([a, far], after=first.down, within="2 s").explain())
    packets = switch.groups[0].buckets
    assert packets[0] > 0
    assert packets[1] > 0
    with pytest.raises(CheckFailed, match=r"stays silent"):  # the failing twin: the second wire is cut as well
        assert_reconverged([a, far], after=second.down, within="1 s")


def send_many(address: str, count: int, size: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for port in range(10_000, 10_000 + count):
            sock.sendto(bytes(size), (address, port))


def test_a_select_group_spreads_flows(lab, switch):
    switch.group(1, "select", [Bucket("output:sw-p2"), Bucket("output:sw-p3", weight=3)], hash="udp_dst")
    switch.flow("in_port=sw-p1,udp", "group:1")
    a, b = lab.node("a"), lab.node("b")
    assert_reachable(a, b)
    a.call(send_many, str(b.ports[0].addresses[0].ip), 200, 10)
    until(lambda: switch.groups[0].packets >= 200, within_s=20, what="the packets are counted")
    first, second = switch.groups[0].buckets
    assert first > 10
    assert second > first


def test_a_meter_drops_what_is_too_much(lab, switch):
    switch.meter(1, "10 packets/s", burst=5)
    switch.flow("in_port=sw-p1,udp", "meter:1,NORMAL")
    a, b = lab.node("a"), lab.node("b")
    assert_reachable(a, b)
    a.call(send_many, str(b.ports[0].addresses[0].ip), 500, 100)
    until(lambda: switch.meters[0].packets >= 100, within_s=20, what="the packets are counted")
    counted = switch.meters[0]
    assert counted.dropped_packets > counted.packets / 2


def test_a_meter_is_named_where_packets_are_missing(lab, switch):
    """The failing twin."""
    switch.meter(1, "1 packets/s", burst=1)
    switch.flow("in_port=sw-p1,icmp", "meter:1,NORMAL")
    with pytest.raises(CheckFailed, match=r"meter 1 of sw \(1 packets/s\) has dropped"):
        assert_reachable(lab.node("a"), lab.node("b"), count=10, within="1 s")


def test_a_select_group_without_the_right_port(lab, switch):
    """The failing twin: its only bucket leads to c."""
    a, b = lab.node("a"), lab.node("b")
    assert_reachable(a, b)
    switch.group(1, "select", ["output:sw-p3"])
    switch.flow("in_port=sw-p1,icmp", "group:1")
    with pytest.raises(CheckFailed, match=r"sw sends it out by sw-p3, not by sw-p2"):
        assert_reachable(a, b)


def test_a_mirror_shows_what_passes(lab, switch):
    a, b, c = (lab.node(name) for name in "abc")
    capture = switch.mirror(switch.ports[1], filter="icmp")
    assert_reachable(a, c)
    assert_reachable(a, b)
    capture.wait(2)
    assert capture.count == 2  # the request and the reply between a and b, and nothing of c
    switch.flow("in_port=sw-p1,icmp", "output:sw-p3")  # the failing twin: b gets nothing any more
    with pytest.raises(CheckFailed, match=r"sw sends it out by sw-p3"):
        assert_reachable(a, b)
    with pytest.raises(WaitTimeout, match=r"3 frames that match 'icmp' at sw:sw-m1-x: 2 within 1 s"):
        capture.wait(3, within="1 s")


@pytest.mark.infra_requires("iperf3")
def test_a_port_is_shaped(lab, switch):
    switch.qos(switch.ports[1], "20 Mbit/s")
    a, b = lab.node("a"), lab.node("b")
    b.spawn(["iperf3", "--server", "--one-off"])
    address = str(b.ports[0].addresses[0].ip)

    def measured() -> float:
        done = a.run(["iperf3", "--client", address, "--time", "2", "--json"], check=False)
        report = json.loads(done.stdout)
        return 0.0 if "error" in report else report["end"]["sum_received"]["bits_per_second"]

    rate_bps = until(measured, within_s=30, what="iperf3 answers")
    assert 1e6 < rate_bps < 22e6
    with pytest.raises(CheckFailed, match=r"sw shapes sw:sw-p2: rate 20 Mbit/s"):  # the failing twin
        assert_throughput(a, b, at_least="60 Mbit/s")


def test_a_spanning_tree_that_has_not_settled(lab):
    """The failing twin: a port passes frames after seconds only."""
    sw = lab.ovs("sw", spanning_tree="rstp")
    a, b = lab.host("a"), lab.host("b")
    for host in (a, b):
        lab.link(host, sw)
    with pytest.raises(CheckFailed, match=r"sw:sw-p1 is in the state \w+ \(role Designated\): the spanning tree"):
        assert_reachable(a, b, within="200 ms")


def test_a_spanning_tree_breaks_the_loop(lab):
    switches = [lab.ovs(spanning_tree="rstp") for _ in range(3)]
    hosts = [lab.host() for _ in switches]
    for host, sw in zip(hosts, switches, strict=True):
        lab.link(host, sw)
    links = [lab.link(switches[number], switches[(number + 1) % 3]) for number in range(3)]
    assert_converged(hosts, within="60 s")
    states = [sw.spanning_tree[port.name].state for sw in switches for port in sw.ports]
    assert states.count("Discarding") == 1
    used = next(link for link in links if all(p.node.spanning_tree[p.name].state == "Forwarding" for p in link.ports))
    print(assert_reconverged(hosts, after=used.down, within="30 s").explain())


def test_a_bond_loses_a_wire(lab):
    sw1, sw2 = lab.ovs(), lab.ovs()
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, sw1)
    lab.link(b, sw2)
    bond = lab.bond(sw1, sw2, mode="balance-tcp", lacp=True)
    assert_converged([a, b], within="60 s")
    until(lambda: all(sw1.bond(bond).members.values()), within_s=30, what="both wires are used")
    print(assert_reconverged([a, b], after=bond.links[0].down, within="5 s").explain())
    assert sw1.bond(bond).lacp == "negotiated"
    sw2.vsctl(["set", "port", bond.name_at(sw2.name), "lacp=off", "bond_mode=active-backup"])  # the failing twin
    until(lambda: not any(sw1.bond(bond).members.values()), within_s=30, what="LACP gives up")
    with pytest.raises(CheckFailed, match=r"uses none of its links; the other end does not answer by LACP"):
        assert_reachable(a, b)


@pytest.mark.parametrize("kind", ["bridge", "ovs"])
def test_guests_of_two_machines_share_a_network(lab, kind):
    """VXLAN between the switches of two machines, over a router."""
    m1, m2, r = lab.router("m1"), lab.router("m2"), lab.router("r")
    lab.link(m1, r, mtu=1600)
    lab.link(r, m2, mtu=1600)
    br1, br2 = getattr(lab, kind)("br1", host=m1), getattr(lab, kind)("br2", host=m2)
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, br1)
    lab.link(b, br2)
    lab.tunnel(br1, br2, kind="vxlan", key=42)
    wire = lab.capture(r.ports[0], "udp port 4789")
    assert_reachable(a, b, size=1472)
    wire.wait(2)
    r.ports[1].down()
    with pytest.raises(CheckFailed, match=r"the vxlan tunnel .* has no way .*: r:eth1 is down"):  # the failing twin
        assert_reachable(a, b)


def test_a_wrong_flow_is_refused_before_it_is_sent(switch):
    for match, actions, why in [
        ("tcp,tcp_dts=80", "drop", r"unknown keyword tcp_dts; did you mean 'tcp_dst'\?"),
        ("tcp_dst=80", "drop", r"has no effect, because the match does not ask for the protocol"),
        ("ip,nw_dst=192.0.2.300", "drop", r"'192.0.2.300' is no IPv4 address"),
        ("", "output:sw-p9", r"sw-p9: output to unknown port; it has sw-p1, sw-p2, sw-p3"),
        ("", "group:7", r"names a group that the switch does not have"),
    ]:
        with pytest.raises(BadInput, match=rf"(?s)declared at test_switching.py:\d+.*{why}"):
            switch.flow(match, actions)
    assert len(switch.flows()) == 1
