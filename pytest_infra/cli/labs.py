"""Labs by name: which are up, which one somebody means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import BadInput
from ..core.sweep import LeaseState, leases

__all__ = ["LabUp", "find_lab", "find_node", "labs_up"]

_MOST_NAMES = 20


@dataclass(frozen=True)
class LabUp:
    """A lab that is up."""

    name: str
    nodes: Mapping[str, Mapping[str, Any]]
    lease: LeaseState

    @property
    def pid(self) -> int:
        """The process that holds it."""
        return int(self.lease.session.get("pid", 0))

    @property
    def kept(self) -> Mapping[str, Any] | None:
        """Why it has been kept (`test`, `outcome`, `when`); None where its session still runs."""
        kept = self.lease.session.get("kept")
        return kept if isinstance(kept, Mapping) else None


def labs_up(found: Iterable[LeaseState] | None = None) -> list[LabUp]:
    """The labs of this user that are up, kept ones too."""
    return [
        LabUp(name, facts.get("nodes", {}), lease)
        for lease in (leases() if found is None else found)
        if lease.alive
        for name, facts in lease.labs.items()
    ]


def find_lab(labs: Sequence[LabUp], name: str | None, pid: int | None = None) -> LabUp:
    """The lab of that name; without one, the only one there is.

    Raises:
        BadInput: there is none, or several.
    """
    if name is None and len({lab.name for lab in labs}) > 1:
        raise BadInput(f"which lab? There are {_list(lab.name for lab in labs)}")
    if not labs:
        raise BadInput(f"no lab {name!r} is up; there are none" if name else "no lab is up")
    found = [lab for lab in labs if name in (None, lab.name)]
    if not found:
        raise BadInput(f"no lab {name!r} is up; {_hint(str(name), [lab.name for lab in labs])}")
    if pid is not None:
        found = [lab for lab in found if lab.pid == pid]
    if len(found) != 1:
        pids = ", ".join(str(lab.pid) for lab in labs if name in (None, lab.name))
        what = f"{len(found)} labs are called {name!r}" if found else f"the session {pid} has no lab {name!r}"
        raise BadInput(f"{what}, of the sessions {pids}: choose with --session PID")
    return found[0]


def find_node(lab: LabUp, name: str | None) -> str:
    """The name of a node of the lab; without one, its only node.

    Raises:
        BadInput: there is none, or several.
    """
    if name is None and len(lab.nodes) != 1:
        raise BadInput(f"which node of the lab {lab.name}? There are {_list(lab.nodes)}")
    if name is None:
        return next(iter(lab.nodes))
    if name not in lab.nodes:
        raise BadInput(f"no node {name!r} in the lab {lab.name}; {_hint(name, list(lab.nodes))}")
    return name


def _hint(wrong: str, names: Sequence[str]) -> str:
    """What there is; of many, only what was probably meant."""
    if near := difflib.get_close_matches(wrong, names, n=3, cutoff=0.6):
        return f"did you mean {' or '.join(dict.fromkeys(near))}? There are {_list(names)}"
    return f"there are {_list(names)}"


def _list(names: Iterable[str]) -> str:
    found = list(dict.fromkeys(names))
    rest = f" … ({len(found)} in all)" if len(found) > _MOST_NAMES else ""
    return ", ".join(found[:_MOST_NAMES]) + rest if found else "none"
