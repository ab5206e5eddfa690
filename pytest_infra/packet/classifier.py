"""`Classifier`: an ordered set of rules with a default, and what it decides about a packet; a pure model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..core.errors import BadInput
from .box import Box, contains
from .packet import Packet
from .rule import Rule

__all__ = ["DEFAULT", "Classifier", "Verdict"]

DEFAULT = "default"
"""The name that stands for "no rule matched" in a verdict."""


@dataclass(frozen=True)
class Verdict:
    """What became of a packet, in a model or in a real device."""

    to: tuple[str, ...] = ()
    """The ports or classes that it went to; empty when it was dropped."""
    rule: str | None = None
    """The rule that decided, `DEFAULT` when none did; None where the device does not say."""
    packet: Packet | None = None
    """The packet as it left; None when it was dropped, or where the device does not say."""
    queue: int | None = None
    mark: int | None = None
    evidence: str = field(default="", compare=False)
    """How a real device came to it, for people."""

    @property
    def dropped(self) -> bool:
        """Whether it went nowhere."""
        return not self.to

    def __str__(self) -> str:
        where = f"to {', '.join(self.to)}" if self.to else "dropped"
        more = [f"{name} {value}" for name, value in (("queue", self.queue), ("mark", self.mark)) if value is not None]
        by = "" if self.rule is None else " by default" if self.rule == DEFAULT else f" by {self.rule!r}"
        return ", ".join([where, *more]) + by


class Classifier:
    """Rules in the order of their priority, then of their place; the first that matches decides.

    Args:
        rules: their names must differ.
        default: where a packet goes that no rule matches: a port or class, or ``"drop"``.
        ports: the device's ports, which packets come in by; by default those that the rules name, and others.

    Raises:
        BadInput: two rules of one name, or a rule that names a port which is not there.
    """

    name = "the model"
    shows = ("rule", "packet", "queue", "mark")
    """What of its verdicts, besides where a packet goes, can be compared with a device's."""

    def __init__(self, rules: Iterable[Rule], *, default: str = "drop", ports: Sequence[str] = ()) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: -rule.priority))
        self.default = default
        if twice := [name for name, count in Counter(rule.name for rule in self.rules).items() if count > 1]:
            raise BadInput(f"several rules are called {', '.join(map(repr, twice))}; each needs a name of its own")
        if any(rule.name == DEFAULT for rule in self.rules):
            raise BadInput(
                f"no rule may be called {DEFAULT!r}: the verdict of a packet that no rule matches has that name"
            )
        named = dict.fromkeys(rule.in_port for rule in self.rules if rule.in_port)
        self.closed = bool(ports)
        self.ports: tuple[str, ...] = tuple(dict.fromkeys(ports or named))
        self.boxes: tuple[tuple[Box, ...], ...] = tuple(rule.boxes(self.port_numbers) for rule in self.rules)

    def __repr__(self) -> str:
        rules = ", ".join(map(repr, self.rules))
        return f"Classifier([{rules}], default={self.default!r}" + (f", ports={self.ports})" if self.closed else ")")

    @cached_property
    def port_numbers(self) -> Mapping[str, int]:
        """The ports' numbers, from 1; 0 stands for one that is not named."""
        return {name: number for number, name in enumerate(self.ports, 1)}

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Where packets can go: each name once, in the order of the rules, the default's last."""
        named = [rule.to for rule in self.rules if rule.to] + ([self.default] if self.default != "drop" else [])
        return tuple(dict.fromkeys(named))

    def values(self, packet: Packet) -> dict[str, int]:
        """A packet's fields as numbers, its port among them.

        Raises:
            BadInput: it comes in by a port that the device lacks.
        """
        if self.closed and packet.in_port not in self.port_numbers:
            raise BadInput(f"{packet} comes in by {packet.in_port!r}; the ports are {', '.join(self.ports)}")
        return packet.values | {"in_port": self.port_numbers.get(packet.in_port, 0)}

    @property
    def stateful(self) -> bool:
        """Whether rules look at the state of connections."""
        return any(rule.ct_state is not None for rule in self.rules)

    def match(self, packet: Packet, *, ct_state: int = 0) -> Rule | None:
        """The rule that decides about a packet; None when none matches.

        Args:
            packet: the packet.
            ct_state: the state of its connection, as a place in `fields.CT_STATES`: by default, it is new.
        """
        values = self.values(packet) | {"ct_state": ct_state}
        for rule, boxes in zip(self.rules, self.boxes, strict=True):
            if any(contains(box, values) for box in boxes):
                return rule
        return None

    def classify_all(self, packets: Sequence[Packet]) -> list[Verdict]:
        """What becomes of each packet (see `classify`)."""
        return [self.classify(packet) for packet in packets]

    def classify(self, packet: Packet, *, ct_state: int = 0) -> Verdict:
        """What becomes of a packet, whose connection is new, or in another state (see `match`).

        Raises:
            BadInput: the rule sets a field that the packet lacks, or it comes in by an unknown port.
        """
        rule = self.match(packet, ct_state=ct_state)
        if rule is None:
            dropped = self.default == "drop"
            return Verdict(() if dropped else (self.default,), DEFAULT, None if dropped else packet)
        if rule.to is None:
            return Verdict((), rule.name)
        return Verdict((rule.to,), rule.name, rule.apply(packet), rule.queue, rule.mark)
