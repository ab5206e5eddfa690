"""`LabTopologies`: the part of a lab that declares whole networks: chain, ring, star, leaf-spine, fat tree, random."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ..core.errors import BadInput
from ..net.host import Host
from ..net.link import Link
from ..net.router import Router
from ..net.switch import Switch
from .switching import LabSwitching

__all__ = ["LabTopologies", "MakeRouter", "Topology"]

MakeRouter = Callable[[], Router]


@dataclass
class Topology:
    """What one of the ready functions has declared, each in the order of its declaration."""

    hosts: list[Host] = field(default_factory=list)
    routers: list[Router] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    """Those between routers and switches; the links of the hosts are ``host.ports[0].link``."""


class LabTopologies(LabSwitching):
    """The part of a lab that declares whole networks.

    Where a function takes `router`, that makes each router: ``router=lambda: lab.router(daemons=["ospfd"], config=…)``.
    Otherwise the lab works out the routes.
    """

    def chain(self, routers: int, *, router: MakeRouter | None = None) -> Topology:
        """Routers in a row, with a host at each end.

        Raises:
            BadInput: not one router at least.
        """
        made = self._routers(routers, 1, router)
        for one, other in zip(made.routers, made.routers[1:], strict=False):
            made.links.append(self.link(one, other))
        for end in (made.routers[0], made.routers[-1]):
            self._host_at(made, end)
        return made

    def ring(self, routers: int, *, router: MakeRouter | None = None) -> Topology:
        """Routers in a ring, each with a host: link number 0 is between the first two.

        Raises:
            BadInput: fewer than three routers.
        """
        made = self._routers(routers, 3, router)
        for number, one in enumerate(made.routers):
            made.links.append(self.link(one, made.routers[(number + 1) % routers]))
        for one in made.routers:
            self._host_at(made, one)
        return made

    def star(self, hosts: int, *, switch: Switch | None = None) -> Topology:
        """Hosts on one switch, a Linux bridge unless one is given.

        Raises:
            BadInput: not one host at least.
        """
        _check("hosts", hosts, 1)
        made = Topology(switches=[switch if switch is not None else self.bridge()])
        for _ in range(hosts):
            self._host_at(made, made.switches[0])
        return made

    def leaf_spine(self, *, spines: int, leaves: int, hosts: int, router: MakeRouter | None = None) -> Topology:
        """A network of two layers: every leaf has a link to every spine, and a switch with its share of the hosts.

        Args:
            spines: routers of the upper layer, the first ones of `routers`.
            leaves: routers of the lower layer.
            hosts: of all leaves together.
            router: makes each router.

        Raises:
            BadInput: not one of each at least.
        """
        for name, value in {"spines": spines, "leaves": leaves, "hosts": hosts}.items():
            _check(name, value, 1)
        made = self._routers(spines + leaves, 2, router)
        upper, lower = made.routers[:spines], made.routers[spines:]
        for leaf in lower:
            rack = self.bridge()
            made.switches.append(rack)
            self.link(leaf, rack)
        for leaf in lower:
            made.links += [self.link(leaf, spine) for spine in upper]
        for number in range(hosts):
            self._host_at(made, made.switches[number % leaves])
        return made

    def fat_tree(self, k: int, *, router: MakeRouter | None = None) -> Topology:
        """A fat tree of routers with `k` ports: k²/4 core routers, k pods of k routers, k³/4 hosts.

        Al-Fares, Loukissas, Vahdat, "A scalable, commodity data center network architecture" (2008). The core routers
        are the first ones of `routers`; each pod follows with its aggregation, then its edge routers.

        Raises:
            BadInput: `k` is not an even number from 2 to 16.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k % 2 or not 2 <= k <= 16:
            raise BadInput(f"k {k!r} cannot be used: the ports of a fat tree's routers are an even number, 2 to 16")
        half = k // 2
        made = self._routers(half * half + k * k, 1, router)
        core, rest = made.routers[: half * half], made.routers[half * half :]
        for pod in range(k):
            upper, edge = rest[pod * k : pod * k + half], rest[pod * k + half : (pod + 1) * k]
            for number, one in enumerate(upper):
                made.links += [self.link(one, other) for other in core[number * half : (number + 1) * half]]
                made.links += [self.link(one, other) for other in edge]
            for one in edge:
                for _ in range(half):
                    self._host_at(made, one)
        return made

    def random_graph(self, routers: int, links: int, *, seed: int = 0, router: MakeRouter | None = None) -> Topology:
        """Routers with links by chance, each with a host; all hang together, and no two have more than one link.

        Args:
            routers: how many, 2 at least.
            links: between them, at least ``routers - 1``.
            seed: the same graph for the same number.
            router: makes each router.

        Raises:
            BadInput: too few routers, or a number of links that such a graph cannot have.
        """
        _check("routers", routers, 2)
        most = routers * (routers - 1) // 2
        if isinstance(links, bool) or not isinstance(links, int) or not routers - 1 <= links <= most:
            raise BadInput(f"links {links!r} cannot be used: {routers} routers have {routers - 1} to {most}")
        chance = random.Random(seed)  # noqa: S311 - the same graph each time
        pairs = {(chance.randrange(number), number) for number in range(1, routers)}
        others = [(a, b) for b in range(routers) for a in range(b) if (a, b) not in pairs]
        made = self._routers(routers, 2, router)
        for a, b in sorted([*pairs, *chance.sample(others, links - len(pairs))]):
            made.links.append(self.link(made.routers[a], made.routers[b]))
        for one in made.routers:
            self._host_at(made, one)
        return made

    def _routers(self, number: int, least: int, make: MakeRouter | None) -> Topology:
        _check("routers", number, least)
        return Topology(routers=[(make or self.router)() for _ in range(number)])

    def _host_at(self, made: Topology, where: Router | Switch) -> None:
        host = self.host()
        made.hosts.append(host)
        self.link(host, where)


def _check(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{name} {value!r} cannot be used: a whole number from {least} on is wanted")
