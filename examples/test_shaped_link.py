"""Links as they are outside a laboratory: slow, far away, lossy; and checks that say so in figures."""

from __future__ import annotations

from pytest_infra import assert_jitter, assert_latency, assert_loss, assert_reachable, assert_throughput


def test_shaped_link(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, rate="50 Mbit/s")
    report = assert_throughput(a, b, at_least="45 Mbit/s", at_most="52 Mbit/s")
    assert report.retransmits < 100


def test_an_office_far_away(lab):
    office, router, server = lab.host("office"), lab.router("r1"), lab.host("server")
    lab.link(office, router, rate="20 Mbit/s", delay="30 ms", jitter="5 ms")
    lab.link(router, server)
    assert_latency(office, server, least="50 ms", p50="70 ms")
    assert_jitter(office, server, at_least="1 ms", at_most="10 ms")


def test_a_lossy_hour(lab):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    assert_loss(a, b, at_most=0)
    with link.impair(loss="5 %"):
        assert_loss(a, b, expected="5 %", count=2000)
    with link.impair(delay="100 ms", toward=b):
        assert_latency(a, b, one_way=True, least="99 ms")
    assert_reachable(a, b)
