"""What the checks of whole networks say when they fail; the texts are in __snapshots__."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from breaking import nft
from syrupy.assertion import SnapshotAssertion

from pytest_infra import (
    BadInput,
    CheckFailed,
    assert_all_reachable,
    assert_converged,
    assert_multicast,
    assert_multipath,
    assert_reconverged,
)
from pytest_infra.lab import Lab


def normal(error: BaseException) -> str:
    """The text without what differs from run to run."""
    text = re.sub(r"\b[\d.]+ (us|ms|s)\b", "<time>", str(error))
    text = re.sub(r"\n +kernel +dropped it.*", "", text)  # where tracefs tells
    text = re.sub(r"\d+ of \d+ requests", "<n> requests", text)
    text = re.sub(r", at the last of \d+ rounds", "", text)
    text = re.sub(r"declared at [\w.]+:\d+", "declared at <line>", text)
    return re.sub(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "<mac>", text)


def failing(check: Callable[..., object], *args: object, **kwargs: object) -> str:
    with pytest.raises(CheckFailed) as failed:
        check(*args, **kwargs)
    return normal(failed.value)


def test_some_pairs_are_silent(lab: Lab, snapshot: SnapshotAssertion) -> None:
    star = lab.star(4)
    assert_all_reachable(lab, within="20 s")
    star.hosts[3].ports[0].link.down()
    assert failing(assert_all_reachable, lab, within="200 ms") == snapshot


def test_it_does_not_converge(lab: Lab, snapshot: SnapshotAssertion) -> None:
    chain = lab.chain(2)
    assert_converged(lab, within="20 s")
    chain.routers[1].sysctl["net.ipv4.ip_forward"] = "0"
    assert failing(assert_converged, lab, within="300 ms") == snapshot


def test_it_stays_silent(lab: Lab, snapshot: SnapshotAssertion) -> None:
    chain = lab.chain(2)
    assert_converged(lab, within="20 s")
    pair = [(chain.hosts[0], chain.hosts[1])]
    assert failing(assert_reconverged, lab, after=chain.links[0].down, within="200 ms", pairs=pair) == snapshot


def test_it_takes_too_long(lab: Lab, snapshot: SnapshotAssertion) -> None:
    star = lab.star(2)
    a, b = star.hosts
    assert_converged(lab, within="20 s")

    def flap() -> None:
        b.ports[0].link.down()
        a.run(["sleep", "0.5"])
        b.ports[0].link.up()

    assert failing(assert_reconverged, lab, after=flap, within="100 ms", pairs=[(a, b)]) == snapshot


def test_it_was_silent_before(lab: Lab, snapshot: SnapshotAssertion) -> None:
    star = lab.star(2)
    star.hosts[0].ports[0].link.down()
    assert failing(assert_reconverged, lab, after=star.hosts[0].ports[0].up, within="1 s") == snapshot


def test_a_route_daemon_refuses_its_configuration(lab: Lab, snapshot: SnapshotAssertion) -> None:
    lab.router("r1", daemons=["ospfd"], config="router ospf\n network 10.0.0.0/8 area 0\n netwrok 10.0.0.0/8 area 0\n")
    with pytest.raises(BadInput) as refused:
        lab.up()
    assert normal(refused.value) == snapshot


@pytest.mark.parametrize(
    ("match", "actions"),
    [
        ("tcp,tcp_dts=80", "drop"),
        ("tcp_dst=80", "drop"),
        ("tcp,tcp_dst=80000", "drop"),
        ("ip,nw_dst=192.0.2.300", "drop"),
        ("dl_vlan=5000", "drop"),
        ("", "outptu:1"),
        ("", "output:sw-p9"),
        ("", "group:7"),
        ("", "meter:7"),
        ("", "drop,output:sw-p1"),
        ("priority=3", "drop"),
        ("udp,tcp_dst=3", "drop"),
        ("ipv6,nw_src=10.0.0.1", "drop"),
        ("", "learn(table=1"),
        ("", "goto_table:0"),
        ("", "dec_ttl"),
        ("", "output"),
        ("", ""),
    ],
)
def test_a_flow_is_refused(lab: Lab, snapshot: SnapshotAssertion, match: str, actions: str) -> None:
    sw = lab.ovs("sw")
    lab.link(lab.host(), sw)
    with pytest.raises(BadInput) as refused:
        sw.flow(match, actions)
    assert normal(refused.value) == snapshot


def test_multicast_does_not_arrive(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
    lab.link(a, r)
    lab.link(r, b)
    assert failing(assert_multicast, a, "239.1.2.3", [b], ttl=1, within="100 ms") == snapshot


@pytest.mark.parametrize(("where", "hook"), [("a", "output"), ("b", "input")])
def test_a_firewall_drops_multicast(lab: Lab, where: str, hook: str, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.up()
    nft(lab.node(where), hook, "ip daddr 239.1.2.3 drop")
    assert failing(assert_multicast, a, "239.1.2.3", [b], within="100 ms") == snapshot


def test_multicast_arrives_elsewhere_too(lab: Lab, snapshot: SnapshotAssertion) -> None:
    star = lab.star(3)
    a, b, c = star.hosts
    assert failing(assert_multicast, a, "239.1.2.3", [b], not_to=[c]) == snapshot


def test_flows_take_one_way_only(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, near, far, b = lab.host("a"), lab.router("near", routes=False), lab.router("far"), lab.host("b")
    lab.link(a, near, ip="10.7.0.10/24", peer_ip="10.7.0.1/24")
    lab.link(near, far, ip="10.1.0.1/24", peer_ip="10.1.0.2/24")
    lab.link(near, far, ip="10.2.0.1/24", peer_ip="10.2.0.2/24")
    lab.link(far, b, ip="10.9.0.1/24", peer_ip="10.9.0.10/24")
    near.run(["ip", "route", "add", "10.9.0.0/24", "via", "10.1.0.2"])
    assert failing(assert_multipath, a, b, ["eth1", "eth2"], at=near) == snapshot


def test_nobody_advertises(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, r = lab.host("a"), lab.router("r")
    lab.link(a, r, ip=[], peer_ip="2001:db8::1/64")
    assert failing(a.slaac, within="200 ms") == snapshot
