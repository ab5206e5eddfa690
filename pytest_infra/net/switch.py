"""`Switch`: what a Linux bridge and an Open vSwitch bridge have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..core.keep import Holdings
from ..core.node import Interface
from ..core.resource import Artifact, Facts, Resource
from .diagnosis import diagnose_network
from .namespace import NetNamespace
from .port import Port
from .reading import read_interfaces

if TYPE_CHECKING:
    from .host import Host

__all__ = ["Switch"]


class Switch(Resource):
    """A switch in a network namespace of its own, out of the machine's sight.

    Args:
        name: its name, which is its bridge device's too.
        observe: settles what the lab has declared.
        declared_at: the line of the test that made it.
    """

    kind = "switch"
    namespace: NetNamespace
    host: Host | None = None
    """The host whose network namespace the switch is in; None for one of its own."""

    @property
    def joined(self) -> Sequence[Switch]:
        """Switches to which it passes frames without a link of the lab in between."""
        return ()

    def __init__(self, name: str, *, observe: Callable[[], None], declared_at: str = "") -> None:
        self.name = name
        self.observe = observe
        self.declared_at = declared_at
        self.ports: list[Port] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def hand_over(self, holdings: Holdings) -> None:
        """Its namespace, and whatever runs it."""
        self._hand_over_parts(holdings)

    @property
    def interfaces(self) -> dict[str, Interface]:
        """The interfaces of the switch's namespace now, its ports among them, by name."""
        self.observe()
        with self.namespace.netlink() as netlink:
            return read_interfaces(netlink)

    def namespaces(self) -> dict[str, int]:
        """The descriptors of its namespaces, by their names under /proc/PID/ns."""
        return {"net": self.namespace.fd} if hasattr(self, "namespace") else {}

    def siblings(self) -> Iterable[Switch]:
        """The switches of the lab whose ports are in the same namespace as this one's, this one among them."""
        return (self,)

    def _in_same_host(self, switches: Iterable[Switch]) -> Iterable[Switch]:
        if self.host is None:
            return (self,)
        return [one for one in switches if one.host is self.host]

    def master_index(self) -> int:
        """The interface index of the bridge that new ports are made ports of at once; 0 where `attach` does it."""
        return 0

    def attach(self, ports: Sequence[Port]) -> None:
        """Make interfaces that are already in the switch's namespace its ports. Called while settling."""

    def show(self) -> str:
        """The switch and its ports as text, for people."""
        raise AssertionError(f"{type(self).__name__} has no show")

    def diagnose(self) -> Iterator[Artifact]:
        """Interfaces and counters of the switch's namespace."""
        if hasattr(self, "namespace"):
            yield from diagnose_network(self.namespace)

    def describe(self) -> Facts:
        """The switch and its ports."""
        facts: Facts = {"name": self.name, "kind": self.kind, "ports": [port.name for port in self.ports]}
        return facts if self.host is None else {**facts, "host": self.host.name}
