"""What two verdicts differ in, and why a rule did not decide: for the texts of failures."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields

from .box import Box, contains
from .classifier import DEFAULT, Classifier, Verdict
from .fields import CT_STATES, FIELDS, FLAGS
from .packet import Packet, mac_text

__all__ = ["differences", "packet_differences", "why_not"]

_WORDS = {"ct_state": CT_STATES, **dict.fromkeys(FLAGS, ("clear", "set"))}


def differences(got: Verdict, wanted: Verdict, shows: Collection[str]) -> tuple[str, ...]:
    """What is different between two verdicts, in words; nothing where they are the same.

    Args:
        got: the device's.
        wanted: the model's, or another device's.
        shows: what both know besides where the packet went.
    """
    found = []
    if got.to != wanted.to:
        found.append(f"went {_where(got)}, wanted {_where(wanted)}")
    if "rule" in shows and got.rule != wanted.rule:
        found.append(f"by {_who(got.rule)}, wanted {_who(wanted.rule)}")
    for name in ("queue", "mark"):
        if name in shows and getattr(got, name) != getattr(wanted, name):
            found.append(f"{name} {_value(getattr(got, name))}, wanted {_value(getattr(wanted, name))}")
    if "packet" in shows and got.packet is not None and wanted.packet is not None:
        found += packet_differences(got.packet, wanted.packet)
    return tuple(found)


def packet_differences(got: Packet, wanted: Packet) -> list[str]:
    """The header fields in which two packets differ; where they came in is none of them."""
    pairs = [(item.name, getattr(got, item.name), getattr(wanted, item.name)) for item in fields(got)]
    return [
        f"{name} {_value(a)}, wanted {_value(b)}"
        for name, a, b in pairs
        if a != b and name not in ("in_port", "payload")
    ]


def _where(verdict: Verdict) -> str:
    return f"to {' and '.join(verdict.to)}" if verdict.to else "nowhere (dropped)"


def _who(rule: str | None) -> str:
    return "no rule that is known" if rule is None else "the default" if rule == DEFAULT else repr(rule)


def _value(value: object) -> str:
    return "none" if value is None else str(value)


def why_not(classifier: Classifier, name: str, packet: Packet) -> str:
    """Why a rule does not decide about a packet, in words; empty where it does.

    Args:
        classifier: the rules.
        name: the rule's name.
        packet: the packet.
    """
    place = next((place for place, rule in enumerate(classifier.rules) if rule.name == name), None)
    if place is None:
        known = ", ".join(repr(rule.name) for rule in classifier.rules)
        return "" if name == DEFAULT else f"there is no rule {name!r}; there are {known or 'none'}"
    decided = classifier.match(packet)
    if decided is not None and decided.name == name:
        return ""
    values = classifier.values(packet)
    if any(contains(box, values) for box in classifier.boxes[place]):
        assert decided is not None
        return f"rule {name!r} matches it too, but {decided.name!r} comes before it"
    reasons = min((list(_misses(box, values, classifier)) for box in classifier.boxes[place]), key=len)
    return f"rule {name!r} does not match it: {'; '.join(reasons)}"


def _misses(box: Box, values: dict[str, int], classifier: Classifier) -> Iterator[str]:
    for name, (low, high) in box.items():
        value = values.get(name, 0)
        if not low <= value <= high:
            allowed = (
                _text(name, low, classifier)
                if low == high
                else f"{_text(name, low, classifier)} to {_text(name, high, classifier)}"
            )
            yield f"{name} is {_text(name, value, classifier)}, not {allowed}"


def _text(name: str, value: int, classifier: Classifier) -> str:
    from ipaddress import IPv4Address, IPv6Address

    if name == "in_port":
        return classifier.ports[value - 1] if value else "another one"
    if name in _WORDS:
        return _WORDS[name][value]
    if name == "vlan" and value < 0:
        return "none"
    if name.startswith("ip4"):
        return str(IPv4Address(value))
    if name.startswith("ip6"):
        return str(IPv6Address(value))
    assert name in FIELDS
    return mac_text(value) if name in ("eth_src", "eth_dst") else hex(value) if name == "eth_type" else str(value)
