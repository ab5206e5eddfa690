"""A lab for people, in JSON types and bounded: what the HTML report gets from wherever the test has run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..net.counters import losses
from .facts import End, LabFacts, Wire

__all__ = ["MOST_NODES", "lab_view", "wires_of"]

MOST_NODES = 60
"""A lab with more is named and not drawn."""
_MOST_COUNTERS = 24
_NOT_TELLING = ("Octets", "_bytes", "NoECTPkts", "OutTransmits", "Ip6InNoECT", "Delivers", "OutRequests")


def lab_view(facts: LabFacts) -> dict[str, Any]:
    """The lab: ``name``, ``count`` of nodes, and where it can be drawn ``nodes``, ``wires`` and ``counters``.

    Args:
        facts: the lab; nodes whose state is missing are shown without one.
    """
    count = len(facts.kinds)
    view: dict[str, Any] = {"name": facts.name, "count": count, "nodes": [], "wires": [], "counters": {}}
    view["faults"] = [[what, list(where)] for what, where in facts.faults]
    if count > MOST_NODES:
        return view
    view["nodes"] = [{"name": name, "kind": kind} for name, kind in facts.kinds.items()]
    view["wires"] = [[_end(end, facts) for end in (wire.a, wire.b)] for wire in facts.wires[: 4 * MOST_NODES]]
    for name, state in facts.state.items():
        view["counters"][name] = [[what, value] for what, value in _telling(state["counters"])]
    return view


def _end(end: End, facts: LabFacts) -> dict[str, Any]:
    counters = facts.state.get(end.node, {}).get("counters", {})
    known = end.node in facts.state
    seen = {way: counters.get(f"{end.port} {way}_packets", 0) for way in ("rx", "tx")} if known else {}
    lost = sum(losses({what: value for what, value in counters.items() if what.split()[0] == end.port}).values())
    shown = {"node": end.node, "port": end.port, "addresses": list(end.addresses), "state": end.state}
    return {**shown, "mac": end.mac, "mtu": end.mtu, "lost": lost, "impairment": end.impairment, **seen}


def _telling(counters: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Losses first, then what was sent and received; what only repeats another counter is left out."""
    bad = losses(counters)
    rest = {what: value for what, value in counters.items() if what not in bad and not what.endswith(_NOT_TELLING)}
    for number, item in enumerate({**bad, **rest}.items()):
        if number == _MOST_COUNTERS:
            return
        yield item


def wires_of(view: Mapping[str, Any]) -> list[Wire]:
    """The wires of a view, as pictures take them."""
    return [Wire(*(_read(end) for end in ends)) for ends in view["wires"]]


def _read(end: Mapping[str, Any]) -> End:
    addresses: Sequence[str] = end["addresses"]
    return End(
        end["node"],
        end["port"],
        end["mac"],
        end["mtu"],
        tuple(addresses),
        end["state"],
        rx=end.get("rx"),
        tx=end.get("tx"),
        lost=end["lost"],
        impairment=end.get("impairment", ""),
    )
