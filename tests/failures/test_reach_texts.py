"""What a failed check says: for each cause a lab that works, the same lab with that cause, and the text.

The texts are in __snapshots__; ``pytest --snapshot-update`` writes them anew.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from breaking import nft, normal, sh
from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks import ReachReport, assert_reachable, measure_reach
from pytest_infra.core.errors import CheckFailed
from pytest_infra.core.process import run
from pytest_infra.lab import Lab
from pytest_infra.net import messages
from pytest_infra.net.host import Host
from pytest_infra.net.switch import Switch

WITHIN = "100 ms"


@dataclass
class Switched:
    """a and b on one switch."""

    lab: Lab
    a: Host
    b: Host
    switch: Switch
    servers: list[socket.socket] = field(default_factory=list)


@dataclass
class Routed:
    """a - r1 - r2 - b, with IPv4 and IPv6."""

    lab: Lab
    a: Host
    b: Host
    r1: Host
    r2: Host


@pytest.fixture
def switched(lab: Lab) -> Iterator[Switched]:
    switch = lab.bridge("sw1")
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, switch, ip=["192.168.1.10/24", "fd01::10/64"])
    lab.link(b, switch, ip=["192.168.1.20/24", "fd01::20/64"])
    switched = Switched(lab, a, b, switch)
    yield switched
    for server in switched.servers:
        server.close()


@pytest.fixture
def routed(lab: Lab) -> Routed:
    a, b, r1, r2 = lab.host("a"), lab.host("b"), lab.router("r1"), lab.router("r2")
    for number, (near, far) in enumerate([(a, r1), (r1, r2), (r2, b)]):
        ends = [[f"10.0.{number}.{end}/24", f"fd0{number}::{end}/64"] for end in (1, 2)]
        lab.link(near, far, ip=ends[0], peer_ip=ends[1])
    return Routed(lab, a, b, r1, r2)


def set_switch_port(switch: Switch, index: int, **change: object) -> None:
    with switch.namespace.netlink() as netlink:
        netlink.request([(messages.set_link(index, **change), "change a switch port")])  # type: ignore[arg-type]


def bridge_index(switch: Switch) -> int:
    return switch.interfaces[switch.name].index


def translate(router: Host, address: str) -> None:
    router.run(["nft", "add table ip n"])
    router.run(["nft", "add chain ip n c { type nat hook postrouting priority 100; }"])
    router.run(["nft", f"add rule ip n c snat to {address}"])


def arp_is_dropped(lab: Switched) -> None:
    lab.b.sysctl["net.ipv4.conf.all.arp_ignore"] = "8"
    sh(lab.a, "ip neighbour flush all")


def arp_is_not_for_this_scope(lab: Switched) -> None:
    """ARP is not answered for an address that the host keeps to itself (ip-sysctl)."""
    sh(lab.b, "ip address del 192.168.1.20/24 dev eth0")
    sh(lab.b, "ip address add 192.168.1.20/24 scope host dev eth0")
    lab.b.sysctl["net.ipv4.conf.all.arp_ignore"] = "3"
    sh(lab.a, "ip neighbour flush all")


def become_tentative(lab: Switched) -> None:
    """IPv6 duplicate address detection that goes on for as long as the test."""
    sh(lab.b, "ip address del fd01::20/64 dev eth0")
    lab.b.sysctl["net.ipv6.conf.eth0.accept_dad"] = "1"
    lab.b.sysctl["net.ipv6.conf.eth0.dad_transmits"] = "10"
    sh(lab.b, "ip address add fd01::20/64 dev eth0")


def in_switch(switch: Switch, command: str) -> None:
    switch.namespace.call(run, command.split())


def unplug(node: Host) -> None:
    """Another interface without a wire takes the name and the address of the one that has one."""
    address = node.ports[0].addresses[0]
    sh(node, "ip link set eth0 name old")
    sh(node, f"ip address del {address} dev old")
    sh(node, "ip tuntap add eth0 mode tap")
    sh(node, "ip link set eth0 up")
    sh(node, f"ip address add {address} dev eth0")


def listen_on_ipv6_only(lab: Switched) -> None:
    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET6)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::", 80))
        sock.listen()
        return sock

    lab.servers.append(lab.b.call(make))


def fill_backlog(lab: Switched) -> None:
    """A server that accepts nobody, and clients until no more are let in."""

    def make() -> socket.socket:
        sock = socket.socket()
        sock.bind(("192.168.1.20", 80))
        sock.listen(1)
        return sock

    lab.servers.append(lab.b.call(make))
    for _ in range(2):
        lab.servers.append(lab.a.call(socket.create_connection, ("192.168.1.20", 80), 5))


def kill_server(lab: Switched) -> None:
    server = lab.b.spawn([sys.executable, "-m", "http.server", "80"])
    assert_reachable(lab.a, lab.b, protocol="tcp", port=80, within="30 s")
    os.kill(server.pid, signal.SIGKILL)
    server.wait(30)


def listen(lab: Switched, address: str, kind: int = socket.SOCK_STREAM) -> None:
    """A server on port 80 that says nothing."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, kind)
        sock.bind((address, 80))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        return sock

    lab.servers.append(lab.b.call(make))


@dataclass(frozen=True)
class Case:
    """How to break a lab, and what the autopsy should find."""

    name: str
    kind: str
    node: str
    breaks: Callable[..., object]
    options: dict[str, object]


def case(name: str, kind: str, node: str, breaks: Callable[..., object], **options: object) -> object:
    return pytest.param(Case(name, kind, node, breaks, {"within": WITHIN, **options}), id=name)


SWITCHED = [
    case("source interface down", "interface-down", "a", lambda lab: lab.a.ports[0].down()),
    case("target interface down", "interface-down", "b", lambda lab: lab.b.ports[0].down()),
    case("link down", "interface-down", "sw1", lambda lab: lab.b.ports[0].link.down()),
    case("link of the source down", "interface-down", "sw1", lambda lab: lab.a.ports[0].link.down()),
    case(
        "interface deleted",
        "interface-gone",
        "sw1",
        lambda lab: sh(lab.b, "ip link del eth0"),
    ),
    case(
        "bridge down", "bridge-down", "sw1", lambda lab: set_switch_port(lab.switch, bridge_index(lab.switch), up=False)
    ),
    case(
        "port taken off the bridge",
        "not-a-port",
        "sw1",
        lambda lab: set_switch_port(lab.switch, lab.b.ports[0].peer.index, master=0),
    ),
    case("source address gone", "address-gone", "a", lambda lab: sh(lab.a, "ip address del 192.168.1.10/24 dev eth0")),
    case("target address gone", "address-gone", "b", lambda lab: sh(lab.b, "ip address del 192.168.1.20/24 dev eth0")),
    case("address tentative", "address-unusable", "b", become_tentative, family="ipv6"),
    case("arp not answered", "neighbour-unresolved", "a", arp_is_not_for_this_scope),
    case("arp ignored", "arp-ignored", "b", arp_is_dropped),
    case(
        "wrong neighbour",
        "neighbour-wrong",
        "a",
        lambda lab: sh(lab.a, "ip neighbour replace 192.168.1.20 lladdr 02:00:00:00:00:99 dev eth0"),
    ),
    case("no carrier at the target", "no-carrier", "b", lambda lab: unplug(lab.b)),
    case("no carrier at the source", "no-carrier", "a", lambda lab: unplug(lab.a)),
    case(
        "port disabled",
        "port-blocked",
        "sw1",
        lambda lab: in_switch(lab.switch, f"bridge link set dev {lab.b.ports[0].peer.name} state 0"),
    ),
    case(
        "spanning tree begins",
        "port-blocked",
        "sw1",
        lambda lab: [
            in_switch(lab.switch, "ip link set sw1 type bridge stp_state 1"),
            lab.b.ports[0].link.down(),
            lab.b.ports[0].link.up(),
        ],
    ),
    case(
        "ports isolated",
        "ports-isolated",
        "sw1",
        lambda lab: [
            in_switch(lab.switch, f"bridge link set dev {port.name} isolated on") for port in lab.switch.ports
        ],
    ),
    case(
        "mtu mismatch",
        "mtu-mismatch",
        "sw1",
        lambda lab: set_switch_port(lab.switch, lab.b.ports[0].peer.index, mtu=1000),
        size=1400,
    ),
    case(
        "larger than the own mtu",
        "mtu-too-small",
        "a",
        lambda lab: sh(lab.a, "ip link set eth0 mtu 1300"),
        size=1400,
        dont_fragment=True,
    ),
    case(
        "source has the target's address too",
        "duplicate-address",
        "a",
        lambda lab: [
            sh(lab.a, "ip address add 192.168.1.20/32 dev lo"),
            listen(lab, "192.168.1.20"),
        ],
        protocol="tcp",
        port=80,
    ),
    case("tcp port of the other family", "port-other-family", "b", listen_on_ipv6_only, protocol="tcp", port=80),
    case(
        "tcp server of ipv4 asked by ipv6",
        "port-other-family",
        "b",
        lambda lab: listen(lab, "0.0.0.0"),
        protocol="tcp",
        port=80,
        family="ipv6",
    ),
    case("backlog full", "backlog-full", "b", fill_backlog, protocol="tcp", port=80),
    case("server was killed", "server-ended", "b", kill_server, protocol="tcp", port=80),
    case(
        "source has a narrow prefix",
        "address-gone",
        "a",
        lambda lab: [
            sh(lab.a, "ip address del 192.168.1.10/24 dev eth0"),
            sh(lab.a, "ip address add 192.168.1.11/28 dev eth0"),
        ],
    ),
    case("tcp port closed", "port-closed", "b", lambda lab: None, protocol="tcp", port=80),
    case("udp port closed", "port-closed", "b", lambda lab: None, protocol="udp", port=80),
    case("tcp on loopback only", "port-elsewhere", "b", lambda lab: listen(lab, "127.0.0.1"), protocol="tcp", port=80),
    case(
        "tcp on another address",
        "port-elsewhere",
        "b",
        lambda lab: [sh(lab.b, "ip address add 192.168.1.21/24 dev eth0"), listen(lab, "192.168.1.21")],
        protocol="tcp",
        port=80,
    ),
    case(
        "silent udp server",
        "udp-silence",
        "b",
        lambda lab: listen(lab, "0.0.0.0", socket.SOCK_DGRAM),
        protocol="udp",
        port=80,
    ),
    case(
        "echo requests ignored",
        "echo-ignored",
        "b",
        lambda lab: lab.b.sysctl.update({"net.ipv4.icmp_echo_ignore_all": "1"}),
    ),
    case(
        "input of the target filtered", "filtered", "b", lambda lab: nft(lab.b, "input", "icmp type echo-request drop")
    ),
    case(
        "input of the target filtered for tcp",
        "filtered",
        "b",
        lambda lab: [listen(lab, "0.0.0.0"), nft(lab.b, "input", "tcp dport 80 drop")],
        protocol="tcp",
        port=80,
    ),
    case(
        "answer filtered at the source", "filtered", "a", lambda lab: nft(lab.a, "input", "icmp type echo-reply drop")
    ),
    case(
        "output of the source filtered",
        "filtered",
        "a",
        lambda lab: nft(lab.a, "output", "icmp type echo-request drop"),
    ),
    case(
        "tcp reset by a filter",
        "filtered",
        "b",
        lambda lab: [
            listen(lab, "0.0.0.0"),
            nft(lab.b, "input", "tcp dport 80 reject with tcp reset"),
        ],
        protocol="tcp",
        port=80,
    ),
    case(
        "prohibited by a filter",
        "filtered",
        "b",
        lambda lab: nft(lab.b, "input", "ip protocol icmp reject with icmp admin-prohibited"),
    ),
]

ROUTED = [
    case(
        "reverse path filter",
        "rp-filter",
        "r2",
        lambda lab: [
            lab.r2.sysctl.update({"net.ipv4.conf.eth0.rp_filter": "1"}),
            sh(lab.r2, "ip route replace 10.0.0.0/24 via 10.0.2.2"),
        ],
    ),
    case(
        "loose reverse path filter",
        "rp-filter",
        "r2",
        lambda lab: [
            lab.r2.sysctl.update({"net.ipv4.conf.all.rp_filter": "2"}),
            sh(lab.r2, "ip route del 10.0.0.0/24"),
        ],
    ),
    case(
        "mtu of a router too small",
        "mtu-too-small",
        "r1",
        lambda lab: [sh(lab.r1, "ip link set eth1 mtu 1300"), sh(lab.r2, "ip link set eth0 mtu 1300")],
        size=1400,
        dont_fragment=True,
    ),
    case(
        "ipv6 mtu of a router too small",
        "mtu-too-small",
        "r1",
        lambda lab: [sh(lab.r1, "ip link set eth1 mtu 1300"), sh(lab.r2, "ip link set eth0 mtu 1300")],
        size=1400,
        family="ipv6",
        dont_fragment=True,
    ),
    case(
        "translation without a way back",
        "nat-no-return",
        "b",
        lambda lab: [
            sh(lab.b, "ip route replace 10.0.0.0/24 via 10.0.2.1"),
            sh(lab.b, "ip route del default"),
            translate(lab.r2, "10.9.9.9"),
        ],
    ),
    case(
        "translation to an address that nobody has",
        "nat-no-return",
        "r2",
        lambda lab: translate(lab.r1, "10.9.9.9"),
    ),
    case(
        "wrong source of a route",
        "wrong-source",
        "r2",
        lambda lab: [
            sh(lab.a, "ip address add 10.7.7.7/32 dev lo"),
            sh(lab.a, "ip route replace default via 10.0.0.2 src 10.7.7.7"),
        ],
    ),
    case(
        "a router has the target's address",
        "duplicate-address",
        "r1",
        lambda lab: [
            nft(lab.r1, "input", "icmp type echo-request drop"),
            sh(lab.r1, "ip address add 10.0.2.2/32 dev lo"),
        ],
    ),
    case(
        "a router has the source's address",
        "duplicate-address",
        "r1",
        lambda lab: sh(lab.r1, "ip address add 10.0.0.1/32 dev lo"),
    ),
    case("no route at the source", "no-route", "a", lambda lab: sh(lab.a, "ip route del default")),
    case("no route at a router", "no-route", "r1", lambda lab: sh(lab.r1, "ip route del 10.0.2.0/24")),
    case(
        "no ipv6 route at a router", "no-route", "r1", lambda lab: sh(lab.r1, "ip route del fd02::/64"), family="ipv6"
    ),
    case("blackhole route", "blackhole-route", "r1", lambda lab: sh(lab.r1, "ip route replace blackhole 10.0.2.0/24")),
    case(
        "unreachable route",
        "unreachable-route",
        "r1",
        lambda lab: sh(lab.r1, "ip route replace unreachable 10.0.2.0/24"),
    ),
    case("prohibit route", "prohibit-route", "r1", lambda lab: sh(lab.r1, "ip route replace prohibit 10.0.2.0/24")),
    case(
        "gateway that nobody is",
        "wrong-gateway",
        "r1",
        lambda lab: sh(lab.r1, "ip route replace 10.0.2.0/24 via 10.0.1.9"),
    ),
    case(
        "gateway on another wire",
        "wrong-gateway",
        "r1",
        lambda lab: sh(lab.r1, "ip route replace 10.0.2.0/24 via 10.0.2.2 dev eth1 onlink"),
    ),
    case(
        "target taken for a neighbour",
        "not-on-link",
        "a",
        lambda lab: sh(lab.a, "ip route replace 10.0.2.0/24 dev eth0"),
    ),
    case("routing loop", "routing-loop", "r2", lambda lab: sh(lab.r2, "ip route replace 10.0.2.2 via 10.0.1.1")),
    case("forwarding off", "forwarding-off", "r2", lambda lab: lab.r2.sysctl.update({"net.ipv4.ip_forward": "0"})),
    case(
        "ipv6 forwarding off",
        "forwarding-off",
        "r2",
        lambda lab: lab.r2.sysctl.update({"net.ipv6.conf.all.forwarding": "0"}),
        family="ipv6",
    ),
    case(
        "forwarding off at one interface",
        "forwarding-off",
        "r2",
        lambda lab: lab.r2.sysctl.update({"net.ipv4.conf.eth0.forwarding": "0"}),
    ),
    case("interface of a router down", "interface-down", "r2", lambda lab: lab.r2.ports[1].down()),
    case("no route back", "no-route", "b", lambda lab: sh(lab.b, "ip route del default")),
    case(
        "blackhole route on the way back",
        "blackhole-route",
        "r2",
        lambda lab: sh(lab.r2, "ip route replace blackhole 10.0.0.0/24"),
    ),
    case(
        "forward chain of a router drops",
        "filtered",
        "r1",
        lambda lab: nft(lab.r1, "forward", "icmp type echo-request drop"),
    ),
    case(
        "forward chain of a router drops the answer",
        "filtered",
        "r2",
        lambda lab: nft(lab.r2, "forward", "icmp type echo-reply drop"),
    ),
]


def broken(lab: Switched | Routed, failing: Case, snapshot: SnapshotAssertion) -> None:
    reached = failing.options.get("protocol", "icmp") == "icmp"
    if reached:
        options = {key: value for key, value in failing.options.items() if key != "within"}
        assert_reachable(lab.a, lab.b, **options)  # type: ignore[arg-type]

    failing.breaks(lab)
    report: ReachReport = measure_reach(lab.a, lab.b, **failing.options)  # type: ignore[arg-type]
    assert not report.ok
    assert report.autopsy is not None
    assert report.autopsy.finding is not None, report.explain()
    assert (report.autopsy.finding.kind, report.autopsy.finding.node) == (failing.kind, failing.node), report.explain()
    assert not report.autopsy.not_seen
    assert normal(report.explain()) == snapshot


@pytest.mark.parametrize("failing", SWITCHED)
def test_on_one_switch(switched: Switched, failing: Case, snapshot: SnapshotAssertion) -> None:
    broken(switched, failing, snapshot)


@pytest.mark.parametrize("failing", ROUTED)
def test_behind_routers(routed: Routed, failing: Case, snapshot: SnapshotAssertion) -> None:
    broken(routed, failing, snapshot)


def test_an_address_that_nobody_has(switched: Switched, snapshot: SnapshotAssertion) -> None:
    report = measure_reach(switched.a, "192.168.1.77", within=WITHIN)
    assert report.autopsy is not None
    assert report.autopsy.finding is not None
    assert report.autopsy.finding.kind == "nobody"
    assert normal(report.explain()) == snapshot


def test_a_flow_of_a_switch_that_drops(lab: Lab, snapshot: SnapshotAssertion) -> None:
    switch, a, b = lab.ovs("sw1"), lab.host("a"), lab.host("b")
    lab.link(a, switch, ip="192.168.1.10/24")
    lab.link(b, switch, ip="192.168.1.20/24")
    assert_reachable(a, b)
    switch.ofctl(["add-flow", "sw1", "priority=100,icmp,actions=drop"])
    report = measure_reach(a, b, within=WITHIN)
    assert report.autopsy is not None
    assert report.autopsy.finding is not None
    assert report.autopsy.finding.kind == "flow-drops"
    assert normal(report.explain()) == snapshot


def test_some_answers_only(switched: Switched, snapshot: SnapshotAssertion) -> None:
    nft(switched.b, "input", "icmp type echo-request limit rate over 1/minute burst 2 packets drop")
    with pytest.raises(CheckFailed) as failure:
        assert_reachable(switched.a, switched.b, count=3)
    assert (
        re.sub(
            r"only \d of 3",
            "only <n> of 3",
            normal(str(failure.value)).replace("1 of 3", "<n> of 3").replace("2 of 3", "<n> of 3"),
        )
        == snapshot
    )
