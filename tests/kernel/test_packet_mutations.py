"""An installer with a mistake is found within 500 packets, and the mistake is shown by one rule and one packet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from pytest_infra.checks.agree import assert_installs
from pytest_infra.core.errors import CheckFailed
from pytest_infra.packet.box import Box
from pytest_infra.packet.classifier import Classifier, Verdict
from pytest_infra.packet.fields import FIELDS
from pytest_infra.packet.install_ovs import OvsFlows
from pytest_infra.packet.packet import Packet
from pytest_infra.session import Infra

MOST_PACKETS = 500


@pytest.fixture(scope="module")
def ovs() -> Iterator[OvsFlows]:
    with Infra() as session, session.lab() as lab:
        switch = lab.ovs("sw1")
        for name in ("a", "b", "c"):
            lab.link(lab.host(name), switch, ip=[])
        lab.up()
        yield OvsFlows(switch)


def with_boxes(policy: Classifier, change: Callable[[dict[str, tuple[int, int]]], Box]) -> Classifier:
    """The policy, with every rule's matches changed."""
    changed = Classifier(policy.rules, default=policy.default, ports=policy.ports)
    changed.boxes = tuple(tuple(change(dict(box)) for box in boxes) for boxes in policy.boxes)
    return changed


def moved(name: str, low: int = 0, high: int = 0) -> Callable[[Classifier], Classifier]:
    """The ends of a field's range are off."""

    def change(box: dict[str, tuple[int, int]]) -> Box:
        if name in box:
            first, last = box[name][0] + low, box[name][1] + high
            if FIELDS[name][0] <= first <= last <= FIELDS[name][1]:
                box[name] = first, last
        return box

    return lambda policy: with_boxes(policy, change)


def forgotten(*names: str) -> Callable[[Classifier], Classifier]:
    """Fields are not looked at."""
    return lambda policy: with_boxes(policy, lambda box: {k: v for k, v in box.items() if k not in names})


def renamed(names: Mapping[str, str]) -> Callable[[Classifier], Classifier]:
    """Fields are taken for others."""
    return lambda policy: with_boxes(policy, lambda box: {names.get(k, k): v for k, v in box.items()})


def halved(box: dict[str, tuple[int, int]]) -> Box:
    """A prefix is one bit too long."""
    for name in ("ip4_src", "ip4_dst"):
        low, high = box.get(name, (0, 0))
        if high > low:
            box[name] = low, (low + high) // 2
    return box


def doubled(box: dict[str, tuple[int, int]]) -> Box:
    """A prefix is one bit too short."""
    for name in ("ip4_src", "ip4_dst"):
        if name in box and 0 < (size := box[name][1] - box[name][0] + 1) < 2**32:
            low = box[name][0] // (2 * size) * 2 * size
            box[name] = low, low + 2 * size - 1
    return box


def set_flags(box: dict[str, tuple[int, int]]) -> Box:
    """A flag that must be clear is not looked at."""
    return {name: ends for name, ends in box.items() if name not in ("syn", "ack") or ends != (0, 0)}


def without_default(policy: Classifier) -> Classifier:
    """What no rule matches is dropped."""
    changed = Classifier(policy.rules, default="drop", ports=policy.ports)
    changed.boxes = policy.boxes
    return changed


def without_priority(policy: Classifier) -> Classifier:
    """The first rule stands behind the default."""
    return Classifier(policy.rules[1:], default=policy.default, ports=policy.ports)


def without_drops(policy: Classifier) -> Classifier:
    """Rules that drop are left out."""
    return Classifier([rule for rule in policy.rules if rule.to], default=policy.default, ports=policy.ports)


MUTATIONS: Mapping[str, Callable[[Classifier], Classifier]] = {
    "the highest port is one too high": moved("dport", high=1),
    "the lowest port is one too high": moved("sport", low=1),
    "source and destination prefix are swapped": renamed({"ip4_src": "ip4_dst", "ip4_dst": "ip4_src"}),
    "source and destination port are swapped": renamed({"sport": "dport", "dport": "sport"}),
    "a prefix is one bit too long": lambda policy: with_boxes(policy, halved),
    "a prefix is one bit too short": lambda policy: with_boxes(policy, doubled),
    "the priority is lost": without_priority,
    "the default is missing": without_default,
    "rules that drop are left out": without_drops,
    "the port it comes in by is not looked at": forgotten("in_port"),
    "the protocol is not looked at": forgotten("proto", "sport", "dport", "icmp_type", "icmp_code", "syn", "ack"),
    "a flag that must be clear is not looked at": lambda policy: with_boxes(policy, set_flags),
}


class Mutant:
    """An installer that makes a mistake."""

    def __init__(self, device: OvsFlows, mutate: Callable[[Classifier], Classifier]) -> None:
        self.name, self.shows, self.matches = device.name, ("packet",), device.matches
        self.outputs, self.ports = device.outputs, device.ports
        self._device, self._mutate = device, mutate
        self.installed: Classifier | None = None

    def install(self, classifier: Classifier) -> None:
        self._device.install(self._mutate(classifier))
        self.installed = classifier

    def classify_all(self, packets: Sequence[Packet]) -> list[Verdict]:
        return self._device.classify_all(packets)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_found_and_made_small(ovs: OvsFlows, name: str) -> None:
    with pytest.raises(CheckFailed) as error:
        assert_installs(Mutant(ovs, MUTATIONS[name]), seed=1)  # type: ignore[arg-type]
    assert error.value.report is not None
    assert error.value.report["packets"] <= MOST_PACKETS  # type: ignore[operator]
    text = str(error.value)
    assert text.count("Rule(") == 1, text
    assert text.count("  packet ") == 1, text
