"""Neighbours that are not found: the rule that drops ARP or neighbour discovery, or the setting, is named.

The texts are in __snapshots__; ``pytest --snapshot-update`` writes them anew.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from breaking import cause, nft, sh
from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks import assert_reachable
from pytest_infra.lab import Lab

LAB = "neighbours"


def two(lab: Lab) -> tuple[Any, Any]:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip=["10.0.0.1/24", "fd00::1/64"], peer_ip=["10.0.0.2/24", "fd00::2/64"])
    lab.up()
    return a, b


def arp(node: Any, hook: str, rule: str) -> None:
    node.nft(f"table arp t {{\n chain c {{\n type filter hook {hook} priority 0;\n {rule}\n }}\n}}\n")


def ingress(node: Any, rule: str) -> None:
    node.nft(f'table netdev t {{\n chain c {{\n type filter hook ingress device "eth0" priority 0;\n {rule}\n }}\n}}\n')


RULES: dict[str, tuple[str, str, Callable[[Any, Any], None]]] = {
    "an ARP request": ("ipv4", "b", lambda a, b: arp(b, "input", "arp operation request drop")),
    "a sent ARP request": ("ipv4", "a", lambda a, b: arp(a, "output", "arp operation request drop")),
    "an ARP reply": ("ipv4", "a", lambda a, b: arp(a, "input", "arp operation reply drop")),
    "a sent ARP reply": ("ipv4", "b", lambda a, b: arp(b, "output", "arp operation reply drop")),
    "ARP at the ingress": ("ipv4", "b", lambda a, b: ingress(b, "ether type arp drop")),
    "a solicitation": ("ipv6", "b", lambda a, b: nft(b, "input", "icmpv6 type nd-neighbor-solicit drop")),
    "a sent solicitation": ("ipv6", "a", lambda a, b: nft(a, "output", "icmpv6 type nd-neighbor-solicit drop")),
    "an advertisement": ("ipv6", "a", lambda a, b: nft(a, "input", "icmpv6 type nd-neighbor-advert drop")),
    "a sent advertisement": (
        "ipv6",
        "b",
        lambda a, b: nft(b, "output", "icmpv6 type nd-neighbor-advert drop"),
    ),
}


@pytest.mark.parametrize("what", RULES)
def test_a_rule_drops(lab: Lab, what: str, snapshot: SnapshotAssertion) -> None:
    family, where, breaking = RULES[what]
    a, b = two(lab)
    breaking(a, b)
    cause(a, b, "filtered", where, snapshot, family=family)


def test_the_packet_itself_is_dropped_at_the_ingress(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = two(lab)
    assert_reachable(a, b)
    ingress(b, "icmp type echo-request drop")
    cause(a, b, "filtered", "b", snapshot)


def test_the_reverse_path_filter_looks_at_arp_too(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b, c = lab.host("a"), lab.host("b"), lab.host("c")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.link(b, c, ip="10.0.1.2/24", peer_ip="10.0.1.3/24")
    lab.up()
    b.sysctl["net.ipv4.conf.eth0.rp_filter"] = "1"
    sh(b, "ip route replace 10.0.0.1/32 dev eth1")
    cause(a, b, "rp-filter", "b", snapshot)


def test_a_firewall_drops_the_packets_of_a_tunnel(lab: Lab, snapshot: SnapshotAssertion) -> None:
    m1, m2, r = lab.host("m1"), lab.host("m2"), lab.router("r")
    lab.link(m1, r, ip="10.9.1.1/24", peer_ip="10.9.1.254/24")
    lab.link(m2, r, ip="10.9.2.1/24", peer_ip="10.9.2.254/24")
    one, two = lab.bridge("one", host=m1), lab.bridge("two", host=m2)
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, one, ip="10.0.0.1/24")
    lab.link(b, two, ip="10.0.0.2/24")
    lab.tunnel(one, two)
    lab.up()
    assert_reachable(a, b)
    nft(r, "forward", "udp dport 4789 drop")
    cause(a, b, "filtered", "r", snapshot)


@pytest.mark.parametrize(("family", "setting"), [("ipv4", "bcast_flood"), ("ipv6", "mcast_flood")])
def test_a_bridge_keeps_back_what_asks(lab: Lab, family: str, setting: str, snapshot: SnapshotAssertion) -> None:
    sw, a, b = lab.bridge("sw"), lab.host("a"), lab.host("b")
    lab.link(a, sw, ip=["10.0.0.1/24", "fd00::1/64"])
    lab.link(b, sw, ip=["10.0.0.2/24", "fd00::2/64"])
    lab.up()
    off = ["bridge", "link", "set", "dev", "sw-p2", setting, "off"]
    sw.namespace.call(subprocess.run, off, check=True)
    cause(a, b, "not-flooded", "sw", snapshot, family=family)


@pytest.mark.parametrize("kind", ["static sticky", "local", "unknown"])
def test_a_bridge_that_does_not_know_where(lab: Lab, kind: str, snapshot: SnapshotAssertion) -> None:
    """Somebody has set where a MAC address is, or the bridge may neither learn nor flood."""
    sw, a, b, c = lab.bridge("sw"), lab.host("a"), lab.host("b"), lab.host("c")
    for host in (a, b, c):
        lab.link(host, sw)
    assert_reachable(a, b)
    mac = b.interfaces["eth0"].mac

    def bridge(*words: str) -> None:
        sw.namespace.call(subprocess.run, ["bridge", *words], check=True)

    if kind == "unknown":
        for setting in ("learning", "flood"):
            bridge("link", "set", "dev", "sw-p2", setting, "off")
        bridge("fdb", "del", mac, "dev", "sw-p2", "master")
        cause(a, b, "not-flooded", "sw", snapshot)
        bridge("link", "set", "dev", "sw-p2", "flood", "on")
    else:
        bridge("fdb", "replace", mac, "dev", "sw-p3", "master", *kind.split())
        cause(a, b, "fdb-elsewhere", "sw", snapshot)
        bridge("fdb", "del", mac, "dev", "sw-p3", "master")
    assert_reachable(a, b)


@pytest.mark.parametrize("where", ["a", "b"])
def test_an_interface_without_arp(lab: Lab, where: str, snapshot: SnapshotAssertion) -> None:
    a, b = two(lab)
    sh(lab.node(where), "ip link set dev eth0 arp off")
    cause(a, b, "no-arp", where, snapshot)


def test_entries_by_hand_need_no_arp(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = two(lab)
    for node, peer, ip in ((a, b, "10.0.0.2"), (b, a, "10.0.0.1")):
        mac = peer.interfaces["eth0"].mac
        sh(node, "ip link set dev eth0 arp off")
        sh(node, f"ip neighbour replace {ip} lladdr {mac} nud permanent dev eth0")
    assert_reachable(a, b)
    nft(b, "input", "icmp type echo-request drop")
    cause(a, b, "filtered", "b", snapshot)


def test_arp_is_ignored(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = two(lab)
    b.sysctl["net.ipv4.conf.all.arp_ignore"] = "8"
    cause(a, b, "arp-ignored", "b", snapshot)


@pytest.mark.parametrize("where", ["a", "b"])
def test_ipv6_is_switched_off(lab: Lab, where: str, snapshot: SnapshotAssertion) -> None:
    a, b = two(lab)
    lab.node(where).sysctl["net.ipv6.conf.eth0.disable_ipv6"] = "1"
    cause(a, b, "ipv6-off", where, snapshot, family="ipv6")
