"""`assert_all_reachable`, `assert_converged`, `assert_reconverged`: a whole network, measured by probing it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, inf
from threading import Event
from typing import Any, ClassVar

from ..core.errors import BadInput, CheckFailed
from ..core.node import Node
from ..core.report import Report, explain
from ..core.units import format_duration
from ..core.wait import until
from .arguments import seconds
from .autopsy import Autopsy
from .mesh import Mesh, choose_pairs, ends_of, named
from .reach import measure_reach
from .target import Ends, Family

__all__ = [
    "GapReport",
    "MeshReport",
    "Pairs",
    "assert_all_reachable",
    "assert_converged",
    "assert_reconverged",
    "measure_all",
    "measure_convergence",
    "measure_gap",
]

Pairs = int | Sequence[tuple[Node, Node]] | None

_MOST_PAIRS = 10_000  # probed by default
_MOST_STEADY_PAIRS = 64  # probed by default where it is done a hundred times a second
_NAMED = 5
_ONE_ROUND_S = 1.0
_EVERY_S = 0.05
_TICK_S = 0.01
_SPARE = 2  # round trips, as long as the first one, that an answer may take
_LONGEST_EVENT_S = 3600.0


@dataclass(frozen=True)
class MeshReport(Report):
    """Which of many pairs of nodes reach each other; times in seconds."""

    kind: ClassVar[str] = "mesh"

    nodes: int
    pairs: int
    silent: tuple[str, ...]
    """The pairs whose last request was not answered, as ``a -> b``."""
    rounds: int
    """How often all pairs were probed."""
    elapsed_s: float
    """To the last answer of the first round in which all were answered; else to the end."""
    within_s: float
    autopsy: Autopsy | None = None
    """Of the first silent pair."""

    @property
    def ok(self) -> bool:
        """Whether every pair was answered, in one round."""
        return not self.silent

    def explain(self) -> str:
        """The verdict, how many pairs are silent and which, and the autopsy of the first."""
        took = format_duration(self.elapsed_s)
        if self.ok:
            return f"all {self.pairs} pairs of {self.nodes} nodes reach each other, after {took}"
        shown = [*self.silent[:_NAMED], *([f"… and {more} more"] if (more := len(self.silent) - _NAMED) > 0 else [])]
        again = f", at the last of {self.rounds} rounds" if self.rounds > 1 else ""
        measured = f"{self.pairs - len(self.silent)} of {self.pairs} pairs answered in {took}{again}; silent are\n"
        rows = [("measured", measured + "\n".join(shown)), ("wanted", f"all within {format_duration(self.within_s)}")]
        verdict = f"{len(self.silent)} of {self.pairs} pairs of nodes do not reach each other: {self.silent[0]}"
        return explain(verdict, rows + (self.autopsy.rows() if self.autopsy else []))


def measure_all(
    where: Any, *, pairs: Pairs = None, within: str | float = "1 s", family: Family | None = None
) -> MeshReport:
    """Probe many pairs once, all at the same time; see `assert_all_reachable`."""
    return _measured(where, pairs, seconds("within", within), family, once=True)


def assert_all_reachable(
    where: Any, *, pairs: Pairs = None, within: str | float = "1 s", family: Family | None = None
) -> MeshReport:
    """Check that many pairs of nodes reach each other, with one echo request each (RFC 792, RFC 4443), all at once.

    Args:
        where: a lab, of which the hosts are taken (all nodes where it has fewer than two), or a list of nodes.
        pairs: pairs of nodes, or how many are chosen by chance, the same in each run; all by default, at most 10,000.
        within: seconds after the last request, or ``"1 s"``.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.

    Raises:
        CheckFailed: a pair was not answered; the text names some, and says why the first is silent.
        BadInput: fewer than two nodes, or an argument that cannot be used.
    """
    __tracebackhide__ = True
    report = measure_all(where, pairs=pairs, within=within, family=family)
    report.demand()
    return report


def measure_convergence(
    where: Any, *, within: str | float, pairs: Pairs = None, family: Family | None = None
) -> MeshReport:
    """Probe until all pairs are answered in one round; see `assert_converged`."""
    return _measured(where, pairs, seconds("within", within), family, once=False)


def assert_converged(
    where: Any, within: str | float, *, pairs: Pairs = None, family: Family | None = None
) -> MeshReport:
    """Check that a network converges: all pairs are probed again and again until all are answered in one round.

    The report's ``elapsed_s`` is how long it took from the call on. The arguments are those of `assert_all_reachable`.

    Raises:
        CheckFailed: some pair was still silent after `within`.
        BadInput: fewer than two nodes, or an argument that cannot be used.
    """
    __tracebackhide__ = True
    report = measure_convergence(where, within=within, pairs=pairs, family=family)
    report.demand()
    return report


def _measured(where: Any, pairs: Pairs, within_s: float, family: Family | None, *, once: bool) -> MeshReport:
    started = time.monotonic()
    ends = ends_of(choose_pairs(where, pairs, _MOST_PAIRS), family)
    rounds = 0
    with Mesh(ends) as mesh:
        began = time.monotonic()
        deadline = began + within_s

        def answered() -> bool:
            nonlocal rounds
            mesh.send(rounds)
            left_s = within_s if once else max(_EVERY_S, min(_ONE_ROUND_S, deadline - time.monotonic()))
            mesh.receive(time.monotonic() + left_s, rounds)
            rounds += 1
            return len(mesh.answered[rounds - 1]) == len(ends) or once or time.monotonic() >= deadline

        until(answered, within_s=within_s, what="an answer of every pair", every_s=_EVERY_S)
        missing = [one for number, one in enumerate(ends) if number not in mesh.answered[rounds - 1]]
    nodes = {id(node) for item in ends for node in (item.source, item.destination)}
    took_s = time.monotonic() - started
    autopsy = _autopsy(missing[0]) if missing else None
    return MeshReport(len(nodes), len(ends), tuple(map(named, missing)), rounds, took_s, within_s, autopsy)


def _autopsy(ends: Ends) -> Autopsy | None:
    """Why one pair is silent; None where it is silent no more."""
    return measure_reach(ends.source, str(ends.address).partition("%")[0]).autopsy


@dataclass(frozen=True)
class GapReport(Report):
    """For how long pairs of nodes did not reach each other after something happened; times in seconds."""

    kind: ClassVar[str] = "gap"

    event: str
    """What happened."""
    pairs: int
    gap_s: float
    """From the last request that was answered before to the first one after, of the worst pair; 0: none was lost."""
    worst: str
    """That pair."""
    lost: int
    """Its requests without answer."""
    sent: int
    """Requests of each pair, from just before it happened."""
    silent: tuple[str, ...]
    """The pairs that were still silent in the end."""
    within_s: float
    every_s: float
    """The time between two requests, and so how exact the figures are."""
    autopsy: Autopsy | None = None

    @property
    def ok(self) -> bool:
        """Whether all came back in time."""
        return not self.silent and self.gap_s <= self.within_s

    def explain(self) -> str:
        """The verdict, the gap that was measured and the one that was allowed."""
        gap, allowed = format_duration(self.gap_s), format_duration(self.within_s)
        if self.ok:
            return f"after {self.event} {self.worst} was silent for {gap} ({self.lost} of {self.sent} requests lost)"
        lost = f"{self.lost} of {self.sent} requests lost, one every {format_duration(self.every_s)}"
        wanted = ("wanted", f"an answer again within {allowed}")
        if not self.silent:
            verdict = f"after {self.event} {self.worst} was silent for {gap}, longer than {allowed}"
            return explain(verdict, [("measured", f"a gap of {gap}: {lost}"), wanted])
        verdict = f"after {self.event} {self.silent[0]} stays silent"
        others = f"; {len(self.silent)} of {self.pairs} pairs are silent" if self.pairs > 1 else ""
        rows = [("measured", f"no answer for {gap}: {lost}{others}"), wanted]
        return explain(verdict, rows + (self.autopsy.rows() if self.autopsy else []))


def measure_gap(
    where: Any,
    *,
    after: Callable[[], object],
    within: str | float,
    pairs: Pairs = None,
    steady: str | float = "0.5 s",
    family: Family | None = None,
) -> GapReport:
    """Let something happen while pairs are probed, and report how long they were silent; see `assert_reconverged`."""
    within_s, steady_s = seconds("within", within), seconds("steady", steady)
    if not callable(after):
        raise BadInput(f"after is what happens, a function without arguments such as link.down; got {after!r}")
    ends = ends_of(choose_pairs(where, pairs, _MOST_STEADY_PAIRS), family)
    with Mesh(ends) as mesh:
        mesh.send(0)
        mesh.receive(time.monotonic() + _ONE_ROUND_S, 0)
        if missing := [named(one) for number, one in enumerate(ends) if number not in mesh.answered[0]]:
            raise CheckFailed(f"{missing[0]} is silent before anything has happened: wait first, with assert_converged")
        late_s = _SPARE * (time.monotonic() - mesh.sent_at[0])
        ticks = _probe_while(mesh, after, within_s, steady_s, late_s)
        lost = {number: _silence(mesh, number, ticks) for number in range(len(ends))}
    worst = max(lost, key=lambda number: lost[number][0])
    silent = [one for number, one in enumerate(ends) if lost[number][2]]
    return GapReport(
        event=_event(after),
        pairs=len(ends),
        gap_s=lost[worst][0],
        worst=named(ends[worst]),
        lost=lost[worst][1],
        sent=ticks - 1,
        silent=tuple(map(named, silent)),
        within_s=within_s,
        every_s=_TICK_S,
        autopsy=_autopsy(silent[0]) if silent else None,
    )


def _event(after: Callable[[], object]) -> str:
    owner, name = getattr(after, "__self__", None), getattr(after, "__name__", "it")
    return f"{owner}.{name}()" if owner is not None else name if name != "<lambda>" else "what was done"


def _probe_while(mesh: Mesh, after: Callable[[], object], within_s: float, steady_s: float, late_s: float) -> int:
    """Let it happen while another thread probes; returns the tick after the last one."""
    happened = Event()
    with ThreadPoolExecutor(1, "infra-probe") as pool:
        probing = pool.submit(_probe_until_steady, mesh, happened, within_s, steady_s, late_s)
        try:
            after()
        except BaseException:
            mesh.stopped = True
            raise
        finally:
            happened.set()
        return probing.result()


def _probe_until_steady(mesh: Mesh, happened: Event, within_s: float, steady_s: float, late_s: float) -> int:
    """Probe until it has happened and every pair was answered for `steady_s` on end, or until the time is over.

    An answer may come `late_s` after its request: so much later each tick is looked at.
    """
    tick, streak, first = 0, 0, 0
    back = 1 + ceil(late_s / _TICK_S)
    until_s = inf
    needed = max(1, round(steady_s / _TICK_S))

    def steady() -> bool:
        nonlocal tick, streak, first, until_s
        tick += 1
        mesh.send(tick)
        mesh.receive(mesh.sent_at[tick] + _TICK_S)
        if not happened.is_set():
            return False
        first = first or tick
        until_s = min(until_s, time.monotonic() + within_s + steady_s + late_s)
        whole = tick - back >= first and len(mesh.answered[tick - back]) == len(mesh.ends)
        streak = streak + 1 if whole else 0
        over_s = time.monotonic() - until_s
        return mesh.stopped or streak > needed or over_s > (2 * steady_s if streak else 0)

    until(steady, within_s=_LONGEST_EVENT_S, what="the end of the probes", every_s=0, at_most_every_s=0)
    mesh.receive(time.monotonic() + 5 * _TICK_S + late_s, tick)
    return tick + 1


def _silence(mesh: Mesh, pair: int, ticks: int) -> tuple[float, int, bool]:
    """The longest time without answer, how many requests were lost, and whether it lasts."""
    longest_s, lost, last, lasts = 0.0, 0, mesh.sent_at[0], False
    for tick in range(1, ticks):
        if pair in mesh.answered[tick]:
            longest_s = max(longest_s, mesh.sent_at[tick] - last if lasts else 0.0)
            last, lasts = mesh.sent_at[tick], False
        else:
            lost, lasts = lost + 1, True
    return (max(longest_s, mesh.sent_at[ticks - 1] - last) if lasts else longest_s), lost, lasts


def assert_reconverged(
    where: Any,
    *,
    after: Callable[[], object],
    within: str | float,
    pairs: Pairs = None,
    steady: str | float = "0.5 s",
    family: Family | None = None,
) -> GapReport:
    """Check that a network mends itself: pairs are probed a hundred times a second while something happens.

    ``assert_reconverged(lab, after=link.down, within="5 s")`` returns with ``gap_s``, how long the pair that lost most
    was silent. A network that loses nothing has a gap of 0.

    Args:
        where: a lab or a list of nodes, as `assert_all_reachable` takes it.
        after: what happens: a function without arguments, such as ``link.down``.
        within: the longest gap that is allowed, ``"5 s"`` or seconds.
        pairs: pairs of nodes, or how many are chosen by chance; all by default, at most 64.
        steady: for how long all must be answered without a loss, in the end.
        family: ``"ipv4"``, ``"ipv6"``, or None for IPv4 where there is one.

    Raises:
        CheckFailed: a gap was longer, or a pair stays silent; or one was silent before anything happened.
        BadInput: an argument that cannot be used.
    """
    __tracebackhide__ = True
    report = measure_gap(where, after=after, within=within, pairs=pairs, steady=steady, family=family)
    report.demand()
    return report
