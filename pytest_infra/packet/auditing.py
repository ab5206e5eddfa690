"""`audit`: which rules can never decide, which overlap; exact, by arithmetic on boxes and not by sampling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..core.report import Report, explain
from .box import Box, intersection, witness
from .classifier import Classifier
from .packet import Packet
from .rule import Rule

__all__ = ["AuditReport", "Overlap", "Shadow", "audit", "packet_in", "within_ports"]


@dataclass(frozen=True)
class Shadow:
    """A rule that can never decide, because the rules before it take all its packets."""

    rule: str
    by: tuple[str, ...]
    """The rules that decide about its packets instead."""
    same: bool
    """Whether they all do what it would have done: then it is redundant, else its packets go elsewhere."""

    def __str__(self) -> str:
        who = " and ".join(map(repr, self.by))
        what = "redundant: the same is done" if self.same else "never decides: its packets are taken"
        return f"{self.rule!r} is {what} by {who}" if self.same else f"{self.rule!r} {what} by {who}"


@dataclass(frozen=True)
class Overlap:
    """Two rules that match a common packet and do different things to it: the order between them matters."""

    first: str
    second: str
    packet: Packet
    """A packet that both match."""
    same_priority: bool
    """Whether they have the same priority: OpenFlow leaves it open then which one decides (OpenFlow 1.3, 6.4)."""

    def __str__(self) -> str:
        tail = ", at the same priority" if self.same_priority else ""
        return f"{self.first!r} and {self.second!r} both match {self.packet}{tail}"


@dataclass(frozen=True)
class AuditReport(Report):
    """Rules that can never decide, and rules whose order matters."""

    kind: ClassVar[str] = "audit"

    shadows: tuple[Shadow, ...]
    overlaps: tuple[Overlap, ...]
    witnesses: Mapping[str, Packet]
    """For every other rule a packet that it decides about; behind one with a rate, when that is used up."""

    @property
    def ok(self) -> bool:
        """Whether every rule can decide about some packet."""
        return not self.shadows

    def explain(self) -> str:
        """The rules that can never decide, and the overlaps."""
        total = len(self.shadows) + len(self.witnesses)
        verdict = (
            f"{len(self.shadows)} of {total} rules can never decide"
            if self.shadows
            else f"all {total} rules can decide"
        )
        rows = [("measured", "\n".join(map(str, self.shadows)))]
        rows += [("wanted", "a packet for every rule that it decides about")] if self.shadows else []
        rows += [("overlaps", "\n".join(map(str, self.overlaps)))]
        rows += [("next", "move the rule up, or remove it: a test of it proves nothing")] if self.shadows else []
        return explain(verdict, rows)


def audit(classifier: Classifier) -> AuditReport:
    """Look for shadowed, unreachable and overlapping rules.

    A rule is listed only if no packet exists for which it decides; for every other rule the report has such a packet.
    """
    shadows: list[Shadow] = []
    witnesses: dict[str, Packet] = {}
    for place, rule in enumerate(classifier.rules):
        if (packet := _decided_by(classifier, place)) is not None:
            witnesses[rule.name] = packet
        else:
            shadows.append(_shadow(classifier, place))
    return AuditReport(tuple(shadows), tuple(_overlaps(classifier)), witnesses)


def packet_in(classifier: Classifier, box: Box) -> Packet:
    """The first packet of a box."""
    values = {name: low for name, (low, _) in box.items()}
    number = values.pop("in_port", 0 if not classifier.closed else 1)
    return Packet.from_values(values, classifier.ports[number - 1] if number else "")


def within_ports(classifier: Classifier, box: Box) -> Box | None:
    """The part of a box whose packets come in by a port that there is; None where there is none."""
    ports = (1, len(classifier.ports)) if classifier.closed else (0, len(classifier.ports))
    return intersection({"in_port": ports}, box)


def _decided_by(classifier: Classifier, place: int, within: Iterable[Box] = ({},)) -> Packet | None:
    """A packet of one of these boxes that a rule decides about; None where the rules before it take them all."""
    taken = [
        box for before in range(place) if not _leaves_some(classifier.rules[before]) for box in classifier.boxes[before]
    ]
    for mine in classifier.boxes[place]:
        for box in within:
            common = intersection(mine, box)
            possible = None if common is None else within_ports(classifier, common)
            if possible is not None and (left := witness(possible, taken)) is not None:
                return packet_in(classifier, left)
    return None


def _leaves_some(rule: Rule) -> bool:
    """Whether a rule leaves what is beyond its rate to those behind it."""
    return rule.police is not None and rule.police.beyond == "next"


def _shadow(classifier: Classifier, place: int) -> Shadow:
    rule, boxes = classifier.rules[place], classifier.boxes[place]
    earlier = [before for before in range(place) if not _leaves_some(classifier.rules[before])]
    guilty = [classifier.rules[before] for before in earlier if _decided_by(classifier, before, boxes) is not None]
    return Shadow(rule.name, tuple(other.name for other in guilty), all(_same(rule, other) for other in guilty))


def _same(one: Rule, other: Rule) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("to", "drop", "queue", "mark", "set", "police"))


def _overlaps(classifier: Classifier) -> Iterator[Overlap]:
    pairs = list(zip(classifier.rules, classifier.boxes, strict=True))
    for place, (first, mine) in enumerate(pairs):
        for second, theirs in pairs[place + 1 :]:
            if _same(first, second):
                continue
            common = next((both for a in mine for b in theirs if (both := intersection(a, b)) is not None), None)
            if common is not None:
                packet = packet_in(classifier, within_ports(classifier, common) or common)
                yield Overlap(first.name, second.name, packet, first.priority == second.priority)
