"""Three routers in a row: addresses and routes are worked out by the lab.

a ── r1 ── r2 ── r3 ── b
"""

from itertools import pairwise

import pytest

from pytest_infra import CheckFailed, assert_path, assert_reachable, assert_unreachable, traceroute


@pytest.fixture
def chain(lab):
    nodes = [lab.host("a"), lab.router("r1"), lab.router("r2"), lab.router("r3"), lab.host("b")]
    for left, right in pairwise(nodes):
        lab.link(left, right)
    return nodes


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_packet_passes_every_router(chain, family):
    a, r1, r2, r3, b = chain
    assert_reachable(a, b, family=family)
    assert_path(a, b, [r1, r2, r3, b], family=family)
    assert_path(b, a, [r3, r2, r1, a], family=family)


def test_traceroute_as_data(chain):
    a, *_, b = chain
    report = traceroute(a, b)
    assert [hop.node for hop in report.hops] == ["r1", "r2", "r3", "b"]
    print(report)


def test_a_router_that_does_not_forward_is_named(chain):
    a, _, r2, _, b = chain
    r2.sysctl["net.ipv4.ip_forward"] = "0"
    assert_unreachable(a, b, family="ipv4")
    with pytest.raises(CheckFailed, match=r"r2 does not forward"):
        assert_reachable(a, b, family="ipv4")


@pytest.mark.infra_requires("ip")
def test_a_lost_route_is_named(chain):
    a, r1, *_, b = chain
    r1.run(["ip", "route", "del", str(b.ports[0].addresses[0].network)])
    with pytest.raises(CheckFailed, match=r"r1 has no route to"):
        assert_reachable(a, b, family="ipv4")


def test_the_wrong_path_is_told(chain):
    a, r1, _, r3, b = chain
    with pytest.raises(CheckFailed, match="r2"):
        assert_path(a, b, [r1, r3, b])
