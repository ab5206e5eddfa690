"""Links: carrier, administrative state, what comes back after a cut, MTU, MAC addresses and names."""

from __future__ import annotations

import socket

import pytest

from pytest_infra import assert_reachable, ping
from pytest_infra.core.errors import BadInput


def test_the_far_end_has_no_carrier_until_the_near_end_is_up(lab):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    link.b.down()
    for _ in range(2):
        eth0 = a.interfaces["eth0"]
        assert (eth0.up, eth0.carrier) == (True, False)
        assert eth0.operstate == "LOWERLAYERDOWN"
        assert not b.interfaces["eth0"].up
        assert b.interfaces["eth0"].operstate == "DOWN"
        assert not link.carrier
        assert not link.a.carrier
        link.b.up()
        for host in (a, b):
            eth0 = host.interfaces["eth0"]
            assert (eth0.up, eth0.carrier, eth0.operstate) == (True, True, "UP")
        assert link.carrier
        link.b.down()


def test_a_hand_made_veth_has_the_same_states(lab, ip):
    """The same with iproute2 alone, so that the states above are the kernel's and not ours."""
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    a.run(["ip", "link", "add", "x0", "type", "veth", "peer", "name", "x1"])
    a.run(["ip", "link", "set", "x0", "up"])
    assert a.interfaces["x0"].operstate == "LOWERLAYERDOWN"
    assert not a.interfaces["x0"].carrier
    a.run(["ip", "link", "set", "x1", "up"])
    assert a.interfaces["x0"].operstate == "UP"
    assert a.interfaces["x0"].carrier
    assert a.interfaces["x0"].namespace_id == -1


def test_a_link_that_is_down_passes_nothing_and_comes_back_with_addresses_and_routes(lab, echo):
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    first, second = lab.link(a, r), lab.link(r, b)
    targets = [address.ip for address in second.b.addresses]
    before = {node: (node.addresses, set(node.routes)) for node in (a, r, b)}
    assert len(targets) == 2
    for cut in (first, second):
        cut.down()
        assert not cut.carrier
        for target in targets:
            assert echo(a, target, within_s=0.05) is None
        cut.up()
        assert cut.carrier
        for target in targets:
            assert echo(a, target) is not None, f"{cut}: {target}"
    for node, (addresses, routes) in before.items():
        assert sorted(map(str, node.addresses)) == sorted(map(str, addresses)), node
        assert set(node.routes) == routes, node


def test_a_link_to_a_switch_goes_down_as_a_pulled_plug(lab, echo):
    sw, a, b = lab.bridge("sw1"), lab.host("a"), lab.host("b")
    link = lab.link(a, sw)
    lab.link(b, sw)
    link.down()
    eth0 = a.interfaces["eth0"]
    assert eth0.up
    assert eth0.operstate == "LOWERLAYERDOWN"
    assert not sw.interfaces["sw1-p1"].up
    assert all(route.linkdown for route in a.routes if route.interface == "eth0" and route.destination.version == 4)
    link.up()
    assert a.interfaces["eth0"].operstate == "UP"
    for address in a.ports[0].addresses:
        assert echo(b, address.ip) is not None


def test_up_mends_what_each_end_has_taken_down(lab, echo):
    """The host had taken its own end down, too: afterwards every end is up."""
    sw, a, r = lab.bridge("sw1"), lab.host("a"), lab.router("r")
    link = lab.link(a, sw)
    lab.link(r, sw)
    far = lab.host("far")
    lab.link(far, r)
    link.down()
    link.a.down()
    link.up()
    for address in far.ports[0].addresses:
        assert echo(a, address.ip) is not None


@pytest.mark.parametrize("end", ["a", "b"])
def test_one_end_down_and_up(lab, echo, end):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    port = getattr(link, end)
    for _ in range(3):
        port.down()
        assert not link.carrier
        assert echo(a, link.b.addresses[0].ip, within_s=0.05) is None
        port.up()
        for address in link.b.addresses:
            assert echo(a, address.ip) is not None
    port.up()
    assert link.carrier


def test_the_first_packet_after_a_cut_passes_at_once(lab, echo):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    slowest = 0.0
    for _ in range(20):
        link.down()
        link.up()
        for address in link.b.addresses:
            took = echo(a, address.ip)
            assert took is not None
            slowest = max(slowest, took)
    assert slowest < 0.5, "the kernel delivers carrier changes within a second; here they are waited for"


def test_links_between_switches(lab, echo):
    s1, s2, s3 = lab.bridge("s1"), lab.bridge("s2"), lab.bridge("s3")
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, s1)
    lab.link(b, s3)
    trunk = lab.link(s1, s2)
    lab.link(s3, s2)
    for address in b.ports[0].addresses:
        assert echo(a, address.ip) is not None
    trunk.down()
    assert echo(a, b.ports[0].addresses[0].ip, within_s=0.05) is None
    trunk.up()
    assert echo(a, b.ports[0].addresses[0].ip) is not None


def test_mtu_mac_and_names_of_both_ends(lab, ip):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(
        *(a, b), mtu=9000, mac="02:00:00:00:00:0A", peer_mac="02-00-00-00-00-0b", name="left", peer_name="right"
    )
    assert (link.a.name, link.b.name) == ("left", "right")
    assert (link.a.mac, link.b.mac) == ("02:00:00:00:00:0a", "02:00:00:00:00:0b")
    for host, name, mac in ((a, "left", link.a.mac), (b, "right", link.b.mac)):
        (said,) = ip(host, "link", "show", name)
        assert (said["mtu"], said["address"]) == (9000, mac)


@pytest.mark.parametrize("mtu", [68, 576, 1279, 1280, 65535])
def test_every_mtu_that_is_allowed_works(lab, echo, mtu):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, mtu=mtu, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    assert a.interfaces["eth0"].mtu == b.interfaces["eth0"].mtu == mtu
    assert echo(a, link.b.addresses[0].ip) is not None


def test_a_small_mtu_leaves_no_room_for_ipv6(lab, echo):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, mtu=1000)
    assert [ip.version for ip in link.a.addresses] == [4]
    assert echo(a, link.b.addresses[0].ip) is not None


def send_unfragmented(address, payload_bytes):
    ip_mtu_discover, ip_pmtudisc_do = 10, 2  # ip(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, ip_mtu_discover, ip_pmtudisc_do)
        sock.sendto(bytes(payload_bytes), (address, 9))


def test_the_mtu_counts(lab):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, mtu=1400)
    target = str(link.b.addresses[0].ip)
    a.call(send_unfragmented, target, 1400 - 28)  # less the headers of IPv4 and UDP
    with pytest.raises(OSError, match="Message too long"):
        a.call(send_unfragmented, target, 1400 - 27)


def test_parallel_links_between_two_hosts(lab, echo):
    a, b = lab.host("a"), lab.host("b")
    links = [lab.link(a, b) for _ in range(4)]
    assert [port.name for port in a.ports] == ["eth0", "eth1", "eth2", "eth3"]
    for link in links:
        for address in link.b.addresses:
            assert echo(a, address.ip) is not None


def test_names_skip_those_that_are_given(lab):
    a, b = lab.host("a"), lab.host("b")
    names = [lab.link(a, b, name=name).a.name for name in (None, "eth2", None, None, "x", None)]
    assert names == ["eth0", "eth2", "eth3", "eth4", "x", "eth5"]
    assert set(a.interfaces) == {"lo", *names}


def test_the_ends_keep_the_order_of_the_call(lab):
    a, sw = lab.host("a"), lab.bridge("sw1")
    there, back = lab.link(a, sw, ip="10.0.0.1/24", name="x"), lab.link(sw, a, ip="10.0.1.1/24", name="y")
    assert (str(there.a), str(there.b)) == ("a:x", "sw1:sw1-p1")
    assert (str(back.a), str(back.b)) == ("sw1:sw1-p2", "a:y")
    assert str(back.b.addresses[0]) == "10.0.1.1/24"
    assert back.b.peer is back.a


def test_what_a_test_adds_by_hand_is_not_touched(lab, echo):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    a.run(["ip", "address", "add", "172.16.0.1/24", "dev", "eth0"])
    a.run(["ip", "route", "add", "172.17.0.0/24", "via", "172.16.0.9"])
    lab.link(a, lab.host("c"))
    assert "172.17.0.0/24" in {str(route.destination) for route in a.routes}
    assert "172.16.0.1/24" in {str(address.ip) for address in a.addresses}
    assert echo(a, link.b.addresses[0].ip) is not None


def test_an_interface_that_the_test_has_deleted_is_an_error_that_names_it(lab):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    a.run(["ip", "link", "delete", "eth0"])
    with pytest.raises(Exception, match=r"(set|read) a:eth0.*: No such device"):
        link.down()


def test_the_line_of_the_declaration(lab):
    link = lab.link(lab.host("a"), lab.host("b"))
    file, _, line = link.declared_at.partition(":")
    assert file == "test_link.py"
    with open(__file__, encoding="utf-8") as source:
        assert "link = lab.link(lab.host" in source.read().splitlines()[int(line) - 1]


def test_a_link_to_itself_or_to_something_else_is_refused(lab):
    a = lab.host("a")
    with pytest.raises(BadInput, match="a link needs two different ends; got a twice"):
        lab.link(a, a)
    with pytest.raises(BadInput, match="'b' is not a node of the lab"):
        lab.link(a, "b")


@pytest.mark.parametrize("switch", [False, True], ids=["wire", "bridge"])
def test_a_neighbour_that_was_looked_for_in_vain_is_asked_again_at_once(lab, switch):
    a, b = lab.host("a"), lab.host("b")
    if switch:
        sw = lab.bridge("sw")
        lab.link(a, sw)
        cut = lab.link(b, sw)
    else:
        cut = lab.link(a, b)
    targets = [str(ip.ip) for ip in b.ports[0].addresses]
    cut.b.down()
    for target in targets:
        ping(a, target, within="50 ms")
    assert [item for item in a.neighbours if item.state in ("INCOMPLETE", "FAILED")]
    cut.b.up()
    assert not [item for item in a.neighbours if item.state in ("INCOMPLETE", "FAILED")]
    assert_reachable(a, b, family="ipv4")
    assert_reachable(a, b, family="ipv6")
