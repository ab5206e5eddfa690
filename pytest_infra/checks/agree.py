"""`assert_agrees`, `assert_installs`: a device does what a model says, on packets at the edges of the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import BadInput, Unavailable
from ..core.report import Report, explain
from ..packet.basics import basics
from ..packet.classifier import DEFAULT, Classifier, Verdict
from ..packet.compare import differences, why_not
from ..packet.device import Device, Judge
from ..packet.edge_packets import edges
from ..packet.packet import Packet
from ..packet.strategies import near, policies
from .second_look import SecondLook, second_look

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["AgreeReport", "Disagreement", "assert_agrees", "assert_installs"]


_BATCH = 20  # packets that are given to a device at once


@dataclass(frozen=True)
class Disagreement:
    """A packet about which two judges say different things, and the rules that were installed."""

    packet: Packet
    got: Verdict
    wanted: Verdict
    differences: tuple[str, ...]
    policy: Classifier | None

    def cause(self) -> str:
        """Why the rule that decided in the device should not have, where the rules are known."""
        if self.policy is None or self.got.rule is None or self.got.rule == self.wanted.rule:
            return ""
        if self.got.rule == DEFAULT:
            return f"the device took rule {self.wanted.rule!r} for one that does not match"
        return why_not(self.policy, self.got.rule, self.packet)


@dataclass(frozen=True)
class AgreeReport(Report):
    """How many packets two judges were asked about, and the smallest one about which they differ."""

    kind: ClassVar[str] = "agree"

    device: str
    model: str
    packets: int
    """How many packets they were asked about; with a disagreement, until it was found."""
    policies: int
    """How many sets of rules were installed."""
    disagreement: Disagreement | None
    refused: int = 0
    """How many sets of rules the device could not express."""
    look: SecondLook | None = None
    """What happened when the packet was sent again; only with a disagreement."""

    @property
    def ok(self) -> bool:
        """Whether they said the same each time."""
        return self.disagreement is None

    def explain(self) -> str:
        """The smallest packet (and rules) about which they differ."""
        asked = f"{self.packets} packet{'s' if self.packets != 1 else ''}" + (
            f" and {self.policies} policies" if self.policies else ""
        )
        if self.disagreement is None:
            refused = f"; it cannot express {self.refused} others" if self.refused else ""
            return f"{self.device} and {self.model} agree about {asked}{refused}"
        found = self.disagreement
        rows = [
            ("packet", repr(found.packet)),
            (
                "rules",
                ""
                if found.policy is None
                else "\n".join([*map(repr, found.policy.rules), f"default={found.policy.default!r}"]),
            ),
            ("measured", str(found.got)),
            ("wanted", str(found.wanted)),
            ("differs", "\n".join(found.differences)),
            ("cause", found.cause()),
        ]
        verdict = f"{self.device} and {self.model} disagree: {found.differences[0]}"
        rows.append(("searched", f"found within {asked}"))
        return explain(verdict, rows + (self.look.rows() if self.look else []))


class _Found(Exception):
    def __init__(self, disagreement: Disagreement) -> None:
        super().__init__("disagreement")
        self.disagreement = disagreement


class _Search:
    """Asks two judges about packets until they differ, and lets hypothesis make that smaller."""

    def __init__(self, device: Judge, model: Judge | None) -> None:
        self.device, self.model = device, model
        self.packets = self.policies = self.refused = 0
        self.refusal: Unavailable | None = None
        self.first: Disagreement | None = None

    def ask(self, packets: Sequence[Packet], policy: Classifier | None) -> None:
        """Raise `_Found` at the first packet about which they differ."""
        model = self.model or policy
        assert model is not None
        shows = set(self.device.shows) & set(model.shows)
        verdicts = zip(packets, self.device.classify_all(packets), model.classify_all(packets), strict=True)
        for packet, got, wanted in verdicts:
            self.packets += self.first is None
            if found := differences(got, wanted, shows):
                disagreement = Disagreement(packet, got, wanted, found, policy)
                self.first = self.first or disagreement
                raise _Found(disagreement)

    def install(self, device: Device, policy: Classifier) -> None:
        """Install rules; those that the device cannot express are counted, and others are drawn."""
        from hypothesis import reject

        try:
            device.install(policy)
        except Unavailable as error:
            self.refused += self.first is None
            self.refusal = error
            reject()
        self.policies += self.first is None

    def try_all(self, packets: Sequence[Packet], policy: Classifier, batch: int) -> Disagreement | None:
        """The first of these packets about which they differ, or None."""
        try:
            for place in range(0, len(packets), batch):
                self.ask(packets[place : place + batch], policy)
        except _Found as found:
            return found.disagreement
        return None

    def try_basics(self, device: Device) -> Disagreement | None:
        """The first disagreement about the plainest policies; those that the device cannot express are counted."""
        for policy in basics(outputs=device.outputs, ports=device.ports, matches=device.matches):
            try:
                device.install(policy)
            except Unavailable as error:
                self.refused, self.refusal = self.refused + 1, error
                continue
            self.policies += 1
            if (found := self.try_all(edges(policy), policy, _BATCH)) is not None:
                return found
        return None

    def try_random(
        self, device: Device, drawn: SearchStrategy[Classifier], examples: int, packets: int, number: int | None
    ) -> Disagreement | None:
        """The smallest disagreement about random policies."""
        from hypothesis import strategies as st

        def body(data: Any) -> None:
            policy = data.draw(drawn)
            self.install(device, policy)
            self.ask(edges(policy), policy)
            self.ask(data.draw(st.lists(near(policy), max_size=packets)), policy)

        return self.run(st.data(), body, examples, number)

    def run(
        self, strategy: SearchStrategy[Any], body: Callable[[Any], None], examples: int, number: int | None
    ) -> Disagreement | None:
        """Let hypothesis draw, from the seed `number` where there is one; the smallest disagreement, or None."""
        from hypothesis import HealthCheck, Phase, given, seed, settings
        from hypothesis.errors import Flaky, Unsatisfiable

        options: dict[str, Any] = {"deadline": None, "database": None, "print_blob": False}
        options |= {"phases": (Phase.generate, Phase.shrink)}  # explaining would trace every line, slowly
        options |= {"suppress_health_check": list(HealthCheck), "report_multiple_bugs": False}
        try:
            test = settings(max_examples=examples, **options)(given(strategy)(body))
            (test if number is None else seed(number)(test))()
        except _Found as found:
            return found.disagreement
        except Unsatisfiable:
            if self.refusal is None:
                raise
            raise self.refusal from None  # it takes no rules at all
        except Flaky:  # they agree about the same packet at another time: the first one is what there is
            return self.first
        return None


def _check_count(name: str, number: int) -> None:
    if not isinstance(number, int) or number < 1:
        raise BadInput(f"{name} is {number!r}; a whole number from 1 up is wanted")


def assert_agrees(
    device: Judge,
    model: Judge,
    *,
    packets: SearchStrategy[Packet] | None = None,
    examples: int = 200,
    batch: int = _BATCH,
    seed: int | None = None,
) -> AgreeReport:
    """Check that a device says the same as a model, or as another device, about packets that hypothesis draws.

    Args:
        device: what is tested.
        model: what it is compared with: a `Classifier`, or a device.
        packets: the packets; by default all edges of the model's rules, and random ones near them.
        examples: how many packets at least.
        batch: how many are given to the device at once at most.
        seed: draws the same packets each time; without it they differ, unless hypothesis is told otherwise.

    Raises:
        CheckFailed: they differ; the text has the smallest packet that shows it.
        BadInput: no packets are given, and the model has no rules to draw them from.
        Unavailable: hypothesis is not installed.
    """
    __tracebackhide__ = True
    _check_count("examples", examples)
    _check_count("batch", batch)
    policy = model if isinstance(model, Classifier) else getattr(model, "installed", None)
    if packets is None and policy is None:
        raise BadInput(f"{model.name} has no rules to draw packets from; give packets=, such as near(classifier)")
    drawn = near(policy) if packets is None else packets  # type: ignore[arg-type]
    from hypothesis import strategies as st

    search = _Search(device, model)
    found: Disagreement | None = None
    if packets is None and policy is not None:
        found = search.try_all(edges(policy), policy, batch)
    while found is None and search.packets < examples:
        strategy = st.lists(drawn, min_size=1, max_size=batch)
        count = -(-(examples - search.packets) // batch)
        found = search.run(strategy, lambda some: search.ask(some, policy), count, seed)
        seed = None if seed is None else seed + 1
    return _judged(device, AgreeReport(device.name, model.name, search.packets, 0, found))


def assert_installs(
    device: Device,
    *,
    policies_from: SearchStrategy[Classifier] | None = None,
    examples: int = 100,
    packets: int = 10,
    seed: int | None = None,
) -> AgreeReport:
    """Check that a device does what it is told: random rules are installed, and packets at their edges are asked about.

    The plainest rules come first, one for each kind of match, then random ones. Of every rule all edges are tried
    (`packet.edge_packets`), and some random packets besides.

    Args:
        device: what is tested; its rules are replaced.
        policies_from: the rules; by default of the matches, outputs and ports that the device has.
        examples: how many sets of rules.
        packets: how many random packets for each at most.
        seed: draws the same rules and packets each time.

    Raises:
        CheckFailed: it differs from the model; the text has the fewest rules and the smallest packet that show it.
        Unavailable: hypothesis is not installed, or the device could express none of the rules.
    """
    __tracebackhide__ = True
    _check_count("examples", examples)
    _check_count("packets", packets)
    drawn = (
        policies(outputs=device.outputs, ports=device.ports, matches=device.matches)
        if policies_from is None
        else policies_from
    )
    search = _Search(device, None)
    found = search.try_basics(device) if policies_from is None else None
    if found is None:
        found = search.try_random(device, drawn, examples, packets, seed)
    if found is not None and found.policy is not None:
        device.install(found.policy)  # shrinking has tried others since
    report = AgreeReport(device.name, Classifier.name, search.packets, search.policies, found, search.refused)
    return _judged(device, report)


def _judged(device: Judge, report: AgreeReport) -> AgreeReport:
    __tracebackhide__ = True
    if (found := report.disagreement) is not None:
        look = second_look(device, found.packet, found.got)
        report = replace(report, look=look)
        report.demand(look.artifacts())
    return report
