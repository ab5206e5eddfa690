"""`assert_classified`, `assert_dropped`: a packet goes where it should, and by the rule that was meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.report import Report, explain
from ..packet.classifier import Verdict
from ..packet.compare import packet_differences, why_not
from ..packet.device import Judge
from ..packet.packet import Packet
from .second_look import SecondLook, second_look

__all__ = ["ClassifyReport", "assert_classified", "assert_dropped"]


@dataclass(frozen=True)
class ClassifyReport(Report):
    """What a device did to a packet, and what was wanted."""

    kind: ClassVar[str] = "classify"

    device: str
    packet: Packet
    verdict: Verdict
    wanted: str
    differences: tuple[str, ...]
    """What was wrong; empty where nothing was."""
    cause: str = ""
    """Why the rule that was meant did not decide, where the device's rules are known."""
    look: SecondLook | None = None
    """What happened when the packet was sent again; only where something was wrong."""

    @property
    def ok(self) -> bool:
        """Whether the packet went where it should."""
        return not self.differences

    def explain(self) -> str:
        """Where the packet went and where it should have gone, field by field, with what reproduces it."""
        where = f"to {' and '.join(self.verdict.to)}" if self.verdict.to else "nowhere"
        verdict = (
            f"{self.device} sent it {where}"
            if self.ok
            else f"{self.device} sent a packet the wrong way: {self.differences[0]}"
        )
        rows = [
            ("packet", repr(self.packet)),
            ("measured", str(self.verdict)),
            ("wanted", self.wanted),
            ("differs", "\n".join(self.differences)),
            ("cause", self.cause),
        ]
        return explain(verdict, rows + (self.look.rows() if self.look else []))


def assert_classified(
    device: Judge,
    packet: Packet,
    *,
    into: str,
    via_rule: str | None = None,
    queue: int | None = None,
    mark: int | None = None,
    changed: Mapping[str, int | str] | None = None,
) -> ClassifyReport:
    """Check that a packet goes to one port or class and to no other, by the rule that was meant.

    Args:
        device: what classifies: an installed device, or a model.
        packet: the packet.
        into: the port or class.
        via_rule: the rule that must have decided; a test that leaves it out can pass because of another rule.
        queue: the queue it must be in.
        mark: the mark it must have.
        changed: the header fields that must have changed, and their values; all others must be as they were. A
            negative number is a difference: ``{"ttl": -1}``. None for not looking at the headers.

    Raises:
        CheckFailed: something of that is not so; the text has the device's own account of it.
        BadInput: the device cannot tell what is asked for, or a field that a packet lacks.
    """
    __tracebackhide__ = True
    asked = {"rule": via_rule, "queue": queue, "mark": mark, "packet": changed}
    _demand(device, [name for name, value in asked.items() if value is not None])
    after = None if changed is None else _after(packet, changed)
    (verdict,) = device.classify_all([packet])
    found = _compare(verdict, (into,), asked)
    if after is not None and verdict.packet is not None:
        found += packet_differences(verdict.packet, after)
    words = [f"to {into}"] + ([f"by {via_rule!r}"] if via_rule else [])
    words += [f"{name} {value}" for name, value in (("queue", queue), ("mark", mark)) if value is not None]
    words += [] if changed is None else [f"with {dict(changed)}" if changed else "unchanged"]
    return _judged(device, packet, verdict, " ".join(words), found, via_rule)


def assert_dropped(device: Judge, packet: Packet, *, by: str | None = None) -> ClassifyReport:
    """Check that a packet goes nowhere, because of the rule that was meant.

    Args:
        device: what classifies.
        packet: the packet.
        by: the rule that must have dropped it, `classifier.DEFAULT` for none of them.

    Raises:
        CheckFailed: it went somewhere, or another rule dropped it.
        BadInput: the device cannot tell which rule it was.
    """
    __tracebackhide__ = True
    _demand(device, ["rule"] if by is not None else [])
    (verdict,) = device.classify_all([packet])
    found = _compare(verdict, (), {"rule": by})
    return _judged(device, packet, verdict, "dropped" + (f" by {by!r}" if by else ""), found, by)


def _demand(device: Judge, asked: list[str]) -> None:
    if lacking := [name for name in asked if name not in device.shows]:
        raise BadInput(
            f"{device.name} does not tell the {' and the '.join(lacking)} of a packet; "
            f"it tells {', '.join(('where it went', *device.shows))}"
        )


def _compare(verdict: Verdict, to: tuple[str, ...], asked: Mapping[str, Any]) -> list[str]:
    def where(ports: tuple[str, ...]) -> str:
        return f"to {' and '.join(ports)}" if ports else "nowhere"

    found = [f"went {where(verdict.to)}, wanted {where(to)}"] if verdict.to != to else []
    for name in ("rule", "queue", "mark"):
        if (wanted := asked.get(name)) is not None and (got := getattr(verdict, name)) != wanted:
            found.append(f"{name} {got!r}, wanted {wanted!r}")
    return found


def _judged(
    device: Judge, packet: Packet, verdict: Verdict, wanted: str, found: list[str], rule: str | None
) -> ClassifyReport:
    __tracebackhide__ = True
    installed = getattr(device, "installed", None)
    cause = why_not(installed, rule, packet) if found and rule is not None and installed is not None else ""
    look = second_look(device, packet, verdict) if found else None
    report = ClassifyReport(device.name, packet, verdict, wanted, tuple(found), cause, look)
    report.demand(look.artifacts() if look else ())
    return report


def _after(packet: Packet, changed: Mapping[str, int | str]) -> Packet:
    names = {item.name for item in fields(packet)} - {"in_port", "payload"}
    values: dict[str, Any] = {}
    for name, value in changed.items():
        if name not in names:
            raise BadInput(f"changed: a packet has no field {name!r}; there are {', '.join(sorted(names))}")
        old = getattr(packet, name)
        values[name] = old + value if isinstance(value, int) and value < 0 and isinstance(old, int) else value
    return replace(packet, **values)
