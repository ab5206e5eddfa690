"""VLANs, tunnels, controllers and wrong input; the examples show the rest."""

from __future__ import annotations

import socket
import struct
from itertools import pairwise

import pytest

from pytest_infra import (
    BadInput,
    Bucket,
    CheckFailed,
    Lab,
    Unavailable,
    assert_reachable,
    assert_unreachable,
    until,
)
from pytest_infra.net.bond import parse_bond
from pytest_infra.net.vlan import VlanMembership, check_vlans


@pytest.mark.parametrize("kind", ["bridge", "ovs"])
def test_vlans_are_segments(lab: Lab, kind: str) -> None:
    sw1, sw2 = (getattr(lab, kind)(name) for name in ("s1", "s2"))
    a, b, c, d = (lab.host(name) for name in "abcd")
    lab.link(a, sw1, vlan=10)
    lab.link(b, sw2, vlan=10)
    lab.link(c, sw1, vlan=20)
    lab.link(d, sw2, vlan=20)
    lab.link(sw1, sw2, trunk=[10], native=20)
    assert_reachable(a, b)
    assert_reachable(c, d)
    assert_reachable(a, b, family="ipv6")
    networks = [node.ports[0].addresses[0].network for node in (a, b, c, d)]
    assert networks[0] == networks[1] != networks[2] == networks[3]
    c.run(["ip", "address", "add", str(a.ports[0].addresses[0].network[77]) + "/24", "dev", "eth0"])
    assert_unreachable(c, a)
    found = {(entry.mac, entry.vlan) for entry in sw1.fdb}
    assert {(a.ports[0].mac, 10), (c.ports[0].mac, 20)} <= found


def test_a_trunk_reaches_a_host_with_its_tags(lab: Lab) -> None:
    sw = lab.ovs("sw")
    a, tagged = lab.host("a"), lab.host("tagged")
    lab.link(a, sw, vlan=7, ip="10.0.0.1/24")
    port = lab.link(tagged, sw, trunk="all", ip="10.1.0.1/24").a
    capture = lab.capture(port)
    a.run(["ping", "-c1", "-W1", "10.0.0.99"], check=False)
    until(lambda: any(frame.data[12:16] == b"\x81\x00\x00\x07" for frame in capture.frames), within_s=20, what="a tag")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"vlan": 0}, "vlan 0 is no VLAN"),
        ({"vlan": 4095}, "4094"),
        ({"vlan": True}, "vlan True is no VLAN"),
        ({"vlan": 1, "trunk": [2]}, "not both"),
        ({"native": 3}, "name the trunk's VLANs"),
        ({"trunk": []}, "a trunk needs a VLAN"),
        ({"trunk": "10"}, "a list of VLANs"),
        ({"trunk": [10, "x"]}, "trunk 'x' is no VLAN"),
    ],
)
def test_vlans_that_cannot_be(lab: Lab, arguments: dict[str, object], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        lab.link(lab.host(), lab.ovs(), **arguments)  # type: ignore[arg-type]
    assert lab.links == []


def test_a_vlan_between_hosts_is_refused(lab: Lab) -> None:
    with pytest.raises(BadInput, match="make a switch"):
        lab.link(lab.host("a"), lab.host("b"), vlan=3)


def test_what_a_port_carries() -> None:
    assert check_vlans(None, None, None) is None
    access, trunk = VlanMembership(access=5), VlanMembership(trunk=(7, 8), native=9)
    everything = VlanMembership(trunk=())
    assert [access.inside(tag) for tag in (0, 5, 7)] == [5, None, None]
    assert [trunk.inside(tag) for tag in (0, 7, 9, 10)] == [9, 7, None, None]
    assert [everything.inside(tag) for tag in (0, 7)] == [0, 7]


@pytest.mark.parametrize("kind", ["geneve", "gre"])
@pytest.mark.parametrize("switch", ["bridge", "ovs"])
def test_other_tunnels_where_the_kernel_has_them(lab: Lab, switch: str, kind: str) -> None:
    m1, m2 = lab.host("m1"), lab.host("m2")
    lab.link(m1, m2, mtu=1600)
    br1, br2 = (getattr(lab, switch)(name, host=host) for name, host in (("br1", m1), ("br2", m2)))
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, br1)
    lab.link(b, br2)
    lab.tunnel(br1, br2, kind=kind, key=77)  # type: ignore[arg-type]
    assert_reachable(a, b, size=1472)


@pytest.mark.parametrize("kind", ["vxlan", "geneve", "gre"])
def test_tunnels_of_the_userspace_datapath(lab: Lab, kind: str) -> None:
    m1, m2 = lab.host("m1"), lab.host("m2")
    under1, under2 = lab.ovs("u1", host=m1), lab.ovs("u2", host=m2)
    lab.link(under1, under2, mtu=1600)
    br1, br2 = lab.ovs("br1", host=m1), lab.ovs("br2", host=m2)
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, br1)
    lab.link(b, br2)
    overlay = lab.tunnel(br1, br2, kind=kind, key=77, over=(under1, under2))  # type: ignore[arg-type]
    lab.up()
    protocol, at = {"vxlan": (17, 46), "geneve": (17, 46), "gre": (47, 38)}[kind]
    wire = lab.capture(under1.ports[0], "ip")
    assert_reachable(a, b, size=1472)  # the first packet passes
    until(lambda: wire.count >= 2, within_s=20, what="both packets")
    key = {"vxlan": b"\0\0\x4d\0", "geneve": b"\0\0\x4d\0", "gre": b"\0\0\0\x4d"}[kind]
    assert all(frame.data[23] == protocol and frame.data[at : at + 4] == key for frame in wire.frames)
    overlay.down()
    with pytest.raises(CheckFailed, match=r"br1:br1-p2 is down"):
        assert_reachable(a, b)
    overlay.up()
    assert_reachable(a, b)
    under1.ports[0].down()
    with pytest.raises(CheckFailed, match=rf"the {kind} tunnel .* has no way .*: u1:u1-p1 is down"):
        assert_reachable(a, b)


def test_tunnels_that_cannot_be(lab: Lab) -> None:
    m1, m2, alone = lab.host("m1"), lab.host("m2"), lab.bridge("alone")
    br1, more, br2 = lab.bridge("br1", host=m1), lab.bridge("more", host=m1), lab.bridge("br2", host=m2)
    for ends, options, why in [
        ((br1, alone), {}, "switches of hosts"),
        ((br1, more), {}, "both in m1"),
        ((br1, br2), {"kind": "ipip"}, "no kind of tunnel 'ipip'"),
        ((br1, br2), {"key": 1 << 24}, "0 to 16777215"),
    ]:
        with pytest.raises(BadInput, match=why):
            lab.tunnel(*ends, **options)  # type: ignore[arg-type]
    o1, o2, u1, u2 = (lab.ovs(name, host=host) for name, host in (("o1", m1), ("o2", m2), ("u1", m1), ("u2", m2)))
    for over in ((br1, br2), (u2, u1), (o1, o2), (u1,), u1):
        with pytest.raises(BadInput, match="over="):
            lab.tunnel(o1, o2, over=over)  # type: ignore[arg-type]
    lab.tunnel(br1, br2)
    with pytest.raises(BadInput, match=r"has no way: its hosts have no addresses"):
        lab.up()


def test_a_controller_is_asked(lab: Lab) -> None:
    """A controller of a few lines: it says hello, and has the switch flood everything (OpenFlow 1.3)."""
    manager, controller = lab.host("manager"), lab.host("controller")
    lab.link(manager, controller, ip="10.9.0.1/24", peer_ip="10.9.0.2/24")
    sw = lab.ovs("sw", host=manager, controller="tcp:10.9.0.2:6653")
    a, b = lab.host("a"), lab.host("b")
    for host in (a, b):
        lab.link(host, sw)
    assert_unreachable(a, b)
    with controller.call(socket.create_server, ("10.9.0.2", 6653)) as server:
        server.settimeout(30)
        connection, _ = server.accept()
        with connection:
            connection.sendall(struct.pack("!BBHI", 4, 0, 8, 1))  # OFPT_HELLO
            output = struct.pack("!HHIH6x", 0, 16, 0xFFFFFFFB, 0xFFFF)  # OFPAT_OUTPUT to OFPP_FLOOD
            instruction = struct.pack("!HH4x", 4, 8 + len(output)) + output  # OFPIT_APPLY_ACTIONS
            match = struct.pack("!HH4x", 1, 4)
            body = struct.pack("!QQBBHHHIIIH2x", 0, 0, 0, 0, 0, 0, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
            message = body + match + instruction
            connection.sendall(struct.pack("!BBHI", 4, 14, 8 + len(message), 2) + message)  # OFPT_FLOW_MOD
            assert_reachable(a, b, within="30 s")
            until(lambda: sw.controller_connected, within_s=30, what="the switch says so")


@pytest.mark.parametrize("target", ["10.9.0.2:6653", "tcp:host:6653", "tcp:10.9.0.2:x", 7])
def test_controllers_that_are_not_understood(lab: Lab, target: str) -> None:
    with pytest.raises(BadInput, match=r"write 'tcp:192.0.2.1:6653'"):
        lab.ovs(controller=target)


def test_groups_meters_and_queues_that_cannot_be(lab: Lab) -> None:
    sw = lab.ovs("sw")
    lab.link(lab.host("a"), sw)
    for call, why in [
        (lambda: sw.group(1, "some", ["drop"]), "no kind of group 'some'"),
        (lambda: sw.group(1, "all", []), "a list of buckets"),
        (lambda: sw.group(1, "all", ["outptu:1"]), "unknown action outptu"),
        (lambda: sw.group(-1, "all", ["output:1"]), "group -1 cannot be used"),
        (lambda: sw.group(1, "fast_failover", ["drop"]), "outputs to no port"),
        (lambda: sw.group(1, "fast_failover", [Bucket("output:sw-p9")]), "sw-p9"),
        (lambda: sw.meter(0, "1 Mbit/s"), "meter 0 cannot be used"),
        (lambda: sw.meter(1, "fast"), "fast"),
        (lambda: sw.qos(lab.node("a").ports[0], "1 Mbit/s"), "not a port of sw"),
        (lambda: sw.qos(sw.ports[0], "1 Mbit/s", {-1: "1 Mbit/s"}), "queue -1"),
        (lambda: sw.mirror(lab.node("a").ports[0]), "not a port of sw"),
        (lambda: lab.ovs(spanning_tree="mstp"), "no spanning tree 'mstp'"),  # type: ignore[call-overload]
        (lambda: lab.bond(sw, lab.bridge()), "two Open vSwitch bridges"),  # type: ignore[arg-type]
        (lambda: lab.bond(sw, lab.ovs(), links=1), "2 to 16 links"),
        (lambda: lab.bond(sw, lab.ovs(), mode="balance-tcp", lacp=False), "needs LACP"),
    ]:
        with pytest.raises(BadInput, match=why):
            call()
    with pytest.raises(Unavailable, match="userspace datapath"):
        sw.qos(sw.ports[0], "1 Mbit/s", {1: "100 kbit/s"})
    sw.group(1, "all", ["output:1"])
    with pytest.raises(BadInput, match="there is a group of that number"):
        sw.group(1, "all", ["output:1"])


def test_a_bridge_speaks_the_spanning_tree_protocol(lab: Lab) -> None:
    switches = [lab.bridge(spanning_tree=True) for _ in range(3)]
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, switches[0])
    lab.link(b, switches[1])
    for one, other in pairwise([*switches, switches[0]]):
        lab.link(one, other)
    assert_reachable(a, b, within="60 s")


def test_a_bond_as_text() -> None:
    text = "---- bond ----\nbond_mode: balance-slb\nlacp_status: negotiated\n\nmember p1: enabled\n  active member\n"
    state = parse_bond(text + "  may_enable: true\n\nslave p2: disabled\n", ["p1", "p2"])
    assert (state.mode, state.lacp, state.members, state.active) == (
        "balance-slb",
        "negotiated",
        {"p1": True, "p2": False},
        "p1",
    )


@pytest.mark.stock_kernel
@pytest.mark.infra_requires("ovs-kernel")
def test_queues_of_the_kernel_datapath(lab: Lab) -> None:
    sw = lab.ovs("sw", datapath="system")
    a, b = lab.host("a"), lab.host("b")
    for host in (a, b):
        lab.link(host, sw)

    def in_queue_1() -> int:
        said = sw.ofctl(["-O", "OpenFlow13", "queue-stats", "sw"]).stdout
        return int(
            next(line for line in said.splitlines() if "queue 1:" in line).partition("pkts=")[2].partition(",")[0]
        )

    sw.qos(sw.ports[1], "100 Mbit/s", {1: "1 Mbit/s"})
    assert_reachable(a, b)
    assert in_queue_1() == 0  # the failing twin: no flow chooses the queue
    sw.flow("in_port=sw-p1", "set_queue:1,output:sw-p2")
    assert_reachable(a, b)
    assert in_queue_1() > 0
    assert sw.shaped[sw.ports[1]] == "rate 100 Mbit/s (queue 1 1 Mbit/s)"
