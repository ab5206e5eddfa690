"""What a lab declares is what the kernel has, and what the lab says of it is what iproute2 says."""

from __future__ import annotations

from ipaddress import ip_interface
from itertools import pairwise
from typing import Any

import pytest

from pytest_infra.core.errors import BadInput, StartFailed
from pytest_infra.session import Infra


def routes_of(node: Any) -> dict[str, str]:
    return {str(route.destination): str(route.gateway) for route in node.routes if route.gateway}


def subnets(port: Any) -> list[str]:
    return [str(ip.network) for ip in port.addresses]


def test_two_hosts_reach_each_other_by_ipv4_and_ipv6(lab, echo):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    for host, port in ((a, link.b), (b, link.a)):
        for address in port.addresses:
            assert echo(host, address.ip) is not None


def test_the_five_lines_of_the_readme(lab, echo):
    sw1 = lab.bridge("sw1")
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, sw1, ip="192.168.1.10/24")
    lab.link(b, sw1, ip="192.168.1.20/24")
    assert echo(a, "192.168.1.20") is not None
    assert [str(address.ip) for address in a.addresses if address.scope == "global"] == ["192.168.1.10/24"]


def test_interfaces_are_what_ip_link_says(lab, ip):
    sw = lab.bridge("sw1")
    a, r = lab.host("a"), lab.router("r")
    lab.link(a, sw, mtu=1400, mac="02:00:00:00:0a:01", name="lan0")
    lab.link(a, r)
    lab.link(r, sw)
    for node in (a, r):
        said = {item["ifname"]: item for item in ip(node, "link")}
        assert set(said) == set(node.interfaces)
        for name, interface in node.interfaces.items():
            item = said[name]
            assert interface.index == item["ifindex"]
            assert interface.mac == item["address"]
            assert interface.mtu == item["mtu"]
            assert interface.up == ("UP" in item["flags"])
            assert interface.carrier == ("LOWER_UP" in item["flags"])
            assert interface.operstate == item["operstate"]
            assert interface.kind == item.get("linkinfo", {}).get("info_kind", "")
            assert interface.namespace_id == item.get("link_netnsid", -1)
    lan = a.interfaces["lan0"]
    assert (lan.mtu, lan.mac, lan.up, lan.carrier, lan.operstate, lan.kind) == (
        *(1400, "02:00:00:00:0a:01", True, True, "UP", "veth"),
    )
    assert a.interfaces["lo"].up


def test_the_interfaces_of_a_bridge_are_what_ip_link_says(lab, ip):
    sw = lab.bridge("sw1")
    a = lab.host("a")
    lab.link(a, sw)
    found = sw.interfaces
    assert set(found) == {"lo", "sw1", "sw1-p1"}
    assert found["sw1-p1"].master == "sw1"
    assert found["sw1-p1"].mtu == 1500
    assert found["sw1"].kind == "bridge"
    assert found["sw1"].carrier
    assert sw.ports[0].index == found["sw1-p1"].index
    assert "sw1-p1" in sw.show()
    assert "to a:eth0" in sw.show()


def test_addresses_are_what_ip_address_says(lab, ip):
    a, r = lab.host("a"), lab.router("r")
    lab.link(a, r, ip=["10.9.0.1/24", "10.9.1.1/31", "2001:db8::1/64"])
    for node in (a, r):
        said = {
            (item["ifname"], ip_interface(f"{one['local']}/{one['prefixlen']}"), one["scope"])
            for item in ip(node, "address")
            for one in item["addr_info"]
        }
        assert {(one.interface, one.ip, one.scope) for one in node.addresses} == said
        assert not any(one.tentative or one.duplicate for one in node.addresses)
    assert {str(one.ip) for one in a.addresses if one.scope == "global"} == {
        *("10.9.0.1/24", "10.9.1.1/31", "2001:db8::1/64"),
    }


def test_ipv4_addresses_have_their_broadcast_address(lab, ip):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip=["10.9.0.1/24", "10.9.1.1/31"])
    said = {one["local"]: one for item in ip(a, "-4", "address") for one in item["addr_info"]}
    assert said["10.9.0.1"]["broadcast"] == "10.9.0.255"
    assert "broadcast" not in said["10.9.1.1"]


@pytest.mark.parametrize("version", [4, 6])
def test_routes_are_what_ip_route_says(lab, ip, version):
    a, r1, r2, b = lab.host("a"), lab.router("r1"), lab.router("r2"), lab.host("b")
    for one, other in ((a, r1), (r1, r2), (r2, b)):
        lab.link(one, other)
    a.run(["ip", "route", "add", "blackhole", "10.66.0.0/16"])
    a.run(["ip", "route", "add", "10.67.0.0/16", "dev", "eth0", "metric", "77"])
    for node in (a, r1):
        said = {
            (
                ("0.0.0.0/0" if version == 4 else "::/0") if one["dst"] == "default" else one["dst"],
                *(one.get("dev", ""), one.get("gateway"), one.get("prefsrc"), one.get("metric", 0)),
                *(one.get("type", "unicast"), one["protocol"]),
            )
            for one in ip(node, f"-{version}", "route", "show", "table", "main")
            if one.get("type") not in ("multicast", "anycast", "local")
        }
        mine = {
            (
                *(str(one.destination), one.interface, one.gateway and str(one.gateway)),
                *(one.source and str(one.source), one.metric, one.kind, one.protocol),
            )
            for one in node.routes
            if one.destination.version == version
        }
        assert {(*one[:1], *one[1:]) for one in mine} == {
            (one[0] if "/" in one[0] else f"{one[0]}/{32 if version == 4 else 128}", *one[1:]) for one in said
        }


def test_neighbours_are_what_ip_neighbour_says(lab, ip, echo):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    for address in link.b.addresses:
        assert echo(a, address.ip) is not None
    a.run(["ip", "neighbour", "add", "198.18.0.99", "lladdr", "02:00:00:00:00:99", "dev", "eth0"])
    found = {str(one.ip): one for one in a.neighbours}
    said = {one["dst"]: one for one in ip(a, "neighbour")}
    assert set(found) == set(said)
    for address, one in found.items():
        assert (one.interface, one.mac) == (said[address]["dev"], said[address]["lladdr"])
    for address in link.b.addresses:
        assert found[str(address.ip)].mac == link.b.mac
    assert found["198.18.0.99"].state == "PERMANENT"


def test_a_neighbour_that_does_not_answer_is_shown_as_such(lab, echo):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    assert echo(a, "10.0.0.77", within_s=0.05) is None
    state = {str(one.ip): one for one in a.neighbours}["10.0.0.77"]
    assert state.state in ("INCOMPLETE", "FAILED")
    assert state.mac == ""


# -- routers -----------------------------------------------------------------------------------------------------


def test_a_chain_of_three_routers_passes_packets_both_ways(lab, echo):
    nodes = [lab.host("a"), lab.router("r1"), lab.router("r2"), lab.router("r3"), lab.host("b")]
    for one, other in pairwise(nodes):
        lab.link(one, other)
    lab.up()
    for node in nodes:
        for other in nodes:
            for port in other.ports:
                for address in port.addresses:
                    assert echo(node, address.ip) is not None, f"{node} to {port} {address}"
    for host in (nodes[0], nodes[-1]):
        assert set(routes_of(host)) == {"0.0.0.0/0", "::/0"}


def test_a_ring_of_routers(lab, echo):
    routers = [lab.router() for _ in range(5)]
    for one, other in zip(routers, [*routers[1:], routers[0]], strict=True):
        lab.link(one, other)
    hosts = [lab.host() for _ in routers]
    for host, router in zip(hosts, routers, strict=True):
        lab.link(host, router)
    for other in hosts[1:]:
        for address in other.ports[0].addresses:
            assert echo(hosts[0], address.ip) is not None


def test_hosts_do_not_forward(lab, echo):
    a, b, c = lab.host("a"), lab.host("b"), lab.host("c")
    lab.link(a, b, ip="10.1.0.1/24", peer_ip="10.1.0.2/24")
    lab.link(b, c, ip="10.2.0.1/24", peer_ip="10.2.0.2/24")
    a.run(["ip", "route", "add", "10.2.0.0/24", "via", "10.1.0.2"])
    c.run(["ip", "route", "add", "10.1.0.0/24", "via", "10.2.0.1"])
    assert echo(a, "10.1.0.2") is not None
    assert echo(a, "10.2.0.2", within_s=0.1) is None


def test_routes_false_leaves_the_routes_to_the_test(lab):
    a, r, b = lab.host("a", routes=False), lab.router("r"), lab.host("b")
    lab.link(a, r)
    lab.link(b, r)
    assert not routes_of(a)
    assert routes_of(b)


# -- declaring step by step --------------------------------------------------------------------------------------


def test_declaring_makes_nothing_and_the_first_look_makes_it_all(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    assert not a.started
    assert not b.started
    assert set(b.interfaces) == {"lo", "eth0"}
    assert a.started


def test_what_is_declared_later_joins_what_is_there(lab, echo):
    sw = lab.bridge()
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, sw)
    lab.link(b, sw)
    lab.up()
    before = a.addresses, a.interfaces["eth0"].index
    c = lab.host("c")
    lab.link(c, sw)
    lab.link(c, a)
    assert set(a.interfaces) == {"lo", "eth0", "eth1"}
    assert [one for one in a.addresses if one.interface != "eth1"] == before[0]
    assert a.interfaces["eth0"].index == before[1]
    for address in c.ports[0].addresses:
        assert echo(b, address.ip) is not None


def test_a_router_that_is_added_later_gives_everybody_routes(lab, echo):
    sw = lab.bridge()
    a, b, far = lab.host("a"), lab.host("b"), lab.host("far")
    lab.link(a, sw)
    lab.link(b, sw)
    assert not routes_of(a)
    r = lab.router("r")
    lab.link(r, sw)
    lab.link(far, r)
    assert set(routes_of(a)) == set(routes_of(b)) == {"0.0.0.0/0", "::/0"}
    for host in (a, b):
        for address in far.ports[0].addresses:
            assert echo(host, address.ip) is not None


def test_a_second_router_takes_the_place_of_a_default_route(lab, echo):
    a, left, right = lab.host("a"), lab.host("left"), lab.host("right")
    r1, r2 = lab.router("r1"), lab.router("r2")
    lab.link(a, r1)
    lab.link(left, r1)
    assert set(routes_of(a)) == {"0.0.0.0/0", "::/0"}
    lab.link(a, r2)
    lab.link(right, r2)
    assert set(routes_of(a)) == {*subnets(left.ports[0]), *subnets(right.ports[0])}
    for host in (left, right):
        for address in host.ports[0].addresses:
            assert echo(a, address.ip) is not None


def test_a_planned_route_that_the_test_has_deleted_is_no_obstacle(lab):
    a, left, right = lab.host("a"), lab.host("left"), lab.host("right")
    r1, r2 = lab.router("r1"), lab.router("r2")
    lab.link(a, r1)
    lab.link(left, r1)
    lab.up()
    a.run(["ip", "route", "del", "default"])
    a.run(["ip", "-6", "route", "del", "default"])
    lab.link(a, r2)
    lab.link(right, r2)
    assert set(routes_of(a)) == {*subnets(left.ports[0]), *subnets(right.ports[0])}


def test_up_again_does_nothing(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    lab.up()
    before = a.interfaces, a.routes
    lab.up()
    assert (a.interfaces, a.routes) == before


# -- the life of a lab -------------------------------------------------------------------------------------------


def test_a_lab_that_has_ended_says_so(infra):
    with infra.lab("gone") as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b)
        lab.up()
    for use in (
        lambda: a.run(["true"]),
        lambda: a.spawn(["true"]),
        lambda: a.call(int),
        lambda: a.interfaces,
        lambda: a.routes,
        a.ports[0].down,
        lambda: a.ports[0].carrier,
        lab.links[0].up,
        lab.up,
        lambda: lab.host("late"),
        lab.ovs,
        lambda: lab.link(a, b),
    ):
        with pytest.raises(StartFailed, match="the lab gone is not up: it has ended"):
            use()


def test_a_lab_that_was_never_started_says_so(infra):
    lab = infra.lab("cold")
    a = lab.host("a")
    with pytest.raises(StartFailed, match=r"the lab cold is not up: .* never started: use it in a with statement$"):
        a.run(["true"])
    with pytest.raises(StartFailed, match=r"the lab cold is not up: .* never started: use it in a with statement$"):
        lab.up()


def test_ending_a_lab_twice_is_fine(infra):
    lab = infra.lab().start()
    lab.host("a")
    lab.up()
    lab.stop()
    lab.stop()
    assert not lab.started


def test_a_lab_that_nobody_ends_ends_with_the_session(infra, nothing_left):
    with Infra() as session:
        lab = session.lab().start()
        lab.host("a").run(["true"])
    assert not lab.started
    nothing_left()


def test_two_labs_have_the_same_names_and_addresses_and_never_meet(infra, echo):
    with infra.lab("one") as one, infra.lab("two") as two:
        for lab in (one, two):
            lab.link(lab.host("a"), lab.bridge("sw1"), ip="10.0.0.1/24")
        two.link(two.host("b"), two.switches["sw1"], ip="10.0.0.2/24")
        assert echo(two.nodes["a"], "10.0.0.2") is not None
        assert echo(one.nodes["a"], "10.0.0.2", within_s=0.1) is None
        assert set(one.switches["sw1"].interfaces) == {"lo", "sw1", "sw1-p1"}
    with pytest.raises(BadInput, match=r"<Host a> is not a node of the lab one"):
        one.link(two.nodes["a"], one.nodes["a"])


def test_nodes_by_name_and_the_lab_as_data(lab):
    a, sw = lab.host("a"), lab.bridge("sw1")
    lab.link(a, sw, ip="10.0.0.1/24")
    assert lab.node("a") is a
    with pytest.raises(BadInput, match=r"no node 'b' in the lab .*; there are a$"):
        lab.node("b")
    facts = lab.describe()
    assert facts["nodes"] == [{"name": "a", "kind": "host", "ports": [{"name": "eth0", "addresses": ["10.0.0.1/24"]}]}]
    assert facts["switches"] == [{"name": "sw1", "kind": "bridge", "ports": ["sw1-p1"]}]
    assert facts["links"][0]["declared_at"].startswith("test_lab.py:")


def test_nothing_appears_in_the_machines_own_network(infra):
    machine = infra.machine
    before = machine.interfaces, machine.addresses, machine.routes
    with infra.lab() as lab:
        a, r, b = lab.host("a"), lab.router("r"), lab.host("b", isolate=["user", "mount"])
        sw = lab.bridge("sw1")
        for node in (a, b, r):
            lab.link(node, sw)
        lab.link(a, r)
        a.run(["true"])
        during = machine.interfaces, machine.addresses, machine.routes
    assert set(during[0]) == set(before[0])
    assert during[1:] == before[1:]


def test_the_tests_own_thread_stays_where_it_is(lab):
    import os

    here = os.readlink("/proc/thread-self/ns/net")
    a = lab.host("a")
    assert a.call(os.readlink, "/proc/thread-self/ns/net") != here
    a.run(["true"])
    assert os.readlink("/proc/thread-self/ns/net") == here
