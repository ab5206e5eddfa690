"""`LinkClass`: a tree of classes that share a link, and what each gets; `Scheduler`: the same as classes of tc."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..core.errors import BadInput, Unavailable
from ..core.units import rate_bps
from .install_tc import TC_COMMAND

__all__ = ["DEEPEST", "LinkClass", "Scheduler"]

DEEPEST = 5
"""Levels of a tree, its root among them."""
_QUANTUM = 1514  # bytes that a class of weight 1 may send in its turn: the largest frame
_QUEUE = 2000  # packets that a leaf holds


@dataclass(frozen=True)
class LinkClass:
    """A class of a scheduler, with the classes within it.

    Args:
        name: its name.
        weight: its share, in relation to its siblings.
        within: the classes among which its share is divided; without them, packets wait in it.

    Raises:
        BadInput: a weight below 1, two classes of one name, or more than five levels.
    """

    name: str
    weight: int = 1
    within: tuple[LinkClass, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.weight, int) or self.weight < 1:
            raise BadInput(f"class {self.name!r}: weight is {self.weight!r}; a whole number from 1 up is wanted")
        names = [one.name for one in self.walk()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise BadInput(f"several classes are called {', '.join(sorted(twice))}; each needs a name of its own")
        if self.depth > DEEPEST:
            raise BadInput(f"class {self.name!r} has {self.depth} levels; at most {DEEPEST} are possible")

    @property
    def depth(self) -> int:
        """Levels, with its own."""
        return 1 + max((one.depth for one in self.within), default=0)

    def walk(self) -> Iterator[LinkClass]:
        """Itself, and all classes below it."""
        yield self
        for one in self.within:
            yield from one.walk()

    def parts(self) -> dict[str, float]:
        """The part of its own share that each class below it gets, and itself 1, while all leaves want more."""
        whole = sum(one.weight for one in self.within)
        below = {name: part * one.weight / whole for one in self.within for name, part in one.parts().items()}
        return {self.name: 1.0, **below}

    def shares(self) -> dict[str, float]:
        """The part that each leaf gets while all of them want more; together 1."""
        parts = self.parts()
        return {one.name: parts[one.name] for one in self.walk() if not one.within}


class Scheduler:
    """A tree of classes at an interface that is shaped to a rate, by tc's htb or drr (tc-htb(8), tc-drr(8)).

    A packet goes into the class that its priority names (SO_PRIORITY, socket(7)): see `priority`. Under htb each
    class has its part of the rate for its own, and what it does not use goes to its siblings first. A `strict`
    scheduler serves the leaves in their order instead.

    Args:
        node: the node.
        port: its interface, which gets another queueing discipline.
        root: the classes.
        rate: the rate of the link.
        kind: ``"htb"``, or ``"drr"``, which has no levels.
        strict: whether an earlier leaf goes before a later one, whatever their weights (htb only).

    Raises:
        BadInput: an unknown kind, or what the kind cannot do.
        Unavailable: tc or the kernel lacks it.
    """

    def __init__(
        self, node: Any, port: str, root: LinkClass, *, rate: str | float, kind: str = "htb", strict: bool = False
    ) -> None:
        if kind not in ("htb", "drr"):
            raise BadInput(f"kind is {kind!r}; allowed are 'htb' and 'drr'")
        if kind == "drr" and (strict or root.depth != 2):
            raise BadInput("drr has no priorities and no levels: give classes right below the root, or use htb")
        self.root, self.rate_bps = root, int(rate_bps(rate))
        self._ids = {one.name: place for place, one in enumerate(root.walk(), 16)}
        lines = self._htb(port, strict) if kind == "htb" else self._drr(port)
        argv = [TC_COMMAND.path(), "-batch", "-"]
        done = node.run(argv, input="\n".join([*lines, ""]), check=False)
        if done.returncode != 0:
            said = " ".join(line for line in done.stderr.split("\n") if not line.startswith("Warning"))
            said = " ".join(said.split()).partition(" We have")[0]
            raise Unavailable(f"tc-{kind}", f"tc refuses it: {said}", "use a kernel that has it")

    def priority(self, leaf: str) -> int:
        """The priority of a socket whose packets go into a leaf (SO_PRIORITY)."""
        return self._major << 16 | self._ids[leaf]

    _major = 1

    def _htb(self, port: str, strict: bool) -> Iterator[str]:
        link = f"rate {self.rate_bps}bit ceil {self.rate_bps}bit burst 5k cburst 5k"
        place = 0
        parts = self.root.parts()
        yield f"qdisc replace dev {port} root handle 1: htb"
        for parent, one in _pairs(self.root):
            where = f"1:{self._ids[parent.name]:x}" if parent else "1:"
            leaf = not one.within
            own = 8000 if strict else int(self.rate_bps * parts[one.name])
            rate = link if parent is None else f"rate {own}bit ceil {self.rate_bps}bit burst 5k cburst 5k"
            more = f" prio {place}" if strict and leaf else ""
            place += leaf
            mine = f"1:{self._ids[one.name]:x}"
            yield f"class add dev {port} parent {where} classid {mine} htb {rate} quantum {_QUANTUM}{more}"
            if leaf:
                yield f"qdisc add dev {port} parent {mine} pfifo limit {_QUEUE}"

    def _drr(self, port: str) -> Iterator[str]:
        self._major = 2
        yield f"qdisc replace dev {port} root handle 1: htb default 1"
        yield f"class add dev {port} parent 1: classid 1:1 htb rate {self.rate_bps}bit burst 5k cburst 5k"
        yield f"qdisc add dev {port} parent 1:1 handle 2: drr"
        for one in self.root.within:
            mine = f"2:{self._ids[one.name]:x}"
            yield f"class add dev {port} parent 2: classid {mine} drr quantum {_QUANTUM * one.weight}"
            yield f"qdisc add dev {port} parent {mine} pfifo limit {_QUEUE}"
        first = self._ids[self.root.within[0].name]  # drr drops what no class is named for: ARP, neighbour discovery
        yield f"filter add dev {port} parent 2: protocol all prio 1 matchall classid 2:{first:x}"


def _pairs(root: LinkClass) -> Iterator[tuple[LinkClass | None, LinkClass]]:
    """Each class, and the one that it is in; parents first."""
    pending: list[tuple[LinkClass | None, LinkClass]] = [(None, root)]
    while pending:
        parent, one = pending.pop(0)
        yield parent, one
        pending += [(one, child) for child in one.within]
