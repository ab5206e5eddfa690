"""The pure model of packet classification: packets, rules, classifiers, and what may not be said."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.core.errors import BadInput
from pytest_infra.packet.classifier import DEFAULT, Classifier
from pytest_infra.packet.fields import IPV6
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.rule import Rule
from pytest_infra.packet.strategies import near, policies


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Rule("r", proto="tcp", dport=70000, to="a"), "dport is 70000; allowed are 0 to 65535"),
        (lambda: Rule("r", src="10.0.0.0/40", to="a"), "src is '10.0.0.0/40'"),
        (lambda: Rule("r", src="10.0.0.1/8", to="a"), "has host bits set"),
        (lambda: Rule("r", proto="icmp", dport=53, to="a"), "dport needs proto 'tcp', 'udp' or 'sctp'"),
        (lambda: Rule("r", dport=53, to="a"), "its proto is None"),
        (lambda: Rule("r", proto="udp", dport=(9, 8), to="a"), "from its lower end to its higher one"),
        (lambda: Rule("r", proto="udp", dport=(1, 2, 3), to="a"), "a range has two ends"),
        (lambda: Rule("r", proto="udp", dport="80-x", to="a"), "dport is 'x'"),
        (lambda: Rule("r", proto="udp", dport=True, to="a"), "dport is True"),
        (lambda: Rule("r", proto="upd", to="a"), "proto is 'upd'; allowed are 0 to 255, or icmp"),
        (lambda: Rule("r", proto="udp", icmp_type=8, to="a"), "icmp_type needs proto 'icmp'"),
        (lambda: Rule("r", proto="udp", tcp_flags="syn", to="a"), "tcp_flags needs proto 'tcp'"),
        (lambda: Rule("r", proto="tcp", tcp_flags="sin", to="a"), "write flags as in 'syn,!ack'"),
        (lambda: Rule("r", proto="tcp", tcp_flags="syn,!syn", to="a"), "write flags as in"),
        (lambda: Rule("r", src="10.0.0.0/8", dst="::/0", to="a"), "different EtherTypes: 0x800, 0x86dd"),
        (lambda: Rule("r", src="10.0.0.0/8", proto="icmpv6", to="a"), "different EtherTypes"),
        (lambda: Rule("r", eth_type="arp", proto="udp", to="a"), "its eth_type is 0x806"),
        (lambda: Rule("r", eth_type=0x100, to="a"), "allowed are 1536 to 65535, or ipv4, arp, ipv6"),
        (lambda: Rule("r", pcp=3, to="a"), "pcp needs a VLAN tag"),
        (lambda: Rule("r", vlan="none", pcp=3, to="a"), "pcp needs a VLAN tag"),
        (lambda: Rule("r", vlan=4095, to="a"), "vlan is 4095"),
        (lambda: Rule("r", eth_src="2:0:0:0:0:1", to="a"), "looks like 02:00:00:00:00:01"),
        (lambda: Rule("r"), "give either to=… or drop=True"),
        (lambda: Rule("r", to="a", drop=True), "give either to=… or drop=True"),
        (lambda: Rule("r", drop=True, queue=1), "queue would have no effect"),
        (lambda: Rule("r", to="a", mark=2**32), "mark is 4294967296"),
        (lambda: Rule("r", to="a", priority=-1), "priority is -1"),
        (lambda: Rule("r", to="a", set={"proto": 6}), "cannot set proto; allowed are eth_src"),
        (lambda: Rule("r", eth_type="arp", to="a", set={"dscp": 46}), "cannot be done to"),
        (lambda: Rule("", to="a"), "a rule's name is text"),
        (lambda: Classifier([Rule("r", to="a"), Rule("r", to="b")]), "several rules are called 'r'"),
        (lambda: Classifier([Rule(DEFAULT, to="a")]), "no rule may be called 'default'"),
        (lambda: Classifier([Rule("r", in_port="p9", to="a")], ports=["p1"]), "no port 'p9'; there are p1"),
        (lambda: Packet(proto="icmp", dport=1), "only TCP, UDP or SCTP has it"),
        (lambda: Packet(eth_type="arp", src="10.0.0.1"), "different families"),
        (lambda: Packet(src="10.0.0.1", dst="::1"), "different families"),
        (lambda: Packet(eth_type="arp", proto=6), "only an IP packet has it"),
        (lambda: Packet(proto="udp", tcp_flags="syn"), "only TCP has it"),
        (lambda: Packet(proto="udp", icmp_type=1), "only ICMP"),
        (lambda: Packet(proto="udp", ttl=256), "ttl is 256; allowed are 0 to 255"),
        (lambda: Packet(proto="udp", dport=-1), "dport is -1"),
        (lambda: Packet(src="10.0.0.256"), "src is '10.0.0.256'"),
        (lambda: Packet(pcp=1), "give vlan"),
        (lambda: Packet(vlan=-1), "leave it out"),
        (lambda: Classifier([], ports=["p1"]).classify(Packet(in_port="p2")), "comes in by 'p2'; the ports are p1"),
    ],
)
def test_bad_input_gets_one_clear_error(made, words):
    with pytest.raises(BadInput) as error:
        made()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_packet_gets_the_headers_that_it_needs():
    assert Packet(dst="10.0.0.1", proto="tcp", dport=22).eth_type == 0x800
    assert Packet(proto="icmpv6", icmp_type=128).src == "2001:2::1"
    assert Packet(dport=53, proto="udp").dst == "198.18.0.2"
    assert Packet().eth_type == 0x88B5
    assert Packet(src="2001:DB8::0001").src == "2001:db8::1"
    assert Packet(proto="tcp", tcp_flags="ack,syn") == Packet(proto=6, tcp_flags="syn ack")


def test_a_packet_is_shown_as_the_code_that_makes_it():
    packet = Packet(in_port="p1", proto="udp", dport=53, src="10.0.0.1", vlan=5, dscp="EF", eth_dst="02:00:00:00:00:07")
    assert eval(repr(packet)) == packet
    assert repr(Packet(eth_type=0x0806)) == "Packet(eth_type=0x806)"


def test_the_first_rule_that_matches_decides():
    wide = Rule("wide", src="10.0.0.0/8", to="a", priority=1)
    narrow = Rule("narrow", src="10.1.0.0/16", to="b", priority=2)
    acl = Classifier([wide, narrow], default="c")
    assert acl.classify(Packet(src="10.1.2.3")).rule == "narrow"
    assert acl.classify(Packet(src="10.2.2.3")).to == ("a",)
    assert str(acl.classify(Packet(src="11.2.2.3"))) == "to c by default"
    same = Classifier([replace(wide, priority=0), replace(narrow, priority=0)])
    assert same.classify(Packet(src="10.1.2.3")).rule == "wide"
    assert same.classify(Packet(src="11.1.2.3")).dropped


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        (Rule("r", dport="80-90", proto="tcp", to="a"), Packet(proto="tcp", dport=90), Packet(proto="tcp", dport=91)),
        (Rule("r", proto="udp", to="a"), Packet(proto="udp", src="::1"), Packet(proto="tcp", src="::1")),
        (Rule("r", src="10.0.0.0/9", to="a"), Packet(src="10.127.255.255"), Packet(src="10.128.0.0")),
        (Rule("r", src="::/0", to="a"), Packet(src="::1"), Packet(src="0.0.0.1")),
        (Rule("r", vlan="none", to="a"), Packet(), Packet(vlan=0)),
        (Rule("r", vlan="any", pcp="4-7", to="a"), Packet(vlan=9, pcp=4), Packet(vlan=9, pcp=3)),
        (Rule("r", dscp="AF11", to="a"), Packet(dscp=10), Packet(dscp=11)),
        (Rule("r", eth_type="arp", to="a"), Packet(eth_type=0x806), Packet(eth_type=0x807)),
        (
            Rule("r", proto="tcp", tcp_flags="syn,!ack", to="a"),
            Packet(proto="tcp", tcp_flags="syn rst"),
            Packet(proto="tcp", tcp_flags="syn ack"),
        ),
        (
            Rule("r", proto="icmp", icmp_type=8, to="a"),
            Packet(proto="icmp", icmp_type=8),
            Packet(proto="icmpv6", icmp_type=8),
        ),
        (Rule("r", in_port="p1", to="a"), Packet(in_port="p1"), Packet(in_port="p2")),
        (Rule("r", tunnel_id=7, to="a"), Packet(tunnel_id=7), Packet()),
        (Rule("r", eth_dst="02:00:00:00:00:0A", to="a"), Packet(eth_dst="02:00:00:00:00:0a"), Packet()),
    ],
)
def test_a_match_ends_where_it_says(rule, yes, no):
    acl = Classifier([rule])
    assert acl.classify(yes).rule == "r"
    assert acl.classify(no).rule == DEFAULT


def test_a_rule_changes_the_packet_that_it_forwards():
    rule = Rule("ef", proto="udp", to="a", queue=2, mark=9, set={"dscp": "EF", "ttl": 7})
    verdict = Classifier([rule]).classify(Packet(proto="udp", dport=5))
    assert (verdict.queue, verdict.mark) == (2, 9)
    assert verdict.packet == Packet(proto="udp", dport=5, dscp=46, ttl=7)
    assert str(verdict) == "to a, queue 2, mark 9 by 'ef'"


@given(st.data())
def test_a_packet_drawn_for_a_rule_matches_it(data):
    policy = data.draw(policies(ports=("p1", "p2")))
    packet = data.draw(near(policy, outside=False))
    assert policy.match(packet) is not None


@given(st.data())
def test_a_packet_is_its_values(data):
    policy = data.draw(policies(ports=("p1", "p2")))
    packet = data.draw(near(policy))
    assert Packet.from_values(packet.values, packet.in_port) == packet
    assert eval(repr(packet)) == packet


@given(policies(ports=("p1",)))
def test_a_policy_is_shown_as_the_code_that_makes_it(policy):
    assert repr(eval(repr(policy))) == repr(policy)


def test_packets_near_a_rule_find_an_end_that_is_off_by_one():
    from hypothesis import find, settings

    right = Classifier([Rule("r", proto="tcp", dport=(1000, 2000), to="a")])
    wrong = Classifier([Rule("r", proto="tcp", dport=(1000, 2001), to="a")])
    many = settings(max_examples=10_000, database=None, deadline=None)
    differs = lambda packet: right.classify(packet) != wrong.classify(packet)  # noqa: E731
    packet = find(near(right), differs, settings=many, random=Random(0))
    assert packet == Packet(proto="tcp", dport=2001, sport=1024)


def test_what_random_rules_may_not_match():
    with pytest.raises(BadInput, match="no match colour; there are in_port"):
        policies(matches=("colour",))


def test_packets_have_no_extension_headers_that_no_rule_asks_for():
    """Devices look for the header behind them, and there is none (RFC 7045)."""

    rules = [Rule("r1", in_port="p1", dscp=0, to="p1"), Rule("r2", proto="icmp", icmp_type=8, to="p1")]

    @given(near(Classifier(rules, ports=("p1", "p2"))))
    def drawn(packet):
        assert packet.eth_type != IPV6 or packet.proto not in (0, 43, 44, 50, 51, 60, 135, 139, 140)

    drawn()
