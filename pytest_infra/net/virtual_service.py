"""`VirtualService`: one address for several servers, as a cluster gives it, translated in each node that asks.

Each back end has a chain of its own with a counter, so that the rules can be read and connections counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from ..core.errors import BadInput
from ..core.requirement import PRIVILEGE
from ..core.resource import Facts, Resource
from .nft import NFT, Rule, read_rules
from .plan_services import Virtual

__all__ = ["Backend", "VirtualService", "checked", "ruleset"]

_POOL = IPv4Address("10.96.0.0")  # the first part of what clusters use by custom
_MOST_BACKENDS = 256
_LAST_PORT = 65535


@dataclass(frozen=True)
class Backend:
    """A server behind a service."""

    node: Any
    port: int

    @property
    def address(self) -> str:
        """The server's first IPv4 address."""
        if not (found := self.addresses()):
            raise BadInput(f"{self.node.name} has no IPv4 address, and cannot stand behind a service")
        return str(found[0])

    def addresses(self) -> list[IPv4Address]:
        """The server's IPv4 addresses, as far as they are planned."""
        return [ip.ip for port in self.node.ports for ip in port.planned or () if isinstance(ip.ip, IPv4Address)]

    def __str__(self) -> str:
        return f"{self.node.name}:{self.port}"


def ruleset(
    table: str,
    address: str,
    protocol: str,
    port: int,
    servers: Sequence[tuple[str, int]],
    shared: Sequence[IPv4Network] = (),
) -> str:
    """The rules in the language of nft(8): each new connection goes to the next server, in turn.

    Args:
        table: the table's name.
        address: the service's address.
        protocol: ``tcp`` or ``udp``.
        port: the service's port.
        servers: address and port of each server; none refuses connections.
        shared: subnets in which servers may have clients beside them, of a router that they share: their source is
            translated too, else a server would answer them directly, from an address that they have not asked.
    """
    match = f"ip daddr {address} {protocol} dport {port}"
    chosen = ", ".join(f"{number} : goto server-{number}" for number in range(len(servers)))
    to_one = f"{match} numgen inc mod {len(servers)} vmap {{ {chosen} }}"
    chains = {
        f"server-{number}": [f'meta l4proto {protocol} counter dnat to {server}:{target} comment "server {number}"']
        for number, (server, target) in enumerate(servers)
    }
    for hook in ("prerouting", "output"):
        chains[hook] = [f"type nat hook {hook} priority -100", *([to_one] if servers else [])]
    for hook in () if servers else ("forward", "output"):
        chains[f"refuse-{hook}"] = [f"type filter hook {hook} priority 0", f"{match} reject"]
    if shared and servers:
        beside = [f"ct original ip daddr {address} ip saddr {net} ip daddr {net} masquerade" for net in shared]
        chains["postrouting"] = ["type nat hook postrouting priority 100", *beside]
    lines = [f"table ip {table} {{"]
    for name, content in chains.items():
        lines += [f"  chain {name} {{", *(f"    {line}" for line in content), "  }"]
    return "\n".join([*lines, "}", ""])


class VirtualService(Resource):
    """An address that no machine has, behind which servers stand; connections go to them in turn.

    Args:
        name: for people, and of its table of rules.
        number: which of the addresses 10.96.0.… it gets, where `address` is not given.
        backends: the servers.
        port: the service's port.
        protocol: ``tcp`` or ``udp``.
        address: the service's address.
        nodes: says where the rules are loaded.
        changed: called when other servers stand behind it.
    """

    requires = (PRIVILEGE, NFT)
    kind = "service"

    def __init__(
        self,
        name: str,
        number: int,
        backends: Sequence[Any],
        port: int,
        protocol: str,
        address: str,
        nodes: Callable[[], Sequence[Any]],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.address = address or str(_POOL + number)
        self.port = port
        self.protocol = protocol
        self.backends = checked(backends, port)
        self.nodes = nodes
        """Who knows it, as far as that was declared."""
        self._changed = changed
        self._loaded: list[Any] = []

    @property
    def table(self) -> str:
        """The name of its table, of the family ``ip``."""
        return f"service-{self.name}"

    def _start(self, undo: ExitStack) -> None:
        undo.callback(self._loaded.clear)
        self.follow()

    def await_ready(self) -> None:
        """It is when its rules are loaded."""

    def follow(self) -> None:
        """Load the rules in nodes that have come since."""
        for node in self.nodes():
            if node not in self._loaded:
                self._load(node)
                self._loaded.append(node)

    def virtual(self) -> Virtual:
        """What routes are planned by."""
        servers = [address for backend in self.backends for address in backend.addresses()[:1]]
        return Virtual(IPv4Address(self.address), self.nodes(), servers)

    def _load(self, node: Any) -> None:
        servers = [(backend.address, backend.port) for backend in self.backends]
        shared = [*dict.fromkeys(self._shared(node))] if getattr(node, "forwards", False) else []
        rules = ruleset(self.table, self.address, self.protocol, self.port, servers, shared)
        node.own_tables.keep(f"ip {self.table}", rules)

    def _shared(self, router: Any) -> Iterator[IPv4Network]:
        """The subnets of a router that have a server in them."""
        servers = [IPv4Address(backend.address) for backend in self.backends]
        for ip in (ip for port in router.ports for ip in port.planned or ()):
            if isinstance(ip.network, IPv4Network) and any(server in ip.network for server in servers):
                yield ip.network

    def set_backends(self, backends: Sequence[Any]) -> None:
        """Put other servers behind the service, in all nodes at once; what is connected stays where it is.

        Args:
            backends: nodes, nodes with a port, or some of `backends`.

        Raises:
            BadInput: too many of them, one without an IPv4 address, or a port that cannot be; nothing has changed.
        """
        wanted = checked(backends, self.port)
        for backend in wanted:
            backend.address  # noqa: B018  # raises where it has none
        self.backends = wanted
        self._changed()
        for node in self._loaded:
            self._load(node)

    def rules(self, node: Any) -> list[Rule]:
        """Its rules in a node, with their counters."""
        return [rule for rule in read_rules(node.run) if rule.table == self.table and rule.family == "ip"]

    def connections(self) -> Mapping[str, int]:
        """How many connections each back end got since the rules were loaded, from all nodes."""
        found = {str(backend): 0 for backend in self.backends}
        for node in self._loaded:
            for rule in self.rules(node):
                if rule.chain.startswith("server-"):
                    found[str(self.backends[int(rule.chain.rpartition("-")[2])])] += rule.packets or 0
        return found

    def describe(self) -> Facts:
        """The address and the back ends."""
        where = f"{self.protocol}://{self.address}:{self.port}"
        return {"name": self.name, "kind": self.kind, "address": where, "backends": [*map(str, self.backends)]}


def checked(backends: Sequence[Any], port: int) -> tuple[Backend, ...]:
    """Servers as they are given: nodes, which listen on `port`, nodes with a port, or back ends.

    Raises:
        BadInput: there are too many, one is named twice, or one cannot be a server.
    """
    found = tuple(_backend(one, port) for one in backends)
    if len(found) > _MOST_BACKENDS:
        raise BadInput(f"a service has at most {_MOST_BACKENDS} back ends, not {len(backends)}")
    if len({str(backend) for backend in found}) < len(found):
        raise BadInput(f"a back end is named twice: {', '.join(map(str, found))}")
    return found


def _backend(given: Any, port: int) -> Backend:
    if isinstance(given, Backend):
        return given
    node, number = given if isinstance(given, tuple) and len(given) == 2 else (given, port)
    if not hasattr(node, "ports"):
        raise BadInput(f"a back end is a node, or a node with a port, not {given!r}")
    if not isinstance(number, int) or not 1 <= number <= _LAST_PORT:
        raise BadInput(f"a port is a whole number from 1 to {_LAST_PORT}, not {number!r}")
    return Backend(node, number)
