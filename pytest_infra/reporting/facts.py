"""A lab as data, read from its artifacts: what pictures, summaries and `reproduce.md` are made from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.evidence import Artifact, attached_apart

__all__ = ["End", "LabFacts", "Wire", "labs_and_rest", "read_facts"]


@dataclass(frozen=True)
class End:
    """One end of a wire."""

    node: str
    port: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    state: str
    """``DOWN``, ``NO CARRIER``, ``gone``, or empty where nothing is wrong or known."""
    rx: int | None = None
    """Packets that came in here; None where nobody has counted."""
    tx: int | None = None
    """Packets that went out here."""
    lost: int = 0
    """Packets that were dropped here, and errors."""
    impairment: str = ""
    """What happens to the frames that it sends: ``rate 50 Mbit/s (layer 2), loss 5 %``."""

    def __str__(self) -> str:
        return f"{self.node}:{self.port}"


@dataclass(frozen=True)
class Wire:
    """A link of the lab."""

    a: End
    b: End

    @property
    def state(self) -> str:
        """What is wrong with it; empty where nothing is."""
        return ", ".join(f"{end} {end.state}" for end in (self.a, self.b) if end.state)


@dataclass(frozen=True)
class LabFacts:
    """What ``lab.json`` says, and the ``state.json`` of each node."""

    lab: Mapping[str, Any]
    state: Mapping[str, Mapping[str, Any]]
    """By node or switch; those whose namespace is gone are missing."""
    rule_sets: frozenset[str] = frozenset()
    """The nodes and switches with rules of nftables."""
    changed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By node or switch, the kernel settings that were changed since it was made: ``net/ipv4/ip_forward``."""
    switch_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By bridge of Open vSwitch, its settings and ports, as `net.ovs_settings` reads them."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """By bridge of Open vSwitch, its OpenFlow groups as ovs-ofctl(8) writes them."""
    meters: Mapping[str, str] = field(default_factory=dict)
    """By bridge of Open vSwitch, its OpenFlow meters as ovs-ofctl(8) writes them."""
    folder: str = ""
    """Where its artifacts are, beside ``reproduce.md``; with a slash at the end unless that is the same folder."""

    @property
    def name(self) -> str:
        """The lab's name."""
        return str(self.lab.get("name", "lab"))

    @property
    def kinds(self) -> dict[str, str]:
        """``host``, ``router``, ``bridge``, ``ovs`` … by the name of the node or switch."""
        return {item["name"]: item["kind"] for item in (*self.lab["nodes"], *self.lab["switches"])}

    @property
    def switches(self) -> set[str]:
        """The names of the switches."""
        return {item["name"] for item in self.lab["switches"]}

    @property
    def faults(self) -> list[tuple[str, tuple[str, ...]]]:
        """What the test has broken on purpose and not mended: in words, and the nodes concerned."""
        return [
            (fault["what"], tuple(fault["where"])) for fault in self.lab.get("faults", ()) if fault["took_s"] is None
        ]

    @property
    def wires(self) -> list[Wire]:
        """The links, with what is wrong with each."""
        return [Wire(*(self._end(end) for end in link["ends"])) for link in self.lab["links"]]

    def _end(self, end: Mapping[str, Any]) -> End:
        state = ""
        if (found := self.state.get(end["node"])) is not None:
            if (interface := found["interfaces"].get(end["port"])) is None:
                state = "gone"
            elif not interface["up"]:
                state = "DOWN"
            elif not interface["carrier"]:
                state = "NO CARRIER"
        impairment = end.get("impairment", {}).get("text", "")
        return End(
            end["node"], end["port"], end["mac"], end["mtu"], tuple(end["addresses"]), state, impairment=impairment
        )


def read_facts(artifacts: Iterable[Artifact]) -> LabFacts | None:
    """The facts of the lab that these artifacts are of; None where they are not a lab's."""
    lab: Mapping[str, Any] | None = None
    state: dict[str, Any] = {}
    rule_sets: set[str] = set()
    changed: dict[str, dict[str, str]] = {}
    of_switches: dict[str, dict[str, Any]] = {"settings": {}, "groups": {}, "meters": {}}
    for artifact in artifacts:
        if artifact.name == "lab.json":
            lab = json.loads(artifact.content)
        elif artifact.name.endswith("/state.json"):
            state[artifact.name.removesuffix("/state.json")] = json.loads(artifact.content)
        elif artifact.name.endswith("/nftables.txt") and str(artifact.content).startswith("table "):
            rule_sets.add(artifact.name.removesuffix("/nftables.txt"))
        elif artifact.name.endswith("/sysctl.txt"):
            found = re.findall(r"^(\S+) = (.*?)    \(when made: .*\)$", str(artifact.content), re.MULTILINE)
            changed[artifact.name.removesuffix("/sysctl.txt")] = dict(found)
        elif (of := re.fullmatch(r"(.*)/\1-(settings\.json|groups\.txt|meters\.txt)", artifact.name)) is not None:
            kind, _, ending = of[2].partition(".")
            of_switches[kind][of[1]] = json.loads(artifact.content) if ending == "json" else str(artifact.content)
    if lab is None:
        return None
    settings, groups, meters = of_switches.values()
    return LabFacts(lab, state, frozenset(rule_sets), changed, settings, groups, meters)


def labs_and_rest(error: BaseException | None) -> tuple[list[Sequence[Artifact]], list[Artifact]]:
    """What an error carries: the artifacts of each lab, and those of no lab, each name once: the one taken first."""
    labs: list[Sequence[Artifact]] = []
    rest: dict[str, Artifact] = {}
    for group in attached_apart(error):
        if any(item.name == "lab.json" for item in group):
            labs.append(group)
        else:
            rest = {**{item.name: item for item in group}, **rest}
    return labs, list(rest.values())
