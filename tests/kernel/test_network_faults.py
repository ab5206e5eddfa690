"""Faults of networks: what breaks, what does not, and that it is whole again afterwards."""

from __future__ import annotations

import pytest

from pytest_infra import (
    BadInput,
    assert_all_reachable,
    assert_converged,
    assert_reachable,
    assert_reconverged,
    assert_unreachable,
    blackhole,
    cut,
    delay_step,
    duplicate_address,
    flapping,
    measure_latency,
    moved_mac,
    one_way,
    partition,
)
from pytest_infra.checks.reach import measure_reach
from pytest_infra.core.wait import until
from pytest_infra.reporting.facts import read_facts
from pytest_infra.reporting.topology import mermaid, svg

pytestmark = pytest.mark.infra_requires("nft", "ip")


@pytest.fixture
def nodes(lab):
    switch = lab.bridge()
    hosts = [lab.host(name) for name in "abc"]
    for host in hosts:
        lab.link(host, switch)
    return hosts


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_partition_separates_groups_and_heals(nodes, family):
    a, b, c = nodes
    with partition([a, b], [c]):
        assert_reachable(a, b, family=family)
        assert not measure_reach(a, c, family=family, within="100 ms").ok
        assert not measure_reach(c, b, family=family, within="100 ms").ok
    for source, destination in ((a, c), (c, b)):
        assert_reachable(source, destination, family=family, within="5 s")
    assert a.nft_rules == c.nft_rules == []


def test_a_partition_outlives_a_flush_and_ends_without_its_table(nodes):
    a, b, _ = nodes
    with partition([a], [b]):
        b.nft("#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n}\n")  # as Debian's default file begins
        assert not measure_reach(a, b, within="100 ms").ok
        with pytest.raises(BadInput, match="in line 2, 'tabel"):
            b.nft("flush ruleset\ntabel inet filter {\n}\n")
        for node in (a, b):
            node.run(["nft", "flush", "ruleset"])  # by itself, which nobody can see to
        assert_reachable(a, b, within="5 s")
    assert a.nft_rules == b.nft_rules == []


def test_three_groups(nodes):
    a, b, c = nodes
    with partition([a], [b], [c]):
        assert not measure_reach(a, b, within="100 ms").ok
        assert not measure_reach(b, c, within="100 ms").ok
    assert_reachable(a, b, within="5 s")


def test_one_way_loses_one_direction(nodes):
    a, b, c = nodes
    capture_a, capture_b = (node.ports[0] for node in (a, b))
    with one_way(a, b):
        assert not measure_reach(a, b, within="100 ms").ok
        assert_reachable(c, b)
    assert capture_a is not capture_b
    assert_reachable(a, b, within="5 s")


def test_a_black_hole(nodes):
    a, b, c = nodes
    with blackhole(a, b):
        assert_unreachable(a, b)
        assert_reachable(a, c)
        with pytest.raises(BadInput, match=r"no black hole for .* in a: .*File exists"), blackhole(a, b):
            pass
    assert_reachable(a, b, within="5 s")
    with blackhole(a, "203.0.113.0/24"):
        assert any(route.kind == "blackhole" for route in a.routes)
    assert not any(route.kind == "blackhole" for route in a.routes)
    with pytest.raises(BadInput, match="no black hole for nowhere"), blackhole(a, "nowhere"):
        pass


def test_a_cut_link_comes_back(lab, nodes):
    a, b, _ = nodes
    with cut(*lab.links[:1]):
        assert_unreachable(a, b)
        assert not a.interfaces["eth0"].up or not a.interfaces["eth0"].carrier
    assert_reachable(a, b, within="5 s")


def test_a_duplicate_address_takes_the_traffic(nodes):
    a, b, c = nodes
    address = next(ip.ip for ip in b.ports[0].addresses if ip.version == 4)
    assert_reachable(a, b)
    with duplicate_address(c, b):
        known = {neighbour.ip: neighbour.mac for neighbour in a.neighbours}
        assert known[address] == c.ports[0].mac
    assert {neighbour.ip: neighbour.mac for neighbour in a.neighbours}[address] == b.ports[0].mac
    assert_reachable(a, b, within="5 s")


def test_faults_within_one_another(lab, nodes):
    a, b, c = nodes
    with one_way(a, b):
        with one_way(c, b), partition([a], [b, c]), partition([a, b], [c]):
            assert not measure_reach(c, b, within="100 ms").ok
        assert len(b.nft_rules) == 2
        assert not measure_reach(a, b, within="100 ms").ok
        assert_reachable(c, b, within="5 s")
    assert a.nft_rules == b.nft_rules == c.nft_rules == []
    assert_reachable(a, b, within="5 s")


def test_a_link_that_was_cut_stays_so_within(lab, nodes):
    a, b, _ = nodes
    link = lab.links[0]
    with cut(link):
        with cut(link):
            pass
        assert not link.carrier
        assert_unreachable(a, b)
    assert link.carrier
    assert_reachable(a, b, within="5 s")
    a.ports[0].down()
    with cut(link):
        pass
    assert not a.ports[0].interface.up


def test_link_local_addresses_do_not_pass_either(nodes):
    a, b, _ = nodes
    local = next(item.ip.ip for item in b.addresses if item.ip.version == 6 and item.ip.is_link_local)
    assert_reachable(a, f"{local}%eth0", within="5 s")
    with one_way(a, b):
        assert not measure_reach(a, f"{local}%eth0", within="100 ms").ok
    with partition([a], [b]):
        assert not measure_reach(a, f"{local}%eth0", within="100 ms").ok
    assert_reachable(a, f"{local}%eth0", within="5 s")


def test_no_pairs_are_no_success(lab, nodes):
    for check in (
        lambda: assert_all_reachable(lab, pairs=[]),
        lambda: assert_converged(lab, "1 s", pairs=[]),
        lambda: assert_reconverged(lab, after=lambda: None, within="1 s", pairs=[]),
    ):
        with pytest.raises(BadInput, match="pairs is empty"):
            check()


def test_faults_end_with_the_lab(infra):
    with infra.lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b)
        lab.inject(partition([a], [b]))
        assert not measure_reach(a, b, within="100 ms").ok


def test_faults_that_cannot_be(lab, nodes):
    a, b, _ = nodes
    for fault in (
        lambda: partition([a]),
        lambda: partition([a], []),
        lambda: partition([a, b], [b]),
        cut,
        lambda: partition([a], [lab.host("lonely")]),
        lambda: blackhole(a, lab.host("nowhere")),
        lambda: duplicate_address(lab.host("alone"), a),
    ):
        with pytest.raises(BadInput), fault():
            pass


def test_a_link_that_flaps_is_down_and_up_by_turns_and_up_afterwards(lab, nodes):
    a, b, _ = nodes
    link = lab.links[0]
    lab.up()
    seen = set()
    with flapping(link, down="30 ms", up="30 ms"):
        until(lambda: seen.add(link.carrier) or len(seen) == 2, within_s=10, what="both states")
        until(lambda: link.carrier, within_s=10, what="up")
        until(lambda: not link.carrier, within_s=10, what="down once more")
    assert link.carrier
    assert_reachable(a, b, within="5 s")


def test_a_delay_steps_up_and_down(lab, nodes):
    a, b, _ = nodes
    with delay_step(lab.links[0], "30 ms"):
        assert measure_latency(a, b, count=5).figure_s("p50") > 0.055
    assert measure_latency(a, b, count=5).figure_s("p50") < 0.030


def test_a_mac_address_that_moves_takes_the_frames_along(lab, nodes):
    """The switch sends what is for b to c, until b speaks again."""
    a, b, c = nodes
    assert_reachable(a, b)
    b.sysctl["net.ipv4.icmp_echo_ignore_all"] = "1"  # it does not speak
    address = next(ip.ip for ip in b.ports[0].addresses if ip.version == 4)
    capture = lab.capture(c.ports[0], f"icmp and dst host {address}")
    with moved_mac(c, b):
        until(lambda: [measure_reach(a, b, within="50 ms"), capture.count][-1], within_s=10, what="frames at c")
    b.sysctl["net.ipv4.icmp_echo_ignore_all"] = "0"
    assert_reachable(a, b, within="5 s")


def test_faults_are_noted_while_they_last_and_afterwards(lab, nodes):
    a, b, c = nodes
    with partition([a, b], [c]), blackhole(a, "203.0.113.0/24"):
        now = read_facts(lab.diagnose())
        assert now.faults == [("partition a, b | c", ("a", "b", "c")), ("blackhole 203.0.113.0/24 in a", ("a",))]
        picture = svg(now)
        assert "partition a, b | c" in picture
        assert picture.count("broken") == 3 + 1  # the nodes, and the style
        assert 'f1>"blackhole 203.0.113.0/24 in a"]\n  f1 -.- n0\n' in mermaid(now)
    after = read_facts(lab.diagnose())
    assert after.faults == []
    assert "broken" not in svg(after).partition("</style>")[2]
    assert [fault["what"] for fault in after.lab["faults"]] == ["partition a, b | c", "blackhole 203.0.113.0/24 in a"]
    assert all(fault["took_s"] > 0 for fault in after.lab["faults"])
