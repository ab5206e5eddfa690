"""Shadowed, unreachable and overlapping rules: exact, and the same as trying every packet."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.core.errors import CheckFailed
from pytest_infra.packet.auditing import audit
from pytest_infra.packet.box import contains, covers, intersection, subtract, witness
from pytest_infra.packet.classifier import Classifier
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.police import Police
from pytest_infra.packet.rule import Rule
from pytest_infra.packet.strategies import policies

SMALL = {"sport": (0, 5), "dport": (0, 5), "pcp": (0, 3)}


def spans(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda ends: (min(ends), max(ends)))


BOXES = st.fixed_dictionaries({}, optional={name: spans(*limits) for name, limits in SMALL.items()})
POINTS = [dict(zip(SMALL, point, strict=True)) for point in product(*(range(lo, hi + 1) for lo, hi in SMALL.values()))]


@given(BOXES, BOXES)
def test_boxes_are_sets(one, other):
    both = intersection(one, other)
    pieces = list(subtract(one, other))
    for point in POINTS:
        inside = contains(one, point), contains(other, point)
        assert (both is not None and contains(both, point)) == all(inside)
        assert [contains(piece, point) for piece in pieces].count(True) == (inside == (True, False))
    if covers(other, one):
        assert pieces == []


@given(BOXES, st.lists(BOXES, max_size=6))
def test_a_witness_is_found_whenever_there_is_one(box, taken):
    universe = {**SMALL, **box}
    left = witness(universe, taken)
    points = [point for point in POINTS if contains(universe, point) and not any(contains(b, point) for b in taken)]
    assert (left is None) == (not points)
    if left is not None:
        assert all(intersection(left, other) is None for other in taken)


@given(policies(ports=("p1", "p2"), max_rules=8))
def test_every_rule_has_a_packet_of_its_own_or_is_shadowed(policy):
    report = audit(policy)
    assert set(report.witnesses) | {shadow.rule for shadow in report.shadows} == {rule.name for rule in policy.rules}
    for name, packet in report.witnesses.items():
        assert policy.classify(packet).rule == name
    for overlap in report.overlaps:
        for name in (overlap.first, overlap.second):
            alone = Classifier([rule for rule in policy.rules if rule.name == name], ports=policy.ports)
            assert alone.match(overlap.packet) is not None


def test_a_rule_behind_a_wider_one_is_shadowed():
    report = audit(Classifier([Rule("all", to="a"), Rule("web", proto="tcp", dport=80, drop=True)]))
    assert [(shadow.rule, shadow.by, shadow.same) for shadow in report.shadows] == [("web", ("all",), False)]
    with pytest.raises(CheckFailed, match="1 of 2 rules can never decide"):
        report.demand()


def test_rules_that_cover_one_together_shadow_it():
    halves = [Rule("low", src="10.0.0.0/9", to="a"), Rule("high", src="10.128.0.0/9", to="a")]
    behind = Rule("whole", src="10.0.0.0/8", to="a")
    report = audit(Classifier([*halves, behind]))
    assert [(shadow.rule, shadow.by, shadow.same) for shadow in report.shadows] == [("whole", ("low", "high"), True)]
    assert "'whole' is redundant: the same is done by 'low' and 'high'" in report.explain()


def test_a_gap_of_one_address_is_seen():
    rules = [Rule("low", src="10.0.0.0/9", to="a"), Rule("most", src="10.192.0.0/10", to="a")]
    report = audit(Classifier([*rules, Rule("whole", src="10.0.0.0/8", to="b")]))
    assert report.ok
    assert report.witnesses["whole"].src == "10.128.0.0"


def test_all_ports_together_cover_a_rule_only_where_there_are_no_others():
    rules = [Rule("one", in_port="p1", to="a"), Rule("two", in_port="p2", to="a"), Rule("rest", to="b")]
    assert [shadow.rule for shadow in audit(Classifier(rules, ports=["p1", "p2"])).shadows] == ["rest"]
    assert audit(Classifier(rules)).ok


def test_tcp_flags_are_fields_of_their_own():
    flags = [Rule("syn", proto="tcp", tcp_flags="syn", to="a"), Rule("other", proto="tcp", tcp_flags="!syn", to="a")]
    report = audit(Classifier([*flags, Rule("tcp", proto="tcp", to="b")]))
    assert [shadow.rule for shadow in report.shadows] == ["tcp"]


def test_an_overlap_comes_with_a_packet_and_says_whether_priorities_leave_it_open():
    rules = [Rule("a", src="10.0.0.0/8", to="a", priority=5), Rule("b", dst="10.0.0.0/8", to="b", priority=5)]
    (overlap,) = audit(Classifier(rules)).overlaps
    assert overlap.packet == Packet(src="10.0.0.0", dst="10.0.0.0")
    assert overlap.same_priority
    assert str(overlap).endswith(", at the same priority")
    assert audit(Classifier([rules[0], Rule("b", dst="10.0.0.0/8", to="a")])).overlaps == ()


def test_a_long_policy_is_audited_at_once():
    rules = [Rule(f"r{n}", proto="tcp", src=f"10.{n % 256}.{n // 256}.0/24", dport=n, to="a") for n in range(400)]
    report = audit(Classifier([*rules, Rule("last", proto="tcp", src="10.0.0.0/8", dport=(0, 399), drop=True)]))
    assert report.ok


def test_two_rules_that_match_everything_overlap():
    report = audit(Classifier([Rule("r0", to="b"), Rule("r1", drop=True)], ports=["p", "q"]))
    assert [(item.first, item.second, item.same_priority) for item in report.overlaps] == [("r0", "r1", True)]


def test_those_are_named_that_decide_and_not_those_that_are_shadowed_themselves():
    rules = [
        Rule("low", proto="udp", dport=(0, 1000), drop=True),
        Rule("high", proto="udp", dport=(1001, 65535), drop=True),
        Rule("A", proto="udp", to="a"),
        Rule("C", proto="udp", to="a"),
    ]
    found = {shadow.rule: (shadow.by, shadow.same) for shadow in audit(Classifier(rules)).shadows}
    assert found == {"A": (("low", "high"), False), "C": (("low", "high"), False)}


def test_what_is_beyond_a_rate_is_for_the_next_rule():
    green = Police("1 Mbit/s", 10_000, beyond="next")
    marker = [Rule("green", proto="udp", to="a", police=green, set={"dscp": 10}), Rule("yellow", proto="udp", to="a")]
    assert audit(Classifier(marker)).ok
    hard = [Rule("x", proto="udp", to="a", police=Police("1 Mbit/s", 10_000)), Rule("y", proto="udp", dport=53, to="a")]
    (shadow,) = audit(Classifier(hard)).shadows
    assert (shadow.rule, shadow.by, shadow.same) == ("y", ("x",), False)  # beyond the rate it drops
