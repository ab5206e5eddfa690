"""Routing daemons, and the kernel's own routing: policy, multipath, VRF, router advertisements, multicast."""

from __future__ import annotations

import socket
import struct

import pytest

from pytest_infra import BadInput, Lab, assert_path, assert_reachable, assert_unreachable, daemon_down, until

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


def test_multipath_by_flow(lab: Lab) -> None:
    """The kernel chooses one of two next hops by a hash of the flow (fib_multipath_hash_policy)."""
    a, r, b = lab.router("a", routes=False), lab.router("r"), lab.host("b")
    first = lab.link(a, r, ip="10.1.0.1/24", peer_ip="10.1.0.2/24")
    second = lab.link(a, r, ip="10.2.0.1/24", peer_ip="10.2.0.2/24")
    lab.link(b, r, ip="10.9.0.10/24", peer_ip="10.9.0.1/24")
    a.sysctl["net.ipv4.fib_multipath_hash_policy"] = "1"
    a.run(["ip", "route", "add", "10.9.0.0/24", "nexthop", "via", "10.1.0.2", "nexthop", "via", "10.2.0.2"])
    a.run(["ip", "address", "add", "10.7.0.1/32", "dev", "lo"])  # an address of a link would decide for that link
    captures = [lab.capture(link.b, "udp") for link in (first, second)]
    assert_reachable((a, "10.1.0.1"), b)

    def send() -> None:
        for _ in range(2):
            for port in range(20_000, 20_100):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.bind(("10.7.0.1", port))
                    sock.sendto(b"x", ("10.9.0.10", 9))

    a.call(send)
    until(lambda: sum(capture.count for capture in captures) >= 200, within_s=20, what="all packets")
    flows = [{frame.data[34:36] for frame in capture.frames} for capture in captures]
    assert len(flows[0]) > 10
    assert len(flows[1]) > 10
    assert not flows[0] & flows[1]  # each flow has one way


def test_vrf(lab: Lab) -> None:
    """Two customers with the same addresses behind one router, where the kernel has VRF (vrf.rst)."""
    r, a, b = lab.router("r", routes=False), lab.host("a", routes=False), lab.host("b", routes=False)
    if not r.run(["ip", "link", "add", "red", "type", "vrf", "table", "10"], check=False).ok:
        pytest.skip("the kernel lacks CONFIG_NET_VRF")
    r.run(["ip", "link", "set", "red", "up"])
    lab.link(a, r, ip="10.1.0.10/24", peer_ip="10.1.0.1/24")
    lab.link(b, r, ip="10.2.0.10/24", peer_ip="10.2.0.1/24")
    for host, gateway in ((a, "10.1.0.1"), (b, "10.2.0.1")):
        host.run(["ip", "route", "add", "default", "via", gateway])
    assert_reachable(a, b)
    r.run(["ip", "link", "set", "eth0", "master", "red"])
    assert_unreachable(a, b)
    r.run(["ip", "link", "set", "eth1", "master", "red"])
    assert_reachable(a, b, within="20 s")


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


def test_multicast_in_a_segment(lab: Lab) -> None:
    """Those who joined the group get it, and nobody else (RFC 1112)."""
    star = lab.star(3)
    sender, member, other = star.hosts
    sender.run(["ip", "route", "add", "239.0.0.0/8", "dev", "eth0"])

    def receiver(join: bool) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", 5007))
        sock.settimeout(20)
        if join:
            group = struct.pack("=4s4si", socket.inet_aton("239.1.2.3"), bytes(4), socket.if_nametoindex("eth0"))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        else:
            sock.setsockopt(socket.IPPROTO_IP, 49, 0)  # IP_MULTICAST_ALL
        return sock

    def send(address: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(address.encode(), (address, 5007))

    with member.call(receiver, True) as joined, other.call(receiver, False) as not_joined:
        sender.call(send, "239.1.2.3")
        assert joined.recv(100) == b"239.1.2.3"
        sender.call(send, str(other.ports[0].addresses[0].ip))  # what comes first would be the group's
        assert not_joined.recv(100) != b"239.1.2.3"


def test_a_ring_of_static_routes(lab: Lab) -> None:
    ring = lab.ring(5)
    assert_path(ring.hosts[0], ring.hosts[2], [ring.routers[0], ring.routers[1], ring.routers[2], ring.hosts[2]])
