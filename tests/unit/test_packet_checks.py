"""The checks of classification, with models and broken copies of them in the place of devices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import strategies as st

from pytest_infra.checks.agree import assert_agrees, assert_installs
from pytest_infra.checks.classify import assert_classified, assert_dropped
from pytest_infra.core.errors import BadInput, CheckFailed, Unavailable
from pytest_infra.packet.classifier import Classifier, Verdict
from pytest_infra.packet.device import demand_matches
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.rule import Rule
from pytest_infra.packet.strategies import VOCABULARY, policies

DNS = Rule("dns", proto="udp", dport=53, to="p2", set={"dscp": 46, "ttl": 9}, queue=3, mark=7)
ACL = Classifier([DNS, Rule("no ssh", proto="tcp", dport=22, drop=True), Rule("ssh6", proto="tcp", dport=22, to="p1")])
ASK = Packet(proto="udp", dport=53)
SSH = Packet(proto="tcp", dport=22)


class Told:
    """A device that holds rules exactly, but for what `bend` does to them."""

    name = "the broken device"
    matches = VOCABULARY
    outputs = ("a", "b")
    ports = ("p1", "p2")
    shows = ("rule",)

    def __init__(self, bend=lambda classifier: classifier):
        self.bend = bend
        self.installed = None

    def install(self, classifier):
        self.held = self.bend(classifier)
        self.installed = classifier

    def classify_all(self, packets):
        return self.held.classify_all(packets)


@dataclass
class Mute:
    """A device that only tells where a packet went."""

    inner: Classifier
    name = "the mute device"
    shows = ()

    def classify_all(self, packets):
        return [Verdict(verdict.to) for verdict in self.inner.classify_all(packets)]


def failure(check, *arguments, **options):
    with pytest.raises(CheckFailed) as error:
        check(*arguments, **options)
    return str(error.value)


def test_a_packet_in_its_place_passes():
    report = assert_classified(ACL, ASK, into="p2", via_rule="dns", queue=3, mark=7, changed={"dscp": 46, "ttl": -55})
    assert report.ok
    assert report.verdict.to == ("p2",)
    assert report.to_dict()["ok"] is True
    assert assert_dropped(ACL, SSH, by="no ssh").verdict.rule == "no ssh"
    assert_dropped(Mute(ACL), SSH)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"into": "p1"}, "went to p2, wanted to p1"),
        ({"into": "p2", "via_rule": "ssh"}, "rule 'dns', wanted 'ssh'"),
        ({"into": "p2", "queue": 4}, "queue 3, wanted 4"),
        ({"into": "p2", "mark": 8}, "mark 7, wanted 8"),
        ({"into": "p2", "changed": {}}, "dscp 46, wanted 0"),
        ({"into": "p2", "changed": {"dscp": 46, "ttl": -1}}, "ttl 9, wanted 63"),
    ],
)
def test_a_packet_out_of_its_place_fails_with_the_difference(options, words):
    text = failure(assert_classified, ACL, ASK, **options)
    assert words in text
    assert repr(ASK) in text


def test_the_wrong_rule_is_no_pass_and_the_right_one_is_explained():
    model = Told()
    model.install(ACL)
    text = failure(assert_classified, model, SSH, into="p1", via_rule="ssh6")
    assert "cause      rule 'ssh6' matches it too, but 'no ssh' comes before it" in text
    other = Packet(proto="tcp", dport=23, src="::1")
    text = failure(assert_dropped, model, other, by="no ssh")
    assert "cause      rule 'no ssh' does not match it: dport is 23, not 22" in text


def test_a_packet_that_went_somewhere_was_not_dropped():
    assert "went to p2, wanted nowhere" in failure(assert_dropped, ACL, ASK)


@pytest.mark.parametrize("options", [{"via_rule": "dns"}, {"queue": 1}, {"mark": 1}, {"changed": {}}])
def test_what_a_device_cannot_tell_is_no_pass(options):
    with pytest.raises(BadInput, match="the mute device does not tell the"):
        assert_classified(Mute(ACL), ASK, into="p2", **options)


def test_an_unknown_field_is_refused():
    with pytest.raises(BadInput, match="a packet has no field 'tos'; there are dport"):
        assert_classified(ACL, ASK, into="p2", changed={"tos": 0})


def test_a_device_that_agrees_passes():
    report = assert_agrees(Mute(ACL), ACL, examples=300)
    assert report.ok
    assert report.packets >= 300
    assert "agree about" in report.explain()


def test_two_devices_are_compared_in_what_both_tell():
    one = Told()
    one.install(ACL)
    assert_agrees(one, Mute(ACL), packets=st.just(ASK), examples=1)
    with pytest.raises(BadInput, match="has no rules to draw packets from"):
        assert_agrees(one, Mute(ACL))


def test_the_smallest_packet_is_shown():
    wrong = Classifier([replace(DNS, dport=(53, 54)), *ACL.rules[1:]])
    text = failure(assert_agrees, wrong, ACL, examples=500)
    assert "Packet(proto='udp', src='198.18.0.1', dst='198.18.0.2', sport=0, dport=54)" in text
    assert "cause      rule 'dns' does not match it: dport is 54, not 53" in text


def test_a_device_that_agrees_only_sometimes_fails_too():
    class Moody(Told):
        asked = 0

        def classify_all(self, packets):
            self.asked += 1
            return [Verdict(("a",), "x")] * len(packets) if self.asked == 5 else super().classify_all(packets)

    moody = Moody()
    moody.install(ACL)
    assert "by 'x'" in failure(assert_agrees, moody, ACL)


def test_a_seed_gives_the_same_search():
    def search():
        device = Told(lambda c: Classifier(c.rules, default="a", ports=c.ports))
        return failure(assert_installs, device, seed=5)

    assert search() == search()


def test_a_right_device_installs_whatever_it_is_told():
    report = assert_installs(Told(), examples=50)
    assert report.policies >= 50


class Choosy(Told):
    """Takes no rules that name one of these fields."""

    def __init__(self, *names):
        super().__init__()
        self.names = names

    def install(self, classifier):
        if any(getattr(rule, name) is not None for rule in classifier.rules for name in self.names):
            raise Unavailable("choosy", "not that")
        super().install(classifier)


def test_rules_that_a_device_cannot_express_are_counted_and_never_a_pass():
    report = assert_installs(Choosy("vlan"), examples=60, seed=1)
    assert report.policies
    assert report.refused
    assert f"it cannot express {report.refused} others" in report.explain()
    with pytest.raises(Unavailable, match="not that"):
        assert_installs(Choosy("name"), examples=10)


@pytest.mark.parametrize("number", [0, -1, 1.5])
def test_nothing_is_no_proof(number):
    with pytest.raises(BadInput, match="from 1 up is wanted"):
        assert_agrees(ACL, ACL, examples=number)
    with pytest.raises(BadInput, match="from 1 up is wanted"):
        assert_installs(Told(), examples=number)


def test_what_a_device_cannot_express_is_said_and_not_approximated():
    with pytest.raises(Unavailable, match="it cannot do dport, queue, mark, set dscp, set ttl of rule 'dns'"):
        demand_matches("x", ACL, ("proto",), ())


# -- mutations: what an installer may get wrong, each to be found within 500 packets --------------------------------


def bent(change, **options):
    """A classifier whose boxes are not what its rules say."""

    def bend(classifier):
        made = Classifier(classifier.rules, default=classifier.default, ports=classifier.ports)
        made.boxes = tuple(tuple(change(dict(box)) for box in boxes) for boxes in classifier.boxes)
        return made

    return bend


def moved(name, low, high):
    def change(box):
        if name in box:
            box[name] = (max(0, box[name][0] + low), min(65535, box[name][1] + high))
            box[name] = min(box[name]), max(box[name])
        return box

    return bent(change)


def without(*names):
    return bent(lambda box: {name: limits for name, limits in box.items() if name not in names})


def swapped(one, other):
    return bent(lambda box: {{one: other, other: one}.get(name, name): limits for name, limits in box.items()})


def shorter(box):
    for name in ("ip4_src", "ip4_dst"):
        if name in box and box[name] != (0, 2**32 - 1):
            size = 2 * (box[name][1] - box[name][0] + 1)
            low = box[name][0] // size * size
            box[name] = low, low + size - 1
    return box


def first_family(classifier):
    made = Classifier(classifier.rules, default=classifier.default, ports=classifier.ports)
    made.boxes = tuple(boxes[:1] for boxes in classifier.boxes)
    return made


def reversed_order(classifier):
    return Classifier(reversed(classifier.rules), default=classifier.default, ports=classifier.ports)


MUTATIONS = {
    "the end of a port range is one too high": moved("dport", 0, 1),
    "the end of a port range is left out": moved("dport", 0, -1),
    "the beginning of a port range is one too high": moved("sport", 1, 0),
    "source and destination port are swapped": swapped("sport", "dport"),
    "source and destination prefix are swapped": swapped("ip4_src", "ip4_dst"),
    "prefixes are one bit too short": bent(shorter),
    "priorities are lost": reversed_order,
    "the default is missing": lambda c: Classifier(c.rules, default="drop", ports=c.ports),
    "the last rule is lost": lambda c: Classifier(c.rules[:-1], default=c.default, ports=c.ports),
    "the VLAN is not looked at": without("vlan", "pcp"),
    "flags that must be clear are not looked at": bent(
        lambda box: {name: limits for name, limits in box.items() if limits != (0, 0) or name in ("in_port", "vlan")}
    ),
    "rules for both families hold for IPv4 only": first_family,
    "the port of arrival is not looked at": without("in_port"),
    "the protocol is not looked at": without("proto"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_found_within_500_packets_and_made_small(name):
    few = policies(outputs=("a", "b"), ports=("p1", "p2"), max_rules=4)
    with pytest.raises(CheckFailed) as error:
        assert_installs(Told(MUTATIONS[name]), policies_from=few, examples=300, seed=1)
    text = str(error.value)
    found = next(line for line in text.splitlines() if "searched" in line)
    assert int(found.split("found within ")[1].split(" packet")[0]) <= 500, found
    assert text.count("  packet ") == 1
    assert text.count("Rule(") == (2 if name == "priorities are lost" else 1), text
