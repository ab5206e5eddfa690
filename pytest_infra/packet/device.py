"""`Device`: a real classifier that rules can be installed on, and that says what it did to packets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from typing import Protocol

from ..core.errors import Unavailable
from .classifier import Classifier, Verdict
from .packet import Packet
from .rule import Rule

__all__ = ["Device", "Judge", "demand_matches", "named_fields"]

_ACTIONS = ("queue", "mark", "police")


class Judge(Protocol):
    """Anything that says what becomes of packets."""

    name: str
    shows: tuple[str, ...]
    """What of its verdicts it knows, besides where a packet went: ``rule``, ``packet``, ``queue``, ``mark``."""

    def classify_all(self, packets: Sequence[Packet]) -> list[Verdict]:
        """What became of each packet."""


class Device(Judge, Protocol):
    """A classifier that takes rules."""

    matches: tuple[str, ...]
    """The matches of `Rule` that it can express exactly."""
    outputs: tuple[str, ...]
    """Where it can send packets."""
    ports: tuple[str, ...]
    """Where packets come in; empty where it does not know."""
    installed: Classifier | None
    """The rules that were installed last."""

    def install(self, classifier: Classifier) -> None:
        """Replace its rules by those of a classifier.

        Raises:
            Unavailable: it cannot express one of them exactly; nothing has been changed.
        """


def named_fields(rule: Rule) -> Iterator[str]:
    """The matches that a rule names."""
    other = {"name", "priority", "to", "drop", "set", *_ACTIONS}
    yield from (item.name for item in fields(rule) if item.name not in other and getattr(rule, item.name) is not None)


def demand_matches(
    device: str, classifier: Classifier, matches: Collection[str], actions: Collection[str], sets: Collection[str] = ()
) -> None:
    """Refuse a classifier that a device cannot express exactly.

    Args:
        device: the device's name.
        classifier: what is to be installed.
        matches: the matches that it has.
        actions: which of ``queue``, ``mark`` and ``police`` it has.
        sets: the fields that it can set.

    Raises:
        Unavailable: a rule needs something else; the text names the rule and what it needs.
    """
    for rule in classifier.rules:
        lacking = [name for name in named_fields(rule) if name not in matches]
        lacking += [name for name in _ACTIONS if getattr(rule, name) is not None and name not in actions]
        lacking += [f"set {name}" for name in rule.set if name not in sets]
        if lacking:
            raise Unavailable(device, f"it cannot do {', '.join(lacking)} of rule {rule.name!r}", "use another device")
