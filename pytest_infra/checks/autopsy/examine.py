"""`examine`: walk the way of a packet and name the first thing that is wrong.

Where a rule of a firewall on the way was seen to drop the probe, that is it: the packet came there, so whatever else is
odd was no obstacle.

Otherwise each finder looks for one kind of cause. They are tried in the order of `HOP_FINDERS` at each hop, then in
that of `END_FINDERS` at the destination, then at each hop of the way back, and at the very last `LAST_FINDERS`. To
teach the autopsy a new cause, write a finder and put it into one of these lists.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from . import (
    find_addresses,
    find_dpdk,
    find_duplicates,
    find_filters,
    find_flows,
    find_forwarding,
    find_impairments,
    find_interfaces,
    find_losses,
    find_neighbours,
    find_openvswitch,
    find_routes,
    find_services,
    find_sizes,
    find_switching,
    find_translation,
    find_tunnels,
)
from .draw import draw
from .finding import Case, EndFinder, Finding, HopFinder
from .hop import Hop, walk

__all__ = ["END_FINDERS", "HOP_FINDERS", "LAST_FINDERS", "Autopsy", "examine"]

T = TypeVar("T")

HOP_FINDERS: Final = (
    find_interfaces.INTERFACE,
    find_interfaces.CARRIER,
    find_addresses.ADDRESS,
    find_routes.ROUTE,
    find_routes.GATEWAY,
    find_routes.LOOP,
    find_interfaces.SWITCH_PORTS,
    find_dpdk.PROCESS,
    find_switching.DAEMONS,
    find_switching.BLOCKED,
    find_openvswitch.TREE,
    find_openvswitch.BOND,
    find_switching.VLANS,
    find_interfaces.FAR_INTERFACE,
    find_addresses.FAR_ADDRESS,
    find_duplicates.DUPLICATE,
    find_flows.FLOWS,
    find_tunnels.TUNNEL,
    find_impairments.IMPASSABLE,
    find_neighbours.NEIGHBOUR,
    find_sizes.MTU,
    find_filters.RETURN_PATH_FILTER,
    find_forwarding.FORWARDING,
)
END_FINDERS: Final = (
    find_services.REFUSED_HERE,
    find_filters.RULES_ON_THE_WAY,
    find_addresses.DESTINATION_ADDRESS,
    find_duplicates.OWN_ADDRESS,
    find_filters.RULES,
    find_services.REJECTED_ON_THE_WAY,
    find_services.LISTENER,
    find_services.BACKLOG,
    find_services.ECHO_IGNORED,
    find_services.REJECTED,
)
LAST_FINDERS: Final = (
    find_flows.METERS,
    find_impairments.IMPAIRED,
    find_losses.UDP_SILENCE,
    find_dpdk.PROCESS_LOSSES,
    find_losses.LOSS,
    find_losses.INTERMITTENT,
)
_TIME_LIMIT_S = 10.0  # ten hops take 0.2 s; a machine at many times its load, or an emulated one, needs the rest


@dataclass(frozen=True)
class Autopsy:
    """What was found out about a failure without changing anything."""

    path: str = ""
    """The way of the packet as far as it is known, with a mark where it ends."""
    finding: Finding | None = None
    """The first cause on the way; None when everything that was looked at is as it should be."""
    ruled_out: tuple[str, ...] = ()
    """What was looked at and is fine."""
    not_seen: tuple[str, ...] = ()
    """What could not be looked at, and why."""
    reasons: tuple[str, ...] = ()
    """What the kernel itself said of the packets that it dropped while a second probe was sent."""
    faults: tuple[str, ...] = ()
    """The faults that the test itself has in effect in this lab."""

    def rows(self) -> list[tuple[str, str]]:
        """The rows for `core.report.explain`."""
        looked_at = "what could be looked at" if self.not_seen else "everything that was looked at"
        cause = self.finding.cause if self.finding else f"not found: {looked_at} is as it should be"
        return [
            ("path", self.path),
            ("cause", cause),
            ("kernel", ", ".join(self.reasons) and f"dropped it: {', '.join(self.reasons)} (skb:kfree_skb)"),
            ("faults", f"in effect, by the test: {'; '.join(self.faults)}" if self.faults else ""),
            ("ruled out", "\n".join(self.ruled_out)),
            ("not seen", "\n".join(self.not_seen)),
            (
                "next",
                self.finding.next
                if self.finding
                else "capture on the way: tcpdump -ni INTERFACE in the nodes of the path",
            ),
        ]


def examine(case: Case) -> Autopsy:
    """Look for the cause of a failure, reading kernel state only; never raise, but say what could not be seen."""
    examination = _Examination(case)
    finding = examination.run()
    path = examination.guarded("the path", draw, examination.hops, finding) or ""
    if examination.on_the_way_back:
        path = f"way back: {path}"
    not_seen = tuple(dict.fromkeys(examination.not_seen))
    reasons = tuple(dict.fromkeys(case.trace.reasons)) if case.trace is not None else ()
    return Autopsy(path, finding, tuple(examination.ruled_out()), not_seen, reasons, _in_effect(case.source))


def _in_effect(node: Any) -> tuple[str, ...]:
    return tuple(fault.what for fault in getattr(node, "noted_faults", ()) if fault.took_s is None)


class _Examination:
    """One run of the finders over one case."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._deadline = time.monotonic() + _TIME_LIMIT_S
        self._fine: dict[str, list[str]] = {}
        self._fine_back: dict[str, list[str]] = {}
        self.hops: list[Hop] = []
        self.on_the_way_back = False
        self.not_seen: list[str] = []
        self.suspected = False
        self._proven = False

    def run(self) -> Finding | None:
        """The first cause: on the way there, at the destination, or on the way back."""
        case = self._case
        proven = _answered_by_destination(case) or find_services.rejecting_node(case) is not None
        finders = (find_duplicates.DUPLICATE,) if proven else HOP_FINDERS
        there = Hop(case, case.source, case.destination, case.address, case.source_address)
        self._proven = find_filters.dropped_on_the_way(there)
        finding = self._way(there, finders, self._fine) or self._behind() or self._end(END_FINDERS) or self._way_back()
        if finding is not None and finding.kind == "filtered" and self._proven_of_the_answer():
            self._show_way_back()
        if finding is None and not self.not_seen and case.translated_for is None:
            finding = self._end(LAST_FINDERS)  # they suspect what is left over: they need all the others' answers
            self.suspected = True
        if (finding is None or self.suspected) and case.trace is not None:
            self.not_seen += case.trace.blind
            if finding is None and case.trace.status == "unproven" and case.trace.why:
                self.not_seen.append(f"where a second probe was lost: {case.trace.why}")
        if case.trace is not None and case.trace.no_reasons and case.answer.kind == "silence":
            self.not_seen.append(f"the kernel's reason for the drop: {case.trace.no_reasons}")
        return finding

    def _proven_of_the_answer(self) -> bool:
        """Whether it is the answer that a rule was seen to drop."""
        trace = self._case.trace
        return trace is not None and bool(trace.rules) and all(drop.what == "reply" for drop in trace.rules)

    def _show_way_back(self) -> None:
        """Draw the way of the answer, where that is known."""
        case = self._case
        if case.destination is not None and case.source_address is not None:
            first = Hop(case, case.destination, case.sender, case.source_address, case.address, back=True)
            self.hops = self.guarded("the way back", list, walk(first)) or self.hops
            self.on_the_way_back = bool(self.hops) and self.hops[0].back

    def _behind(self) -> Finding | None:
        """The first cause on the further way of a packet whose destination is translated."""
        case, hops = self._case, self.hops
        passed = [case.source, *(hop.far.node for hop in hops if hop.far is not None)]
        if (
            self._proven
            or (there := self.guarded("address translation", find_translation.behind, case, passed)) is None
        ):
            return None
        further = _Examination(there.case)
        finding = further.run()
        self.not_seen += further.not_seen
        self.hops = further.hops if further.on_the_way_back else [*hops, *further.hops]
        self.on_the_way_back = further.on_the_way_back
        for mine, theirs in ((self._fine, further._fine), (self._fine_back, further._fine_back)):
            for place, subjects in theirs.items():
                mine.setdefault(place, []).extend(subjects)
        return find_translation.explain_behind(there, case, finding)

    def _way_back(self) -> Finding | None:
        """The first cause on the way of the answer; one to a translated address goes by who translates it."""
        case, there = self._case, self.hops
        if case.answer.kind != "silence" or case.destination is None or case.source_address is None:
            return None
        translated = find_translation.translated_source(case)
        seen = translated or case.source_address
        owner = next((hop.node for hop in there if case.view(hop.node).owns(seen)), None)
        first = Hop(case, case.destination, owner if translated else case.sender, seen, case.address, back=True)
        finding = self._way(first, HOP_FINDERS, self._fine_back)
        if finding is not None:
            finding = find_translation.explain_return(case, finding, seen)
        elif translated and owner is not None:
            rest = replace(first, node=owner, target=case.source, address=case.source_address)
            finding = self._way(rest, HOP_FINDERS, self._fine_back)
        self.hops = self.hops if finding else there
        self.on_the_way_back = finding is not None
        return finding

    def ruled_out(self) -> list[str]:
        """What was looked at and fine; places at which the same was looked at share a line."""
        lines = _by_subjects(self._fine)
        if self.on_the_way_back:
            return lines + [f"on the way back: {line}" for line in _by_subjects(self._fine_back)]
        return [*lines, "the same on the way back"] if self._fine_back else lines

    def guarded(self, what: str, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call it; whatever goes wrong is noted: an autopsy must never hide the failure that it explains."""
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001
            self.not_seen.append(f"{what}: {type(error).__name__}: {error}")
            return None

    def _way(self, first: Hop, finders: Sequence[HopFinder], fine: dict[str, list[str]]) -> Finding | None:
        """Follow a packet from its first hop, and stop at the first cause."""
        self.hops = []
        hops = walk(first)
        while (hop := self.guarded(f"the way from {first.node.name}", next, hops, None)) is not None:
            self.hops.append(hop)
            for finder in finders:
                if time.monotonic() > self._deadline:
                    self.not_seen.append(f"anything beyond {hop.node.name}: {_TIME_LIMIT_S} s were over")
                    return None
                if (finding := self._look(finder, hop, partial(finder.places, hop), fine)) and not self._proven:
                    return finding
        return None

    def _end(self, finders: Sequence[EndFinder]) -> Finding | None:
        case = self._case
        for finder in finders:
            if self.guarded(finder.subject, finder.applies, case) and (
                finding := self._look(finder, case, lambda: (case.name,), self._fine)
            ):
                return finding
        return None

    def _look(
        self,
        finder: HopFinder | EndFinder,
        argument: Any,
        places: Callable[[], Sequence[str]],
        fine: dict[str, list[str]],
    ) -> Finding | None:
        before = len(self.not_seen)
        where = self.guarded(finder.subject, places) or ()
        finding = self.guarded(f"{finder.subject} of {_listed(where)}", finder.find, argument)
        if finding is None and len(self.not_seen) == before and finder.subject:
            for place in where:
                fine.setdefault(place, []).append(finder.subject)
        return finding


def _by_subjects(fine: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each set of subjects, in the order of the finders: ``interface, carrier of a and b``."""
    order = list(dict.fromkeys(finder.subject for finder in (*HOP_FINDERS, *END_FINDERS)))
    places: dict[tuple[str, ...], list[str]] = {}
    for place, subjects in fine.items():
        places.setdefault(tuple(sorted(set(subjects), key=order.index)), []).append(place)
    return [f"{', '.join(subjects)} of {_listed(names)}" for subjects, names in places.items()]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _answered_by_destination(case: Case) -> bool:
    """Whether the answer itself proves that packets pass in both directions."""
    error = case.answer.icmp
    if error is not None:
        return error.port_unreachable and error.sender == str(case.address)
    return case.answer.kind == "reset"
