"""Links that delay, lose, double and corrupt: each way does what it says, measured; and the checks that measure it."""

from __future__ import annotations

import errno
import json
import socket
import time
from pathlib import Path

import pytest

from pytest_infra import (
    assert_jitter,
    assert_latency,
    assert_loss,
    assert_rate,
    assert_reachable,
    assert_reconverged,
    assert_throughput,
    find_rate,
    measure_latency,
    measure_loss,
    measure_throughput,
)
from pytest_infra.checks.converge import measure_gap
from pytest_infra.core.errors import BadInput, CheckFailed, Inconclusive, InfraError
from pytest_infra.core.process import Process
from pytest_infra.net.tc import NETEM
from pytest_infra.packet.statistics import binomial_p
from pytest_infra.reporting.facts import read_facts
from pytest_infra.reporting.topology import mermaid

TIMED = "netem" if NETEM.probe() else "relay"
LOSSY = ["netem", "relay"] if NETEM.probe() else ["bpf", "relay"]
IP_RECVERR = 11  # linux/in.h
HAS_TUN = Path("/dev/net/tun").exists()


def usable(way):
    """A relay needs a TAP device, which some machines do not have; there netem is the way."""
    return way != "relay" or HAS_TUN


@pytest.fixture
def pair(lab):
    a, b = lab.host("a"), lab.host("b")
    return lab, a, b, lab.link(a, b)


def takes_ms(a, b, expected, *, one_way=True, within=1.0, tries=8):
    """Whether packets take as long as expected, within 1 ms.

    A busy machine makes them take longer, so the best of several series counts; sooner than expected is never right.
    """
    found = []
    for _ in range(tries):
        found.append(1000 * measure_latency(a, b, one_way=one_way, count=50).figure_s("p50"))
        if found[-1] <= expected + within:
            break
    assert min(found) == pytest.approx(expected, abs=within), found
    return True


def fastest(measure, enough_bps, tries=8):
    """The best of several measurements: a busy machine makes them slower, and only a broken limit faster."""
    reports = []
    for _ in range(tries):
        reports.append(measure())
        if reports[-1].payload_bps >= enough_bps:
            break
    return max(reports, key=lambda report: report.payload_bps)


def test_a_delay_of_20_ms_is_20_ms_in_each_direction(lab):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, delay="20 ms")
    assert takes_ms(a, b, 20)
    assert takes_ms(b, a, 20)
    assert takes_ms(a, b, 40, one_way=False, within=2)
    assert link.ways == dict.fromkeys(link.ports, TIMED)


def test_a_delay_may_differ_by_direction(pair):
    _, a, b, link = pair
    link.impair(delay="20 ms", toward=b)
    assert takes_ms(a, b, 20)
    assert takes_ms(b, a, 0)


def test_jitter_spreads_evenly_to_both_sides(pair):
    _, a, b, link = pair
    link.impair(delay="20 ms", jitter="10 ms")
    assert takes_ms(a, b, 20, within=3)
    reports = [measure_latency(a, b, one_way=True, count=200) for _ in range(3)]
    assert min(1000 * report.figure_s("p10") for report in reports) == pytest.approx(12, abs=2.5)
    assert min(1000 * report.figure_s("p90") for report in reports) == pytest.approx(28, abs=2.5)
    assert measure_loss(a, b, count=200).reordered > 20


@pytest.mark.parametrize("way", LOSSY)
def test_a_loss_of_5_percent_is_one(pair, way):
    if not usable(way):
        pytest.skip("no /dev/net/tun")
    _, a, b, link = pair
    link.impair(loss="5 %", way=way)
    report = measure_loss(a, b, count=3000)
    assert binomial_p(report.lost, report.sent, 0.05) > 1e-4
    assert_loss(a, b, expected="5 %", count=3000)
    with pytest.raises((AssertionError, Inconclusive)):
        assert_loss(a, b, expected="10 %", count=3000)


def send_and_ask_for_errors(address):
    """Send datagrams from a socket that is told of local errors too; returns the errors."""
    errors = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        for _ in range(50):
            try:
                sock.sendto(b"x", (address, 9))
            except OSError as error:
                errors.append(error.errno)
    return errors


def test_the_sender_does_not_learn_of_a_loss_by_bpf(pair):
    _, a, b, link = pair
    assert_reachable(a, b)  # the neighbour is known, so datagrams do leave
    link.impair(loss="100 %", way="bpf", toward=b)
    address = str(b.ports[0].addresses[0].ip)
    assert a.call(send_and_ask_for_errors, address) == []
    assert measure_loss(a, b, count=50, within="100 ms").lost == 50
    link.clear()
    a.run(["tc", "qdisc", "replace", "dev", "eth0", "root", "pfifo", "limit", "0"])
    assert set(a.call(send_and_ask_for_errors, address)) == {errno.ENOBUFS}  # a drop it would have learnt of


def test_each_segment_of_tcp_is_lost_by_itself(pair):
    _, a, b, link = pair
    link.impair(loss="1 %")
    shares = []
    for _ in range(4):  # a busy machine sends some twice for nothing
        report = measure_throughput(a, b, duration="1 s", generator="built-in")
        shares.append(report.retransmits / report.flow.packets)
        if shares[-1] < 0.1:
            break
    assert 0.001 < min(shares) < 0.1, shares


def test_a_long_round_trip_is_no_gap(pair):
    _, a, b, link = pair
    link.impair(delay="50 ms")
    assert assert_reconverged([a, b], after=int, within="50 ms", steady="0.2 s").gap_s == 0
    report = measure_gap([a, b], after=link.down, within="100 ms", steady="0.2 s")
    assert report.silent == ("a -> b", "b -> a")
    assert report.lost > 10


def test_duplicates_and_reordering(pair):
    _, a, b, link = pair
    link.impair(duplicate="20 %")
    report = measure_loss(a, b, count=2000)
    assert binomial_p(report.duplicates, 2000, 0.2) > 1e-4
    assert report.lost == 0
    link.impair(duplicate=0, delay="10 ms", reorder="20 %")
    report = measure_loss(a, b, count=1000, interval="1 ms")
    assert report.reordered > 300
    assert report.duplicates == report.lost == 0


def test_a_wrong_bit_is_found_by_the_checksum(pair):
    _, a, b, link = pair
    assert_reachable(a, b)
    link.impair(corrupt="30 %", toward=b)
    report = measure_loss(a, b, count=2000, size=512)
    assert 0.2 < report.loss < 0.32  # a bit of the source's MAC address nobody misses


@pytest.mark.parametrize("delay", [None, "5 ms"])
def test_a_rate_is_one(lab, delay):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, rate="20 Mbit/s", delay=delay)
    assert_throughput(a, b, at_most="21 Mbit/s", generator="built-in")
    report = fastest(lambda: measure_throughput(a, b, generator="built-in"), 17.5e6)
    assert report.payload_bps == pytest.approx(19e6, rel=0.1)
    assert report.payload_bps < report.l3_bps < report.l2_bps
    assert report.on_the_way


def test_a_rate_is_found(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, rate="5 Mbit/s")
    report = find_rate(a, b, at_most="10 Mbit/s", loss="1 %", width="20 %", trial="300 ms")
    assert report.trials > report.invalid
    assert report.upper_bps is None or report.upper_bps > 4.5e6
    assert report.lower_bps < 5.5e6  # 2 % of the time, 1 % of loss, and the bucket's two frames


def test_what_a_queue_holds_is_no_rate(lab):
    """A trial of half a second of 1.1 times the rate fits into the queue of a tenth of a second: nothing is lost."""
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, rate="10 Mbit/s")
    assert assert_rate(a, b, at_least="9 Mbit/s").ok
    with pytest.raises(CheckFailed, match=r"only 10(\.\d+)? Mbit/s of L2"):
        assert_rate(a, b, at_least="11 Mbit/s")


@pytest.mark.parametrize("switch", ["bridge", "ovs"])
def test_the_link_to_a_switch(lab, switch):
    a, b, sw = lab.host("a"), lab.host("b"), getattr(lab, switch)("sw1")
    lab.link(a, sw, delay="10 ms")
    lab.link(b, sw)
    assert_reachable(a, b)
    assert takes_ms(a, b, 10)
    assert takes_ms(b, a, 10)


def test_impairments_come_and_go(pair):
    _, a, b, link = pair
    with link.impair(delay="10 ms"):
        assert takes_ms(a, b, 10)
        with link.impair(delay="30 ms", loss="10 %"):
            assert takes_ms(a, b, 30)
            assert measure_loss(a, b, count=500).lost > 10
        assert takes_ms(a, b, 10)
        assert measure_loss(a, b, count=500).lost == 0
    assert takes_ms(a, b, 0)
    assert set(a.interfaces) == {"lo", "eth0"}
    link.impair(loss="100 %")
    assert measure_loss(a, b, count=10, within="100 ms").lost == 10
    link.clear()
    assert measure_loss(a, b, count=10).lost == 0
    assert "impairment" not in json.dumps(link.describe())


def test_what_is_impaired_is_seen(lab):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, rate="50 Mbit/s", loss="5 %")
    lab.up()
    ends = link.describe()["ends"]
    way = "netem" if NETEM.probe() else "bpf"
    text = "rate 50 Mbit/s (layer 2), loss 5 %"
    assert ends[0]["impairment"] == {"rate_bps": 50e6, "loss": 0.05, "text": text, "way": way}
    assert text in mermaid(read_facts(lab.diagnose()))


BAD = [
    ({"rate": "fast"}, "rate: rate 'fast' does not begin with a number"),
    ({"delay": -1}, "delay: .*from 0 up"),
    ({"loss": "200 %"}, "loss: fraction '200 %' is more than the whole"),
    ({"jitter": "1 ms"}, "jitter '1 ms' cannot be used"),
    ({"reorder": 0.1}, "reorder needs a delay"),
    ({"duplicate": True}, "duplicate: fraction True is neither text nor a number"),
    ({"corrupt": "x"}, "corrupt: fraction 'x' does not begin with a number"),
]


@pytest.mark.parametrize(("values", "words"), BAD)
def test_bad_values_change_nothing(lab, values, words):
    a, b = lab.host("a"), lab.host("b")
    with pytest.raises(BadInput, match=words):
        lab.link(a, b, **values)
    assert lab.links == []
    assert a.ports == []
    link = lab.link(a, b)
    with pytest.raises(BadInput, match=words):
        link.impair(**values)
    assert link.impairments == {}
    assert_reachable(a, b)


def test_bad_ends_and_ways(pair):
    lab, _, _, link = pair
    with pytest.raises(BadInput, match="is no end of a:eth0 -- b:eth0; give one of its two nodes"):
        link.impair(loss=0.1, toward=lab.host("c"))
    with pytest.raises(BadInput, match="way 'magic' is not known; allowed are 'netem', 'tbf', 'bpf', 'relay'"):
        link.impair(loss=0.1, way="magic")
    with pytest.raises(BadInput, match="the way 'tbf' cannot do loss 10 %"):
        link.impair(loss=0.1, way="tbf")
    assert link.impairments == {}
    assert link.way == ""


def test_nothing_is_left(infra, nothing_left):
    with infra.lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        link = lab.link(a, b, delay="1 ms")
        assert_reachable(a, b)
        link.clear()
        link.impair(loss=0.1)
        link.impair(rate="1 Gbit/s", delay="1 ms")


def shape_of(*nodes):
    """The queueing disciplines of each node, and how many frames its interface may send as one."""
    found = []
    for node in nodes:
        [details] = json.loads(node.run(["ip", "-j", "-d", "link", "show", "eth0"]).stdout)
        kinds = sorted(line.split()[1] for line in node.run(["tc", "qdisc", "show", "dev", "eth0"]).stdout.splitlines())
        found.append((kinds, details["gso_max_segs"]))
    return found


@pytest.mark.infra_requires("ip")
@pytest.mark.parametrize("what", [{"loss": "1 %"}, {"rate": "50 Mbit/s"}, {"rate": "50 Mbit/s", "loss": "1 %"}])
def test_a_link_is_afterwards_what_it_was(pair, what):
    lab, a, b, link = pair
    c, d = lab.host("c"), lab.host("d")
    lab.link(c, d)
    lab.up()
    before = shape_of(a, b, c, d)
    with link.impair(**what):
        assert shape_of(a, b, c, d) != before
    assert shape_of(a, b, c, d) == before


def test_a_queueing_discipline_of_the_tests_is_not_replaced(pair):
    _, a, b, link = pair
    a.run(["tc", "qdisc", "add", "dev", "eth0", "root", "pfifo", "limit", "7"])
    with pytest.raises(BadInput, match=r"a:eth0 has a queueing discipline that the test made \(pfifo\); take it away"):
        link.impair(rate="50 Mbit/s")
    assert shape_of(a)[0][0] == ["pfifo"]
    assert shape_of(b)[0][0] == ["noqueue"]
    with link.impair(loss="1 %", toward=a):
        pass
    assert shape_of(a)[0][0] == ["pfifo"]


@pytest.mark.infra_requires("nft")
def test_a_datagram_that_is_refused_does_not_count_twice(pair):
    """The kernel reports the error of an earlier datagram instead of sending the next one."""
    _, a, b, _ = pair
    for name in ("net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"):
        b.sysctl[name] = "0"
    rule = "udp dport > 0 numgen inc mod 10 0 counter reject"
    b.nft(f"table inet t {{\n chain c {{\n type filter hook input priority 0;\n {rule}\n }}\n}}\n")
    report = measure_loss(a, b, count=500)
    assert report.lost == b.nft_rules[0].packets == 50


@pytest.mark.infra_requires("iperf3", "nft")
def test_throughput_through_a_firewall_fails_soon(pair):
    _, a, b, _ = pair
    b.nft("table inet t {\n chain c {\n type filter hook input priority 0;\n meta l4proto tcp drop\n }\n}\n")
    began = time.monotonic()
    with pytest.raises(InfraError, match=r"unable to connect.*assert_reachable says why"):
        measure_throughput(a, b, generator="iperf3", duration=1)
    assert time.monotonic() - began < 15  # it would wait for 20 s


@pytest.mark.infra_requires("iperf3")
def test_a_server_of_the_tests_is_left_alone(pair):
    _, a, b, _ = pair
    with b.spawn(["iperf3", "-s", "--forceflush"]) as server:
        server.wait_for("listening")
        assert measure_throughput(a, b, generator="iperf3", duration=1).payload_bps > 0
        assert server.running


@pytest.mark.skipif(not HAS_TUN, reason="a relay needs /dev/net/tun")
def test_a_relay_that_was_killed_is_told_of(pair):
    _, a, _, link = pair
    link.impair(delay="1 ms", way="relay")
    a.run(["pkill", "-KILL", "-f", "relay_main"])
    with pytest.raises(InfraError, match="the relay of a:eth0 does not answer"):
        link.impair(delay="2 ms")


# -- the checks, where the way is as it should be --------------------------------------------------------------------


def test_latency_and_jitter_pass(pair):
    _, a, b, link = pair
    assert assert_latency(a, b, p50="100 ms", p99="1 s").ok
    link.impair(delay="20 ms", jitter="10 ms")
    assert_latency(a, b, p50="60 ms", least="30 ms")
    report = assert_jitter(a, b, at_least="3 ms", at_most="20 ms")
    assert report.one_way


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_every_family(pair, family):
    _, a, b, _ = pair
    assert measure_loss(a, b, family=family, count=50).sent == 50
    report = measure_throughput(a, b, family=family, duration="200 ms", generator="built-in", streams=2)
    assert report.payload_bps > 1e6
    assert report.cpu_per_packet_s > 0
    assert report.to_dict()["streams"] == 2


@pytest.mark.infra_requires("iperf3")
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_iperf3_and_the_generator_agree(lab, protocol):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, rate="20 Mbit/s")
    rate, enough = ("15 Mbit/s", 14e6) if protocol == "udp" else (None, 17.5e6)
    theirs = fastest(lambda: measure_throughput(a, b, protocol=protocol, rate=rate, generator="iperf3"), enough)
    mine = fastest(lambda: measure_throughput(a, b, protocol=protocol, rate=rate, generator="built-in"), enough)
    assert theirs.generator.startswith("iperf 3")
    assert mine.payload_bps == pytest.approx(theirs.payload_bps, rel=0.25)


def test_throughput_is_held_against_another_pair(pair):
    lab, a, b, _ = pair
    c, d = lab.host("c"), lab.host("d")
    lab.link(c, d, rate="5 Mbit/s")
    load = {"protocol": "udp", "rate": "15 Mbit/s", "size": 200, "duration": "50 ms"}
    report = assert_throughput(c, d, relative_to=(a, b), at_most=0.7, **load)
    assert report.comparison is not None
    assert report.comparison.ratio < 0.7
    with pytest.raises(CheckFailed, match="wanted"):
        assert_throughput(c, d, relative_to=(a, b), at_least=0.9, **load)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocol": "sctp"}, "protocol 'sctp' is not known"),
        ({"streams": 0}, "streams 0 is not allowed"),
        ({"duration": "0 s"}, "duration"),
        ({"duration": "1 h"}, "at most 600 s is"),
        ({"rate": "1 Mbit/s"}, "rate is what UDP offers"),
        ({"size": 70000, "protocol": "udp"}, "size 70000 is not allowed"),
        ({"generator": "trex"}, "generator 'trex' is not known"),
    ],
)
def test_bad_input_of_throughput(pair, options, words):
    _, a, b, _ = pair
    with pytest.raises(BadInput, match=words):
        measure_throughput(a, b, **options)


def test_bad_input_of_the_others(pair):
    _, a, b, _ = pair
    for call, words in [
        (lambda: assert_throughput(a, b), "at_least or at_most is wanted"),
        (lambda: assert_throughput(a, b, at_least=1, layer="L4"), "layer 'L4' is not known"),
        (lambda: assert_throughput(a, b, at_least="1 Mbit/s", relative_to=(b, a)), "a bound is a ratio"),
        (lambda: assert_latency(a, b), "p50, p99 or least is wanted"),
        (lambda: assert_latency(a, b, p99="1 ms", count=10), "count 10 is too small for p99"),
        (lambda: assert_jitter(a, b), "at_most or at_least is wanted"),
        (lambda: assert_loss(a, b), "one of at_most and expected is wanted"),
        (lambda: assert_loss(a, b, at_most=0.1, expected=0.1), "one of at_most and expected is wanted"),
        (lambda: measure_loss(a, b, size=10), "has at least 20 bytes"),
        (lambda: measure_loss(a, "198.51.100.1"), "the address of no node of the lab"),
        (lambda: find_rate(a, b, width="90 %"), "width '90 %' is not allowed"),
        (lambda: find_rate(a, b, at_most="10 kbit/s"), "at_most '10 kbit/s' is too low"),
    ]:
        with pytest.raises(BadInput, match=words):
            call()


def test_where_nothing_can_be_sent(pair):
    _, a, b, link = pair
    b.call(int)
    link.down()
    with pytest.raises(InfraError, match=r"a has no connection to b .*assert_reachable says why"):
        measure_throughput(a, b, generator="built-in")


def test_a_generator_ends_with_the_measurement(pair, census):
    _, a, b, _ = pair
    measure_throughput(a, b, duration="100 ms", generator="built-in")
    before = census()
    measure_throughput(a, b, duration="100 ms", generator="built-in", protocol="udp", rate="1 Mbit/s")
    assert not census() - before
    assert isinstance(a.spawn(["true"]), Process)
