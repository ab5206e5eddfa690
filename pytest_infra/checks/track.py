"""`assert_tracks`: a device with connection tracking does what the model says about packets that follow each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..core.errors import BadInput
from ..core.report import Report, explain
from ..packet.classifier import Classifier, Verdict
from ..packet.compare import differences
from ..packet.device import Device
from ..packet.packet import Packet
from ..packet.tracking import Tracked
from .second_look import SecondLook, second_look

__all__ = ["Step", "TrackReport", "assert_tracks"]


@dataclass(frozen=True)
class Step:
    """A packet, and what became of it."""

    packet: Packet
    got: Verdict
    wanted: Verdict
    differences: tuple[str, ...]


@dataclass(frozen=True)
class TrackReport(Report):
    """What a device did to packets that follow each other, up to the first one about which the model says otherwise."""

    kind: ClassVar[str] = "track"

    device: str
    rules: tuple[str, ...]
    steps: tuple[Step, ...]
    look: SecondLook | None = None

    @property
    def ok(self) -> bool:
        """Whether it did what the model says each time."""
        return not any(step.differences for step in self.steps)

    def explain(self) -> str:
        """The packets so far, and what was different about the last one."""
        if self.ok:
            return f"{self.device} and the model agree about {len(self.steps)} packets that follow each other"
        last = self.steps[-1]
        lines = [f"{place}: {step.packet}: {step.got}" for place, step in enumerate(self.steps, 1)]
        rows = [
            ("packets", "\n".join(lines)),
            ("rules", "\n".join(self.rules)),
            ("wanted", f"{len(lines)}: {last.wanted}"),
            ("differs", "\n".join(last.differences)),
        ]
        verdict = f"{self.device} and the model disagree about packet {len(lines)}: {last.differences[0]}"
        return explain(verdict, rows + (self.look.rows() if self.look else []))


def assert_tracks(device: Device, policy: Classifier, packets: Sequence[Packet]) -> TrackReport:
    """Check what a device does to packets that follow each other, under rules that look at their connections.

    Args:
        device: the device, asked by packets; the policy is installed on it, and it forgets earlier connections.
        policy: the rules, some of which have a `ct_state`.
        packets: what is sent, one after the other.

    Raises:
        CheckFailed: it did something else than the model says.
        BadInput: no packets, or no rule that looks at connections, which would prove nothing.
        Unavailable: the device does not track connections, or cannot express the rules.
    """
    __tracebackhide__ = True
    if not packets or not policy.stateful:
        raise BadInput("packets, and a rule with a ct_state, are wanted; else nothing would be proven")
    wanted = Tracked(policy).classify_all(packets)  # first, as it says what it does not know
    device.install(policy)
    shows, steps, look = set(device.shows) & set(Tracked.shows), [], None
    for packet, verdict in zip(packets, wanted, strict=True):
        (got,) = device.classify_all([packet])
        steps.append(Step(packet, got, verdict, differences(got, verdict, shows)))
        if steps[-1].differences:
            look = second_look(device, packet, got)
            break
    report = TrackReport(device.name, tuple(map(repr, policy.rules)), tuple(steps), look)
    report.demand(look.artifacts() if look else ())
    return report
