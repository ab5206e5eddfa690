"""What a failed check of packet processing says; the devices are models that are wrong in one way."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

import pytest_infra
from pytest_infra.checks.agree import assert_agrees, assert_installs
from pytest_infra.checks.balance import NOBODY, Delivery, assert_flow_affinity, assert_flow_order, assert_spread
from pytest_infra.checks.classify import assert_classified, assert_dropped
from pytest_infra.checks.drop_curve import assert_drop_curve
from pytest_infra.checks.meter import assert_metered
from pytest_infra.checks.police import Passage, assert_policed
from pytest_infra.checks.schedule import Departure, assert_link_shares, assert_priority, assert_shaped
from pytest_infra.checks.survive import Leak, SurviveReport
from pytest_infra.core.errors import CheckFailed
from pytest_infra.core.report import Report
from pytest_infra.packet.auditing import audit
from pytest_infra.packet.classifier import Classifier
from pytest_infra.packet.dropper import Red
from pytest_infra.packet.meter import Arrival, Colour, OvsMeter
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.rule import Rule
from pytest_infra.packet.strategies import VOCABULARY, policies

DNS = Rule("dns", proto="udp", dport=53, to="p2", set={"dscp": 46}, queue=3)
WIDE = Rule("udp", proto="udp", to="p1")
MS = 10**6


class Device:
    """Holds rules as it is told, or with the highest port of each range one too high."""

    name = "the switch"
    shows = ("rule", "packet", "queue", "mark")
    matches = VOCABULARY
    outputs = ("a", "b")
    ports = ("p1", "p2")

    def __init__(self, *rules: Rule) -> None:
        self.installed = self.held = Classifier(rules)

    def install(self, classifier: Classifier) -> None:
        self.installed, self.held = (
            classifier,
            Classifier(classifier.rules, default=classifier.default, ports=classifier.ports),
        )
        self.held.boxes = tuple(tuple(dict(box) for box in boxes) for boxes in classifier.boxes)
        for boxes in self.held.boxes:
            for box in boxes:
                if "dport" in box:
                    box["dport"] = box["dport"][0], box["dport"][1] + 1  # type: ignore[index]

    def classify_all(self, packets):  # type: ignore[no-untyped-def]
        return self.held.classify_all(packets)


class Meter:
    name = "the meter"

    def colours(self, profile, trace):  # type: ignore[no-untyped-def]
        return (Colour.GREEN,) * len(list(trace))


ASK = Packet(proto="udp", dport=53)
FLOWS = [Delivery(f"f{flow}", number, f"w{flow % 4}") for number in range(2) for flow in range(80)]
EVEN = [Departure(number * MS, 1000, "gold" if number % 2 else "silver") for number in range(400)]

FAILURES = {
    "another port": lambda: assert_classified(Device(DNS), ASK, into="p1"),
    "another rule": lambda: assert_classified(Device(WIDE, DNS), ASK, into="p1", via_rule="dns"),
    "a rule that does not match": lambda: assert_classified(Device(DNS, WIDE), ASK, into="p1", via_rule="udp"),
    "another queue and field": lambda: assert_classified(Device(DNS), ASK, into="p2", queue=1, changed={"ttl": -1}),
    "not dropped": lambda: assert_dropped(Device(DNS), ASK, by="no udp"),
    "disagreement about a packet": lambda: assert_agrees(Device(WIDE), Classifier([DNS, WIDE])),
    "disagreement about rules": lambda: assert_installs(
        Device(), policies_from=policies(outputs=("a",), matches=("proto", "dport")), seed=1
    ),
    "shadowed rules": lambda: audit(Classifier([WIDE, DNS])).demand(),
    "a meter": lambda: assert_metered(Meter(), OvsMeter(10, 2), [Arrival(0, 60)] * 4),
    "a policer that lets too much through": lambda: assert_policed(
        [Passage(number * MS, 500, True) for number in range(100)], rate="100 kB/s", burst=3000
    ),
    "a policer that drops too much": lambda: assert_policed(
        [Passage(number * MS, 500, number == 0) for number in range(100)], rate="100 kB/s", burst=3000
    ),
    "a drop curve": lambda: assert_drop_curve({5: (500, 100), 20: (500, 125)}, Red(10, 30, 0.5)),
    "a torn flow": lambda: assert_flow_affinity([*FLOWS, Delivery("f1", 2, "w0")]),
    "an overtaken packet": lambda: assert_flow_order([FLOWS[80], FLOWS[0], *FLOWS[1:80]]),
    "an idle worker": lambda: assert_spread(FLOWS, ["w0", "w1", "w2", "w3", "w4"]),
    "an uneven spread": lambda: assert_spread(FLOWS, {"w0": 9, "w1": 1, "w2": 1, "w3": 1}),
    "flows that are lost": lambda: assert_spread(
        [*FLOWS, Delivery("f80", 0, NOBODY), Delivery("f81", 0, NOBODY)], ["w0", "w1", "w2", "w3"]
    ),
    "shares": lambda: assert_link_shares(EVEN, {"gold": 3, "silver": 1}),
    "priority": lambda: assert_priority(EVEN[:5], ["gold", "silver"]),
    "a shaper": lambda: assert_shaped(EVEN, rate="4 Mbit/s", burst=3000),
    "a malformed frame that is forwarded": lambda: SurviveReport(
        "the switch", 60, (Leak("IP version 5", "p2", "0200"),), "", ""
    ).demand(),
    "a device that died": lambda: SurviveReport("the switch", 3, (), "IP version 5", "0200").demand(),
}


@pytest.mark.parametrize("name", FAILURES)
def test_the_text(name: str, snapshot: SnapshotAssertion) -> None:
    with pytest.raises(CheckFailed) as error:
        FAILURES[name]()
    text = re.sub(r"within \d+ packets and \d+ policies", "within <count>", str(error.value))
    assert text == snapshot


ELSEWHERE = {"track", "forwarding", "compare"}
"""Whose texts are in the files of devices, of DPDK and of measurements."""


def test_each_kind_of_failure_has_a_text() -> None:
    """The kinds are the reports of the modules whose checks docs/packets.md names, and the audit's."""
    page = (Path(__file__).parents[2] / "docs" / "packets.md").read_text(encoding="utf-8")
    checks = {getattr(pytest_infra, name) for name in re.findall(r"\bassert_\w+", page)}
    modules = [import_module(check.__module__) for check in (*checks, audit)]
    found = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    kinds = {value.kind for value in found if issubclass(value, Report) and value is not Report}
    with_text = set()
    for fail in FAILURES.values():
        with pytest.raises(CheckFailed) as error:
            fail()
        assert error.value.report is not None
        with_text.add(error.value.report["kind"])
    assert len(kinds) >= 14
    assert kinds - ELSEWHERE - {Report.kind} == with_text
