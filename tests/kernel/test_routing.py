"""Routing daemons, and the kernel's own routing: policy, multipath, VRF, router advertisements, multicast."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_infra import (
    BadInput,
    CheckFailed,
    Lab,
    assert_multicast,
    assert_multipath,
    assert_path,
    assert_reachable,
    assert_unreachable,
    cut,
    daemon_down,
    until,
)

if TYPE_CHECKING:
    from pytest_infra.net.host import Host
    from pytest_infra.net.router import Router

pytestmark = pytest.mark.infra_requires("ip")

STATIC = "ip route 10.2.0.0/24 10.0.0.2\n"


@pytest.mark.infra_requires("frr")
def test_a_daemon_is_killed_and_started_again(lab: Lab) -> None:
    r1 = lab.router("r1", daemons=["staticd"], config=STATIC)
    r2, b, a = lab.router("r2", routes=False), lab.host("b"), lab.host("a")
    lab.link(r1, r2, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.link(a, r1, ip="10.1.0.10/24", peer_ip="10.1.0.1/24")
    lab.link(b, r2, ip="10.2.0.10/24", peer_ip="10.2.0.1/24")
    r2.run(["ip", "route", "add", "10.1.0.0/24", "via", "10.0.0.1"])
    assert_reachable(a, b, within="30 s")
    route = r1.vtysh("show ip route 10.2.0.0/24")["10.2.0.0/24"][0]
    assert route["protocol"] == "static"
    with daemon_down(r1, "staticd"):
        assert not r1.started_daemons["staticd"].running
        assert_reachable(a, b)  # a daemon that dies leaves its routes
    assert r1.started_daemons["staticd"].running
    assert_reachable(a, b, within="30 s")
    r1.configure("no ip route 10.2.0.0/24 10.0.0.2\n")
    until(lambda: not any(str(route.destination) == "10.2.0.0/24" for route in r1.routes), within_s=30, what="it goes")
    names = {artifact.name for artifact in r1.diagnose()}
    assert {"r1-zebra.txt", "r1-staticd.txt", "r1-frr.conf"} <= names
    r1.configure("ip route 10.3.0.0/24 10.0.0.2")
    r1.restart_daemon("staticd")  # what was added or taken away since is not forgotten

    def configured() -> set[str]:
        return {str(route.destination) for route in r1.routes} & {"10.2.0.0/24", "10.3.0.0/24"}

    until(lambda: configured() == {"10.3.0.0/24"}, within_s=30, what="only the route that was added since")
    assert "hostname" in r1.vtysh("show running-config", json=False)


@pytest.mark.infra_requires("frr")
def test_daemons_that_are_configured_before_anything_is_up(lab: Lab) -> None:
    r1 = lab.router("r1", daemons=["staticd"])
    lab.link(r1, lab.host("a"), ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    assert r1.log("staticd") == ""
    r1.configure(STATIC)
    until(lambda: "10.2.0.0/24" in map(str, (route.destination for route in r1.routes)), within_s=30, what="the route")


@pytest.mark.infra_requires("frr")
def test_routers_with_daemons_that_cannot_be(lab: Lab, tmp_path) -> None:
    for options, why in [
        ({"daemons": ["ospf"]}, "no routing daemon 'ospf'; FRR has"),
        ({"daemons": "ospfd"}, "daemons is a list"),
        ({"config": "router ospf"}, "name them"),
        ({"daemons": [], "config": tmp_path / "none"}, "a file that can be read"),
    ]:
        with pytest.raises(BadInput, match=why):
            lab.router(**options)  # type: ignore[arg-type]
    r1 = lab.router("r1", daemons=[])
    for command, why in [("show bogus", "refuses 'show bogus json'"), ("show running-config", "running-config")]:
        with pytest.raises(BadInput, match=why):
            r1.vtysh(command)
    for call in (r1.kill_daemon, r1.restart_daemon):
        with pytest.raises(BadInput, match="has no daemon 'bgpd'; it has zebra"):
            call("bgpd")


def test_policy_routing(lab: Lab) -> None:
    """Packets from one source go another way (ip-rule(8))."""
    a, r1, r2, b = lab.host("a", routes=False), lab.router("r1"), lab.router("r2"), lab.host("b", routes=False)
    lab.link(a, r1, ip=["10.1.0.10/24", "10.1.0.20/24"], peer_ip="10.1.0.1/24")
    lab.link(a, r2, ip="10.2.0.10/24", peer_ip="10.2.0.1/24")
    lab.link(b, r1, ip="10.3.0.10/24", peer_ip="10.3.0.1/24")
    lab.link(b, r2, ip="10.4.0.10/24", peer_ip="10.4.0.1/24")
    b.run(["ip", "address", "add", "10.9.0.1/32", "dev", "lo"])
    b.run(["ip", "route", "add", "10.1.0.0/24", "via", "10.3.0.1"])
    for router, gateway in ((r1, "10.3.0.10"), (r2, "10.4.0.10")):
        router.run(["ip", "route", "add", "10.9.0.1/32", "via", gateway])
    a.run(["ip", "route", "add", "10.9.0.1/32", "via", "10.1.0.1"])
    a.run(["ip", "route", "add", "10.9.0.1/32", "via", "10.2.0.1", "table", "100"])
    a.run(["ip", "rule", "add", "from", "10.1.0.20", "table", "100"])
    by_r1 = lab.capture(r1.ports[0], "icmp[icmptype] == icmp-echo")
    by_r2 = lab.capture(r2.ports[0], "icmp[icmptype] == icmp-echo")
    assert_reachable((a, "10.1.0.10"), "10.9.0.1")
    assert (by_r1.count, by_r2.count) == (1, 0)
    assert_reachable((a, "10.1.0.20"), "10.9.0.1")
    assert (by_r1.count, by_r2.count) == (1, 1)


@pytest.fixture
def two_ways(lab: Lab) -> tuple[Host, Router, Host]:
    """A host behind a router with two wires to the next one."""
    a, near, far, b = lab.host("a"), lab.router("near", routes=False), lab.router("far"), lab.host("b")
    lab.link(a, near, ip="10.7.0.10/24", peer_ip="10.7.0.1/24")
    lab.link(near, far, ip="10.1.0.1/24", peer_ip="10.1.0.2/24")
    lab.link(near, far, ip="10.2.0.1/24", peer_ip="10.2.0.2/24")
    lab.link(far, b, ip="10.9.0.1/24", peer_ip="10.9.0.10/24")
    near.run(["ip", "route", "add", "10.9.0.0/24", "nexthop", "via", "10.1.0.2", "nexthop", "via", "10.2.0.2"])
    near.sysctl["net.ipv4.fib_multipath_hash_policy"] = "1"
    assert_reachable(a, b)
    return a, near, b


def test_multipath_by_flow(two_ways: tuple[Host, Router, Host]) -> None:
    """The kernel chooses one of two next hops by a hash of the flow (fib_multipath_hash_policy)."""
    a, near, b = two_ways
    report = assert_multipath(a, b, ["eth1", "eth2"], at=near)
    assert sum(report.flows.values()) == 100
    assert report.setting == "addresses and ports"


def test_multipath_that_is_none(two_ways: tuple[Host, Router, Host]) -> None:
    a, near, b = two_ways
    near.sysctl["net.ipv4.fib_multipath_hash_policy"] = "0"
    with pytest.raises(CheckFailed, match=r"no flow leaves by eth\d: near looks at addresses only"):
        assert_multipath(a, b, ["eth1", "eth2"], at=near)
    near.sysctl["net.ipv4.fib_multipath_hash_policy"] = "1"
    near.run(["ip", "route", "replace", "10.9.0.0/24", "via", "10.2.0.2"])
    with pytest.raises(CheckFailed, match=r"no flow leaves by eth1: the route has no such next hop"):
        assert_multipath(a, b, ["eth1", "eth2"], at=near)
    weights = ["nexthop", "via", "10.1.0.2", "weight", "1", "nexthop", "via", "10.2.0.2", "weight", "9"]
    near.run(["ip", "route", "replace", "10.9.0.0/24", *weights])
    with pytest.raises(CheckFailed, match=r"the next hops have different weights"):
        assert_multipath(a, b, ["eth1", "eth2"], at=near)
    near.ports[0].down()
    with pytest.raises(CheckFailed, match=r"0 of 100 flows seen(?s:.*)some flows do not come by"):
        assert_multipath(a, b, ["eth1", "eth2"], at=near, within="500 ms")
    for interfaces, flows in ((["eth1"], 100), (["eth1", "eth9"], 100), (["eth1", "eth2"], 19)):
        with pytest.raises(BadInput):
            assert_multipath(a, b, interfaces, at=near, flows=flows)


@pytest.mark.stock_kernel
def test_vrf(lab: Lab) -> None:
    """Two customers behind one router, each with a server behind another one; where the kernel has VRF (vrf.rst)."""
    r, far = lab.router("r"), lab.router("far")
    red, blue, server = lab.host("red"), lab.host("blue"), lab.host("server")
    of_red, of_blue, up = lab.link(red, r), lab.link(blue, r), lab.link(r, far)
    lab.link(far, server)
    assert_reachable(red, blue)
    assert r.vrf("v-red", [of_red, up]) == r.vrfs["v-red"]
    assert_reachable(red, server, within="20 s")  # by the route that the lab planned, in the VRF's table
    with pytest.raises(CheckFailed, match=r"blue cannot reach red"):
        assert_reachable(blue, red)
    assert_unreachable(red, blue)
    assert r.vrf("v-blue", [of_blue], table=77) == 77
    assert_unreachable(blue, server)
    table = ["table", str(r.vrfs["v-red"])]
    r.run(["ip", "route", "del", "198.18.3.0/24", *table])
    with pytest.raises(CheckFailed, match=r"red cannot reach server(?s:.*)r has no route to 198\.18\.3\.\d+"):
        assert_reachable(red, server, family="ipv4")
    r.run(["ip", "route", "add", "198.18.3.0/24", "via", str(far.ports[0].addresses[0].ip), "dev", "eth2", *table])
    assert_reachable(red, server, family="ipv4", within="20 s")
    server.ports[0].down()
    with pytest.raises(CheckFailed, match=r"red cannot reach server(?s:.*)server:eth0 is down"):
        assert_reachable(red, server, family="ipv4")


@pytest.mark.stock_kernel
def test_vrfs_beside_each_other(lab: Lab) -> None:
    r, hosts = lab.router("r"), [lab.host(name) for name in ("a", "b", "c")]
    one, two, three = (lab.link(r, host) for host in hosts)
    lab.up()
    r.run(["ip", "route", "add", "blackhole", "10.77.0.0/16", "table", "1001"])
    assert r.vrf("red", [one], table=1002) == 1002
    assert r.vrf("blue", [two]) == 1003  # the tables that nothing uses begin there
    assert_unreachable(hosts[0], hosts[1])
    for name, links, table, why in [
        ("green", [three], 1002, r"table 1002 of r is that of its VRF 'red'"),
        ("green", [one], None, r"r:eth0 is in the VRF 'red' already"),
        ("red", [three], None, r"r has a VRF 'red' already, with table 1002"),
    ]:
        with pytest.raises(BadInput, match=why):
            r.vrf(name, links, table=table)
    assert r.vrfs == {"red": 1002, "blue": 1003}


@pytest.mark.stock_kernel
def test_routes_of_a_vrf_come_back(lab: Lab) -> None:
    a, r1, r2, b = lab.host("a"), lab.router("r1"), lab.router("r2"), lab.host("b")
    near, middle = lab.link(a, r1), lab.link(r1, r2)
    lab.link(r2, b)
    lab.up()
    table = r1.vrf("red", [near, middle])
    listing = ["ip", "route", "show", "table", str(table), "proto", "static"]
    before = r1.run(listing).stdout
    assert " via " in before
    middle.down()
    assert_unreachable(a, b)
    middle.up()
    assert r1.run(listing).stdout == before
    with cut(middle):
        assert not r1.run(listing).stdout
    for family in ("ipv4", "ipv6"):
        assert_reachable(a, b, family=family, within="10 s")


def test_vrfs_that_cannot_be(lab: Lab) -> None:
    r, a, b = lab.router("r"), lab.host("a"), lab.host("b")
    link, other = lab.link(r, a), lab.link(a, b)
    for name, links, table, why in [
        ("eth0", [link], None, "a port of it is"),
        ("red", [], None, "is a list of links of r, not"),
        ("red", link, None, "is a list of links of r, not"),
        ("red", [link, link], None, "a link is named twice"),
        ("red", [link], "x", "table 'x' cannot be used"),
        ("red", [link], 10.5, r"table 10\.5 cannot be used"),
        ("red", [other], None, "name a link"),
        ("red", [link], 254, "table 254 cannot be used"),
        ("no/name", [link], None, "no/name"),
    ]:
        with pytest.raises(BadInput, match=why):
            r.vrf(name, links, table=table)
    assert not r.vrfs


@pytest.mark.infra_requires("frr")
def test_addresses_by_router_advertisement(lab: Lab) -> None:
    """SLAAC (RFC 4862): FRR advertises a prefix, and the host makes itself an address and a default route of it."""
    config = "interface eth0\n ipv6 nd prefix 2001:db8:1::/64\n no ipv6 nd suppress-ra\n ipv6 nd ra-interval 1\n"
    r = lab.router("r", daemons=[], config=config)
    a, b = lab.host("a", routes=False), lab.host("b", routes=False)
    a.sysctl["net.ipv6.conf.default.accept_ra"] = "1"
    lab.link(a, r, ip=[], peer_ip="2001:db8:1::1/64")
    lab.link(b, r, ip="2001:db8:2::10/64", peer_ip="2001:db8:2::1/64")
    b.run(["ip", "-6", "route", "add", "default", "via", "2001:db8:2::1"])

    def address() -> str:
        return next((str(item.ip.ip) for item in a.addresses if str(item.ip).startswith("2001:db8:1:")), "")

    assert until(address, within_s=60, what="an address by router advertisement")
    assert_reachable(a, "2001:db8:2::10", within="30 s")
    assert any(route.destination.prefixlen == 0 and route.protocol == "ra" for route in a.routes)


@pytest.mark.infra_requires("dnsmasq")
def test_addresses_by_slaac(lab: Lab) -> None:
    r, a, b = lab.router("r"), lab.host("a", routes=False), lab.host("b")
    home = lab.link(r, a, ip="2001:db8:1::1/64", peer_ip=[])
    far = lab.link(r, b, ip="2001:db8:2::1/64", peer_ip="2001:db8:2::10/64")
    with pytest.raises(CheckFailed, match=r"a:eth0 got no address by router advertisement(?s:.*)no router advertises"):
        a.slaac(within="300 ms")
    program = r.advertise(home)
    report = a.slaac()
    assert report.addresses[0].startswith("2001:db8:1:")
    assert [route.destination.prefixlen for route in a.routes if route.protocol == "ra"].count(0) == 1
    assert_reachable(a, b, family="ipv6")
    assert_reachable(b, a, family="ipv6")  # the lab knows the address
    assert a.slaac().addresses == report.addresses
    with pytest.raises(BadInput, match="name a link"):
        r.advertise()
    program.close()
    narrow = lab.link(r, lab.host("c"), ip="2001:db8:3::1/120", peer_ip=[])
    with pytest.raises(BadInput, match=r"r:eth2 has no IPv6 subnet of 64 bits to advertise; it has 2001:db8:3::/120"):
        r.advertise(narrow)
    assert far in [port.link for port in b.ports]


@pytest.mark.parametrize("group", ["239.1.2.3", "ff05::1:3"])
def test_multicast_in_a_segment(lab: Lab, group: str) -> None:
    """Those who joined get it (RFC 1112); who else sees it is the switch's affair."""
    sw = lab.ovs("sw")
    sender, one, two, other = (lab.host(name) for name in ("sender", "one", "two", "other"))
    for host in (sender, one, two, other):
        lab.link(host, sw)
    assert assert_multicast(sender, group, [one, two]).arrived == {"one": 3, "two": 3}
    with pytest.raises(CheckFailed, match=rf"datagrams to {group} port 5007 come to other too(?s:.*)snooping"):
        assert_multicast(sender, group, [one, two], not_to=[other])
    quiet = "other_config:mcast-snooping-disable-flood-unregistered=true"
    sw.vsctl(["set", "bridge", "sw", "mcast_snooping_enable=true", quiet])
    assert assert_multicast(sender, group, [one, two], not_to=[other]).unwanted == {"other": 0}


def test_multicast_that_is_lost(lab: Lab) -> None:
    star = lab.star(3)
    sender, member, cut_off = star.hosts
    member.nft("table inet t {\n chain c {\n type filter hook input priority 0; ip daddr 239.1.2.3 drop\n }\n}\n")
    with pytest.raises(CheckFailed, match=r"do not come to h2(?s:.*)the firewall of h2 drops the datagrams"):
        assert_multicast(sender, "239.1.2.3", [member], within="100 ms")
    cut_off.ports[0].down()
    with pytest.raises(CheckFailed, match=r"do not come to h3(?s:.*)h3:eth0 is down"):
        assert_multicast(sender, "239.9.9.9", [member, cut_off], within="100 ms")
    sender.nft("table inet t {\n chain c {\n type filter hook output priority 0; ip daddr 239.1.2.3 drop\n }\n}\n")
    with pytest.raises(CheckFailed, match=r"the firewall of h1 drops the datagrams"):
        assert_multicast(sender, "239.1.2.3", [member], within="100 ms")
    port = member.ports[0].peer
    port.node.namespace.call(
        subprocess.run, ["bridge", "link", "set", "dev", port.name, "mcast_flood", "off"], check=True
    )
    with pytest.raises(CheckFailed, match=r"do not come to h2(?s:.*)reaches h2 by unicast, so only the group's"):
        assert_multicast(sender, "239.1.2.4", [member], within="100 ms")


@pytest.mark.infra_requires("frr")
@pytest.mark.parametrize("routed", [True, False])
def test_multicast_between_segments(lab: Lab, routed: bool) -> None:
    """A router passes it where a daemon tells it to (PIM, RFC 7761), and not otherwise."""
    pim = "interface eth0\n ip igmp\n ip pim\ninterface eth1\n ip igmp\n ip pim\nip pim rp 10.1.0.1\n"
    r = lab.router("r", daemons=["pimd"], config=pim, routes=True) if routed else lab.router("r")
    sender, member, other = lab.host("sender"), lab.host("member"), lab.host("other")
    lab.link(sender, r, ip="10.1.0.10/24", peer_ip="10.1.0.1/24")
    lab.link(member, r, ip="10.2.0.10/24", peer_ip="10.2.0.1/24")
    lab.link(other, r, ip="10.3.0.10/24", peer_ip="10.3.0.1/24")
    assert_reachable(sender, member)
    if routed:
        assert_multicast(sender, "239.1.2.3", [member], not_to=[other], within="60 s")
        with pytest.raises(CheckFailed, match=r"(?s)member is in another subnet.*TTL of 1 ends at the first"):
            assert_multicast(sender, "239.1.2.3", [member], ttl=1, within="100 ms")
    else:
        with pytest.raises(CheckFailed, match=r"member is in another subnet: routers pass multicast only where"):
            assert_multicast(sender, "239.1.2.3", [member], within="100 ms")


def test_multicast_that_cannot_be(lab: Lab) -> None:
    a, b, alone = lab.host("a"), lab.host("b"), lab.host("alone")
    lab.link(a, b)
    for group, receivers, why in [
        ("10.0.0.1", [b], "no multicast group"),
        ("nowhere", [b], "no multicast group"),
        ("239.1.2.3", [], "names nobody"),
        ("239.1.2.3", [alone], "has no link"),
    ]:
        with pytest.raises(BadInput, match=why):
            assert_multicast(a, group, receivers)


def test_a_ring_of_static_routes(lab: Lab) -> None:
    ring = lab.ring(5)
    assert_path(ring.hosts[0], ring.hosts[2], [ring.routers[0], ring.routers[1], ring.routers[2], ring.hosts[2]])


@pytest.mark.infra_requires("frr")
def test_a_daemon_that_is_restarted_leaves_no_descriptors(lab: Lab) -> None:
    router = lab.router("r", daemons=["staticd"])
    lab.link(router, lab.host())
    lab.up()
    router.restart_daemon("staticd")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        router.restart_daemon("staticd")
    assert len(os.listdir("/proc/self/fd")) <= before
