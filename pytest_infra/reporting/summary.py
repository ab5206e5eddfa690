"""The short text under a failed test: what stands out in its labs, and where the rest is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core.evidence import NOT_TAKEN
from ..net.counters import losses
from .facts import LabFacts

__all__ = ["MOST_LINES", "summary"]

MOST_LINES = 40
_OUTPUT_LINES = 3
_MOST_NAMED = 5
_LONGEST_LINE = 200


def summary(
    folder: str, names: Sequence[str], labs: Sequence[LabFacts], unwritten: Mapping[str, OSError] | None = None
) -> str:
    """At most `MOST_LINES` lines.

    Args:
        folder: where the evidence is.
        names: the files in it.
        labs: the labs that were up.
        unwritten: those of the files that could not be written, and why.
    """
    found = [line for facts in labs for line in _lab(facts)]
    found += [
        f"  not taken {name.removesuffix(NOT_TAKEN) or 'the lab'}: see {name}" for name in names if _missing(name)
    ]
    end = [f"{len(names) - len(unwritten or {})} files in {folder}", f"begin with {folder}/reproduce.md"]
    for name, error in list((unwritten or {}).items())[:1]:
        end.insert(1, f"{len(unwritten or {})} could not be written, such as {name}: {error}")
    room = MOST_LINES - len(end)
    if len(found) > room:
        found = [*found[: room - 1], f"… and {len(found) - room + 1} more lines' worth"]
    return "\n".join(_printable(line) for line in (*found, *end))


def _missing(name: str) -> bool:
    return name.rpartition("/")[2] == NOT_TAKEN


def _printable(line: str) -> str:
    """A line that does a terminal no harm, and is no longer than people read."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line[: _LONGEST_LINE + 1])
    return shown if len(shown) <= _LONGEST_LINE else f"{shown[:_LONGEST_LINE]}…"


def _lab(facts: LabFacts) -> Iterator[str]:
    count = f"{len(facts.lab['nodes'])} nodes, {len(facts.switches)} switches, {len(facts.lab['links'])} links"
    yield f"lab {facts.name}: {count}{'' if facts.lab.get('up', True) else ', not all of it made'}"
    for wire in facts.wires:
        if wire.state:
            yield f"  link      {wire.a} -- {wire.b}: {wire.state}"
    for name, state in facts.state.items():
        yield from _node(name, state, name in facts.switches)
    for process in facts.lab.get("processes", ()):
        if process["status"]:
            yield f"  process   {process['where']}: {' '.join(process['argv'])!r} {process['ending']}"
            said = (process["stdout"] + process["stderr"]).splitlines()
            yield from (f"            {line}" for line in said[-_OUTPUT_LINES:])


def _node(name: str, state: Mapping[str, Any], is_switch: bool) -> Iterator[str]:
    for address in state["addresses"]:
        if address["duplicate"]:
            yield f"  address   {name}: {address['ip']} on {address['interface']} is a duplicate"
    if failed := [item for item in state["neighbours"] if item["state"] in ("FAILED", "INCOMPLETE")]:
        yield f"  neighbour {name}: no answer from {', '.join(item['ip'] for item in failed[:_MOST_NAMED])}"
    counters = state["counters"]
    if is_switch:  # it speaks no IP, and what it does not take as IP is no loss
        counters = {what: value for what, value in counters.items() if what.split()[0] in state["interfaces"]}
    if lost := losses(counters):
        yield f"  counters  {name}: " + ", ".join(f"{what} {value}" for what, value in list(lost.items())[:_MOST_NAMED])
