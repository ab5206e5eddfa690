"""What is proven goes before what only looks odd: rules that were seen to drop the probe, translated ports, refusals.

The texts are in __snapshots__; ``pytest --snapshot-update`` writes them anew.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from breaking import WITHIN, cause, nft, normal, sh
from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks import assert_reachable, measure_reach
from pytest_infra.checks.http import assert_http
from pytest_infra.core.errors import CheckFailed
from pytest_infra.faults import one_way, partition
from pytest_infra.lab import Lab

LAB = "proof"

ECHO = "icmp type echo-request drop"


def chain(lab: Lab) -> tuple[Any, Any, Any]:
    """a - r - b."""
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    lab.link(a, r, ip="10.0.1.1/24", peer_ip="10.0.1.254/24")
    lab.link(r, b, ip="10.0.2.254/24", peer_ip="10.0.2.1/24")
    lab.up()
    return a, r, b


def off_on_the_way(lab: Lab) -> tuple[Any, Any, str]:
    a, r, b = chain(lab)
    nft(a, "output", ECHO)
    r.sysctl["net.ipv4.ip_forward"] = "0"
    return a, b, "a"


def a_spare_address(lab: Lab) -> tuple[Any, Any, str]:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip=["10.0.0.1/24", "10.0.9.1/24"], peer_ip="10.0.0.2/24")
    lab.up()
    sh(a, "ip address del 10.0.9.1/24 dev eth0")
    assert_reachable(a, b)
    nft(b, "input", ECHO)
    return a, b, "b"


def an_address_on_the_loopback_that_is_not_announced(lab: Lab) -> tuple[Any, Any, str]:
    """As with direct server return: only the balancer answers ARP for the address."""
    switch = lab.bridge("sw")
    a, balancer, server = lab.host("a"), lab.host("lb"), lab.host("s")
    lab.link(a, switch, ip="10.0.0.1/24")
    lab.link(balancer, switch, ip=["10.0.0.10/24", "10.0.0.100/24"])
    lab.link(server, switch, ip="10.0.0.20/24")
    lab.up()
    server.sysctl["net.ipv4.conf.all.arp_ignore"] = "1"
    sh(server, "ip address add 10.0.0.100/32 dev lo")
    nft(balancer, "input", ECHO)
    return a, (balancer, "10.0.0.100"), "lb"


def a_rule_that_selects_by_protocol(lab: Lab) -> tuple[Any, Any, str]:
    a, _, b = chain(lab)
    sh(a, "ip route flush 10.0.2.0/24")
    sh(a, "ip route add 10.0.2.0/24 via 10.0.1.254 table 100")
    sh(a, "ip rule add ipproto icmp lookup 100 priority 50")
    assert_reachable(a, b)
    nft(b, "input", ECHO)
    return a, b, "b"


def a_static_route_by_another_router(lab: Lab) -> tuple[Any, Any, str]:
    """The lab planned the way by r1; the packet goes by r2."""
    switch, other = lab.bridge("sw"), lab.bridge("far")
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, switch, ip="10.0.1.1/24")
    for number, name in enumerate(("r1", "r2"), 253):
        router = lab.router(name)
        lab.link(router, switch, ip=f"10.0.1.{number}/24")
        lab.link(router, other, ip=f"10.0.2.{number}/24")
    lab.link(b, other, ip="10.0.2.1/24")
    lab.up()
    sh(a, "ip route replace 10.0.2.1/32 via 10.0.1.254")
    assert_reachable(a, b)
    nft(lab.node("r2"), "forward", ECHO)
    return a, b, "r2"


def two_tables_of_one_name(lab: Lab) -> tuple[Any, Any, str]:
    """The rules have the same handle, and only one of them can drop anything."""
    a, r, b = chain(lab)
    for family, rule in (("inet", "tcp dport 99 accept"), ("ip", ECHO)):
        r.nft(f"table {family} t {{\n chain c {{\n type filter hook forward priority 0;\n {rule}\n }}\n}}\n")
    return a, b, "r"


PROVEN: dict[str, Callable[[Lab], tuple[Any, Any, str]]] = {
    builder.__name__: builder
    for builder in (
        off_on_the_way,
        a_spare_address,
        an_address_on_the_loopback_that_is_not_announced,
        a_rule_that_selects_by_protocol,
        a_static_route_by_another_router,
        two_tables_of_one_name,
    )
}


@pytest.mark.parametrize("name", PROVEN)
def test_a_rule_that_was_seen_to_drop_it(lab: Lab, name: str, snapshot: SnapshotAssertion) -> None:
    a, b, where = PROVEN[name](lab)
    cause(a, b, "filtered", where, snapshot)


def test_a_rule_that_drops_a_probe_to_the_port_of_a_tunnel(lab: Lab, snapshot: SnapshotAssertion) -> None:
    """Port 4789 is that of VXLAN; the packet is the probe all the same."""
    a, _, b = chain(lab)
    nft(b, "input", "udp dport 4789 drop")
    cause(a, b, "filtered", "b", snapshot, protocol="udp", port=4789, serve=True)


@pytest.mark.parametrize("what", ["ip protocol icmp", "ether type arp"])
def test_a_rule_of_a_bridge(lab: Lab, what: str, snapshot: SnapshotAssertion) -> None:
    sw, a, b = lab.bridge("sw"), lab.host("a"), lab.host("b")
    for host in (a, b):
        lab.link(host, sw)
    lab.up()
    rules = f"table bridge t {{\n chain c {{\n type filter hook forward priority 0;\n {what} drop\n }}\n}}\n"
    sw.namespace.call(subprocess.run, ["nft", "-f", "-"], input=rules, text=True, check=True)
    cause(a, b, "filtered", "sw", snapshot)


@pytest.mark.parametrize("fault", [partition, one_way], ids=lambda fault: fault.__name__)
def test_a_fault_of_the_test_is_called_so(lab: Lab, fault: Any, snapshot: SnapshotAssertion) -> None:
    a, _, b = chain(lab)
    with fault(*(([a], [b]) if fault is partition else (a, b))):
        cause(a, b, "filtered", "b", snapshot)


def test_ipv6_forwarding_of_one_interface_is_no_cause(lab: Lab, snapshot: SnapshotAssertion) -> None:
    """Only the setting for all decides."""
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    lab.link(a, r, ip="fd00:1::1/64", peer_ip="fd00:1::2/64")
    lab.link(r, b, ip="fd00:2::1/64", peer_ip="fd00:2::2/64")
    lab.up()
    r.sysctl["net.ipv6.conf.eth0.forwarding"] = "0"
    assert_reachable(a, b)
    b.ports[0].down()
    cause(a, b, "interface-down", "b", snapshot)


def test_an_address_that_has_moved(lab: Lab, snapshot: SnapshotAssertion) -> None:
    switch = lab.bridge("sw")
    a, first, second = (lab.host(name) for name in ("a", "m", "s"))
    lab.link(a, switch, ip="10.0.0.1/24")
    lab.link(first, switch, ip=["10.0.0.10/24", "10.0.0.100/24"])
    lab.link(second, switch, ip="10.0.0.20/24")
    lab.up()
    sh(first, "ip address del 10.0.0.100/24 dev eth0")
    sh(second, "ip address add 10.0.0.100/24 dev eth0")
    nft(second, "input", ECHO)
    cause(a, (first, "10.0.0.100"), "address-gone", "m", snapshot)


DEAF = """
import ctypes, socket, struct, time
server = socket.create_server(("10.0.2.1", 8080))
program = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))  # BPF_RET | BPF_K, 0
server.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(program)))
print("deaf", flush=True)
time.sleep(600)
"""


def listens_and_takes_nothing(b: Any) -> None:
    """A socket filter (socket(7), SO_ATTACH_FILTER) lets no packet in."""
    b.spawn([sys.executable, "-c", DEAF]).wait_for("deaf")


FORWARD = "tcp dport 80 dnat to 10.0.2.1:8080"
TRANSLATED: dict[str, tuple[str, str, Callable[[Any], object]]] = {
    "nobody listens behind it": ("port-closed", "b", lambda b: None),
    "the server is unplugged": ("interface-down", "b", lambda b: b.ports[0].down()),
    "the server has no way back": (
        "nat-no-return",
        "b",
        lambda b: [sh(b, f"ip route flush {way}") for way in ("10.0.1.0/24", "default")],
    ),
    "the server's firewall drops": ("filtered", "b", lambda b: nft(b, "input", "tcp dport 8080 drop")),
    "the server takes nothing": ("translated", "r", listens_and_takes_nothing),
}


@pytest.mark.parametrize("name", TRANSLATED)
def test_behind_a_port_forward(lab: Lab, name: str, snapshot: SnapshotAssertion) -> None:
    a, r, b = chain(lab)
    r.nft(f"table ip nat {{\n chain p {{\n type nat hook prerouting priority -100;\n {FORWARD}\n }}\n}}\n")
    kind, node, breaks = TRANSLATED[name]
    breaks(b)
    cause(a, (r, "10.0.1.254"), kind, node, snapshot, protocol="tcp", port=80)


def test_a_port_forward_to_a_neighbour_of_the_client(lab: Lab, snapshot: SnapshotAssertion) -> None:
    """The server answers the client directly (hairpin NAT, RFC 4787 section 6)."""
    sw, a, r, b = lab.bridge("sw"), lab.host("a"), lab.router("r"), lab.host("b")
    for node, ip in ((a, "10.0.1.1/24"), (r, "10.0.1.254/24"), (b, "10.0.1.2/24")):
        lab.link(node, sw, ip=ip)
    lab.up()
    rule = "tcp dport 80 dnat to 10.0.1.2:8080"
    r.nft(f"table ip nat {{\n chain p {{\n type nat hook prerouting priority -100;\n {rule}\n }}\n}}\n")
    other = 'oifname "other" masquerade'
    r.nft(f"table ip other {{\n chain p {{\n type nat hook postrouting priority 100;\n {other}\n }}\n}}\n")
    with b.call(socket.create_server, ("10.0.1.2", 8080)):
        cause(a, (r, "10.0.1.254"), "nat-bypassed", "b", snapshot, protocol="tcp", port=80)
        r.nft("table ip back {\n chain p {\n type nat hook postrouting priority 100;\n masquerade\n }\n}\n")
        assert_reachable(a, (r, "10.0.1.254"), protocol="tcp", port=80)


def test_a_source_is_translated_to_an_address_that_nobody_has(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, r, b = chain(lab)
    sh(b, "ip route del default")
    r.nft("table ip nat {\n chain p {\n type nat hook postrouting priority 100;\n snat to 192.0.2.7\n }\n}\n")
    cause(a, b, "nat-no-return", "b", snapshot)


@pytest.mark.parametrize("command", ["add local 10.0.2.1/32 dev lo", "add 10.0.2.1/32 dev lo"])
def test_a_router_takes_it_for_its_own(lab: Lab, command: str, snapshot: SnapshotAssertion) -> None:
    a, r, _ = chain(lab)
    sh(r, f"ip route {command}")
    cause(a, lab.node("b"), "route-to-itself", "r", snapshot, protocol="tcp", port=80, serve=True)


def test_an_answer_that_is_taken_for_its_own(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, _, b = chain(lab)
    sh(b, "ip route add 10.0.1.1/32 dev lo")
    cause(a, b, "route-to-itself", "b", snapshot)


def test_the_target_has_the_senders_address(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, _, b = chain(lab)
    sh(b, "ip address add 10.0.1.1/32 dev lo")
    cause(a, b, "duplicate-address", "b", snapshot)


def test_an_mtu_that_ipv6_cannot_do_with(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="fd00::1/64", peer_ip="fd00::2/64")
    lab.up()
    sh(b, "ip link set dev eth0 mtu 1000")
    cause(a, b, "mtu-below-ipv6", "b", snapshot)


def test_two_that_no_links_join(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b, c, d = (lab.host(name) for name in "abcd")
    lab.link(a, b, ip="10.0.1.1/24", peer_ip="10.0.1.2/24")
    lab.link(c, d, ip="10.0.2.1/24", peer_ip="10.0.2.2/24")
    cause(a, c, "not-connected", "a", snapshot)


def test_policy_routing_that_is_not_followed(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, r, b = chain(lab)
    sh(r, "ip route add blackhole default table 77")
    sh(r, "ip rule add ipproto tcp lookup 77 priority 100")
    cause(a, b, "filtered", "r", snapshot, protocol="tcp", port=80, serve=True)


def test_a_port_forward_that_works_is_reached(lab: Lab) -> None:
    a, r, b = chain(lab)
    r.nft(f"table ip nat {{\n chain p {{\n type nat hook prerouting priority -100;\n {FORWARD}\n }}\n}}\n")
    with b.call(socket.create_server, ("10.0.2.1", 8080)):
        assert_reachable(a, (r, "10.0.1.254"), protocol="tcp", port=80)


def test_a_server_that_is_bound_to_another_interface(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b, c = (lab.host(name) for name in "abc")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.link(c, b, ip="10.0.1.1/24", peer_ip="10.0.1.2/24")

    def serve() -> socket.socket:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth1")
        server.bind(("0.0.0.0", 80))
        server.listen()
        return server

    with b.call(serve):
        assert_reachable(c, (b, "10.0.1.2"), protocol="tcp", port=80)
        cause(a, (b, "10.0.0.2"), "port-elsewhere", "b", snapshot, protocol="tcp", port=80)


def test_a_process_that_ended_well_is_not_the_server(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    b.spawn(["echo", "done"]).wait()
    cause(a, b, "port-closed", "b", snapshot, protocol="tcp", port=80)


def test_a_server_that_was_closed(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    server = b.spawn([sys.executable, "-m", "http.server", "80"])
    assert_reachable(a, b, protocol="tcp", port=80, within="20 s")
    server.close()
    cause(a, b, "server-ended", "b", snapshot, protocol="tcp", port=80)


def test_a_refusal_that_is_over_is_not_the_cause(lab: Lab, snapshot: SnapshotAssertion) -> None:
    """Closed at first; then the wire is cut, and the last tries meet with silence."""
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.up()
    later = threading.Timer(0.3, link.down)
    later.start()
    try:
        cause(a, b, "interface-down", "a", snapshot, protocol="tcp", port=80, within="1 s")
    finally:
        later.join()


FLOWS = {
    "tcp": ("flow-drops", {"protocol": "tcp", "serve": True}, ("priority=10,tcp,tcp_dst=80,actions=drop",)),
    "tcp answers": ("flow-drops", {"protocol": "tcp", "serve": True}, ("priority=10,tcp,tcp_src=80,actions=drop",)),
    "udp": ("flow-drops", {"protocol": "udp", "serve": True}, ("priority=10,udp,udp_dst=80,actions=drop",)),
    "udp over IPv6": (
        "flow-drops",
        {"protocol": "udp", "serve": True, "family": "ipv6"},
        ("priority=10,udp6,udp_dst=80,actions=drop",),
    ),
    "a silent udp server": ("flow-drops", {"protocol": "udp"}, ("priority=10,udp,udp_dst=80,actions=drop",)),
    "connection tracking": (
        "no-flow",
        {"protocol": "tcp", "serve": True},
        (
            "priority=10,ip,actions=ct(table=1)",
            "table=1,ip,ct_state=+est+trk,actions=normal",
            "table=1,ip,in_port=sw-p2,ct_state=+new+trk,actions=ct(commit),normal",
        ),
    ),
}


@pytest.mark.parametrize("name", FLOWS)
def test_flows_for_ports(lab: Lab, name: str, snapshot: SnapshotAssertion) -> None:
    switch, a, b = lab.ovs("sw"), lab.host("a"), lab.host("b")
    lab.link(a, switch, ip=["192.168.1.10/24", "fd00::a/64"])
    lab.link(b, switch, ip=["192.168.1.20/24", "fd00::b/64"])
    lab.up()
    kind, options, flows = FLOWS[name]
    switch.ofctl(["del-flows", "sw"])
    for flow in ("priority=1,actions=normal", *flows):
        switch.add_flow(flow)
    cause(a, b, kind, "sw", snapshot, port=80, **options)


def test_a_switch_that_tracks_connections_is_not_blamed(lab: Lab) -> None:
    """Answers are let through because they are: what drops them is the firewall of the sender."""
    switch, a, b = lab.ovs("sw"), lab.host("a"), lab.host("b")
    lab.link(a, switch, ip="192.168.1.10/24")
    lab.link(b, switch, ip="192.168.1.20/24")
    lab.up()
    switch.ofctl(["del-flows", "sw"])
    for flow in (
        "priority=1,arp,actions=normal",
        "priority=10,ip,actions=ct(table=1)",
        "table=1,ip,ct_state=+est+trk,actions=normal",
        "table=1,ip,in_port=sw-p1,ct_state=+new+trk,actions=ct(commit),normal",
    ):
        switch.add_flow(flow)
    assert_reachable(a, b, protocol="tcp", serve=True)
    a.nft(
        "table netdev t {\n chain c {\n type filter hook ingress device eth0 priority 0;\n tcp sport 80 drop\n }\n}\n"
    )
    report = measure_reach(a, b, within=WITHIN, protocol="tcp", serve=True, port=80)
    assert not report.ok
    assert report.autopsy is not None
    assert report.autopsy.finding is None or "flow" not in report.autopsy.finding.kind, report.explain()
    assert any("flows of sw" in line for line in report.autopsy.ruled_out)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_switch_whose_daemon_does_not_work(lab: Lab, how: signal.Signals, snapshot: SnapshotAssertion) -> None:
    """It is not asked, so that nothing waits for its answer."""
    switch, a, b = lab.ovs("sw", private=True), lab.host("a"), lab.host("b")
    lab.link(a, switch, ip="192.168.1.10/24")
    lab.link(b, switch, ip="192.168.1.20/24")
    lab.up()
    pid = switch.instance.pids["ovs-vswitchd"]
    os.kill(pid, how)
    try:
        cause(a, b, "switch-ended", "sw", snapshot)
        began = time.monotonic()
        assert "not asked: ovs-vswitchd" in {part.name: part.content for part in switch.diagnose()}["sw-flows.txt"]
        assert time.monotonic() - began < 5  # each question would wait for 10 s
    finally:
        if how is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)


PAGE = "a line of a page that is larger than a segment\n" * 2000


def test_an_answer_in_segments_that_are_too_large(lab: Lab, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """A wire is narrower than the rest, and who should say so is not heard: a black hole of path MTU discovery."""
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    lab.link(a, r, ip="10.0.1.1/24", peer_ip="10.0.1.254/24", mtu=1000)
    lab.link(r, b, ip="10.0.2.254/24", peer_ip="10.0.2.1/24")
    a.sysctl["net.ipv4.tcp_mtu_probing"] = b.sysctl["net.ipv4.tcp_mtu_probing"] = "0"
    sh(a, "ip link set eth0 mtu 1500")
    (tmp_path / "page.txt").write_text(PAGE, encoding="utf-8")
    server = b.spawn([sys.executable, "-um", "http.server", "80"], cwd=tmp_path)
    server.wait_for("Serving")
    nft(r, "output", "icmp type destination-unreachable drop")
    with pytest.raises(CheckFailed) as failure:
        assert_http(a, "http://10.0.2.1/page.txt", timeout="500 ms")
    assert re.sub(r"\d+ bytes of", "<n> bytes of", normal(str(failure.value))) == snapshot
    sh(r, "nft delete table inet t")
    b.run(["ip", "route", "flush", "cache"])
    assert_http(a, "http://10.0.2.1/page.txt", within="5 s")


def test_a_port_that_was_taken_from_an_open_vswitch(lab: Lab, snapshot: SnapshotAssertion) -> None:
    switch, a, b = lab.ovs("sw"), lab.host("a"), lab.host("b")
    lab.link(a, switch, ip="192.168.1.10/24")
    lab.link(b, switch, ip="192.168.1.20/24")
    assert_reachable(a, b)
    switch.vsctl(["del-port", "sw-p2"])
    cause(a, b, "not-a-port", "sw", snapshot)
