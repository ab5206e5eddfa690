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
    duplicate_address,
    one_way,
    partition,
)
from pytest_infra.checks.reach import measure_reach

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
