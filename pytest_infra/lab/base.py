"""`LabBase`: where the parts of a lab meet: what was declared is ordered, settled, looked at and undone here."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from ..core.caller import caller_line
from ..core.errors import BadInput, InfraError, StartFailed, Unavailable
from ..core.evidence import Artifact, attach, says_something
from ..core.guard import Guard
from ..core.naming import MacPool, interface_name, node_name
from ..core.process import Process
from ..core.progress import taking_long
from ..core.resource import Facts, Resource
from ..core.suggest import Named
from ..net.diagnosis import Journal
from ..net.entries import entries
from ..net.host import Host
from ..net.link import Link
from ..net.plan import AddressPlan, segments_of
from ..net.plan_services import Virtual, plan_all_routes
from ..net.port import Port
from ..net.settle import forget_unresolved, not_made, restore, settle
from ..net.switch import Switch
from ..services import LabServices

if TYPE_CHECKING:
    from ..container.container import Container
    from ..vm.vm import VirtualMachine

__all__ = ["Early", "LabBase", "LabNode", "Late"]

LabNode: TypeAlias = "Host | Container | VirtualMachine"
"""What a lab's nodes are; each domain adds its own."""

_MANY = 200  # nodes that take a while

T = TypeVar("T")
H = TypeVar("H", bound=Host)
S = TypeVar("S", bound=Switch)


class Early(AbstractContextManager[object], Protocol):
    """What is made before the links, in the order of declaration: hosts, switches, and what gives others a network."""

    kind: str
    name: str
    declared_at: str


class Late(AbstractContextManager[object], Protocol):
    """What starts once the links are up, and takes a while to be ready."""

    def await_ready(self) -> None:
        """Wait until it can be used."""


class LabBase(Resource):
    """What is declared is recorded at once and made at the first observation, all of it together.

    Each part of a lab (`lab.network`, `lab.containers`, …) is a subclass with the methods that declare its things:
    it adds what is made before the links to `_new`, and what starts once they are up to `_new_late`.

    Args:
        name: the lab's name, for people.
        services: what the labs of a session share.
    """

    def __init__(self, name: str, services: LabServices) -> None:
        self.name = name
        self.nodes: dict[str, LabNode] = Named(f"the lab {name}")
        self.switches: dict[str, Switch] = Named(f"the lab {name}")
        self.links: list[Link] = []
        self._services = services
        self._lease = services.lease
        self._macs = MacPool(name.encode())
        self._addresses = AddressPlan(name.encode(), ipv6=os.path.exists("/proc/net/if_inet6"))
        self._numbers: defaultdict[str, count[int]] = defaultdict(lambda: count(1))
        self._new: list[Early] = []
        self._new_links: list[Link] = []
        self._new_late: list[Late] = []
        self._stale = False
        self._bonds = 0
        self._guard: Guard | None = None
        self.journal = Journal(services.recorder)
        self._failure = ""
        self._began = False
        self._settling = False

    def __repr__(self) -> str:
        return f"<Lab {self.name}: {len(self.nodes)} nodes, {len(self.switches)} switches, {len(self.links)} links>"

    def _start(self, undo: ExitStack) -> None:
        if self._began:
            raise StartFailed(f"the lab {self.name} has ended, and cannot be used again; make another one")
        self._began = True
        self._stack = undo
        self._entry: int | None = None
        self._services.labs.add(self)
        undo.callback(self._services.labs.discard, self)
        undo.callback(self._withdraw)

    def _as_a_whole(self, function: Callable[[], None]) -> None:
        self._services.entrance.call(function)  # one after the other with whatever else is made or ended

    # -- names -----------------------------------------------------------------------------------------------

    def _not_ended(self) -> None:
        if self._began:
            self._alive()

    def _check_mine(self, end: object) -> None:
        name = getattr(end, "name", "")
        if end is None or (end is not self.nodes.get(name) and end is not self.switches.get(name)):
            raise BadInput(
                f"{end!r} is not a node of the lab {self.name}; make one with its host, router, container, "
                "bridge or ovs"
            )
        self._not_ended()
        if outside := getattr(end, "docker_network", None):
            raise BadInput(f"{end!r} is on Docker's network {outside!r}; a link needs one on the lab's, network=None")

    def _name(self, name: str | None, prefix: str) -> str:
        self._not_ended()
        if name is None:
            free = (chosen for number in self._numbers[prefix] if not self._named(chosen := f"{prefix}{number}"))
            return next(free)
        node_name(name)
        if taken := self._named(name):
            raise BadInput(f"the name {name!r} is taken in this lab (declared at {taken.declared_at})")
        return name

    def _named(self, name: str) -> LabNode | Switch | None:
        return self.nodes.get(name) or self.switches.get(name)

    def _switch_name(self, name: str | None) -> str:
        chosen = self._name(name, "sw")
        if interface_name(chosen) == "lo":
            raise BadInput("a switch cannot be called 'lo': its device has its name, and that one is the loopback")
        return chosen

    def _of_hosts(self, routes: bool = True) -> dict[str, Any]:
        services, line = self._services, caller_line()
        return {"lab": self, "entrance": services.entrance, "auto_routes": routes, "declared_at": line}

    def _add_node(self, node: H) -> H:
        self.nodes[node.name] = node
        self._new.append(node)
        return node

    def _add_switch(self, switch: S) -> S:
        self.switches[switch.name] = switch
        self._new.append(switch)
        return switch

    # -- settling ----------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Make everything that was declared and is not there yet; ready means that the first packet passes.

        Raises:
            BadInput: subnets overlap, or one is full; nothing has been made.
            StartFailed: something could not be made; the text names the line that declared it.
            Unavailable: the machine lacks something.

        After an error the whole lab has been undone, and cannot be used again.
        """
        self._alive()
        if not (self._new or self._new_links or self._new_late or self._stale):
            return
        try:
            self._services.entrance.call(self._settle)
            self._start_late()
            self._follow()
        except BaseException as error:
            if says_something(error):
                attach(error, self.diagnose())
            self._failure = str(error) or type(error).__name__
            self.stop()
            raise

    def _start_late(self) -> None:
        """After the links: the first process of a container or guest finds its network as it will be."""
        try:
            while self._new_late:
                late = self._new_late.pop(0)
                self._stack.enter_context(late)
                late.await_ready()
                self._publish()
        except OSError as error:
            raise not_made(f"the lab {self.name}", error) from error

    def _follow(self) -> None:
        """What is up takes account of what was declared since."""

    def _virtual_addresses(self) -> Iterable[Virtual]:
        """The addresses that no port has, and that routes are planned for."""
        return ()

    def _settle(self) -> None:
        """Runs in the entrance's thread, which takes one lab, and one test thread, after the other."""
        if self._settling or not (self._new or self._new_links or self._stale):
            return  # a switch that looks at itself while it is made; or another thread was first
        self._settling = True
        try:
            new, links = list(self._new), list(self._new_links)
            segments = segments_of(self.links)
            self._addresses.number(segments)
            routes = plan_all_routes(segments, self._virtual_addresses())
            what = f"making {len(new)} nodes of the lab {self.name}"
            with taking_long(what) if len(new) >= _MANY else nullcontext():
                for resource in new:
                    self._make(resource)
                settle([node for node in new if isinstance(node, Host)], links, routes)
            for link in links:
                if link.impairments:
                    link.apply(link)
            self._publish()
            del self._new[: len(new)], self._new_links[: len(links)]
            self._stale = False
        except OSError as error:
            raise not_made(f"the lab {self.name}", error) from error
        finally:
            self._settling = False

    def _make(self, resource: Early) -> None:
        try:
            self._stack.enter_context(resource)
            if isinstance(resource, Host) or (isinstance(resource, Switch) and resource.host is None):
                self.journal.record(resource.namespace, self._stack)
        except (BadInput, Unavailable):
            raise
        except InfraError as error:
            what = f"{resource.kind} {resource.name}, declared at {resource.declared_at}"
            raise not_made(f"{what},", error) from error

    def _alive(self) -> None:
        if not self.started:
            why = self._failure or "it has ended, or was never started: use it in a with statement"
            raise StartFailed(f"the lab {self.name} is not up: {why}")

    def _restore(self, port: Port) -> None:
        restore(port)
        mine = {port, port.peer, *getattr(port.node, "ports", ()), *getattr(port.peer.node, "ports", ())}
        for segment in segments_of(self.links):
            if mine.intersection(segment.ports):
                forget_unresolved(segment.ports)

    def _publish(self) -> None:
        """Tell ``pytest-infra shell`` how to enter the nodes, and what the guard shows of their processes."""
        facts = entries((*self.nodes.values(), *self.switches.values()), os.getpid(), self._guard)
        self._entry = self._services.lease.publish(self.name, facts, self._entry)

    def _withdraw(self) -> None:
        if self._entry is not None:
            self._services.lease.withdraw(self._entry)

    # -- what nodes need ---------------------------------------------------------------------------------------

    def guard(self) -> Guard:
        """The guard in which the lab's commands run; made at the first command."""
        return self._guard or self._services.entrance.call(self._make_guard)

    def _make_guard(self) -> Guard:
        self._alive()
        if self._guard is None:
            self._guard = self._stack.enter_context(Guard(f"infra-{self.name}"))
            if not self._settling:
                self._publish()
        return self._guard

    def adopt(self, child: Process) -> Process:
        """End a process with the lab, and return it."""
        self._services.entrance.call(self._adopt, child)
        return child

    def _adopt(self, child: Process) -> None:
        if not self.started:
            child.close()
        self._alive()
        self.journal.processes.append(child)
        self._stack.callback(child.close)

    def node(self, name: str) -> LabNode:
        """The host or router of that name.

        Raises:
            BadInput: there is none; the text lists those that there are.
        """
        if name not in self.nodes:
            raise BadInput(f"no node {name!r} in the lab {self.name}; there are {', '.join(self.nodes) or 'none'}")
        return self.nodes[name]

    def describe(self) -> Facts:
        """The lab as data: nodes, switches, links, and what is broken on purpose now."""
        return {
            "name": self.name,
            "nodes": [node.describe() for node in self.nodes.values()],
            "switches": [switch.describe() for switch in self.switches.values()],
            "links": [link.describe() for link in self.links],
            "faults": [fault.facts() for fault in self.journal.faults if fault.took_s is None],
        }

    def diagnose(self) -> Iterator[Artifact]:
        """What every node and switch has now, background processes, commands, captures."""
        return self.journal.diagnose({**self.describe(), "up": not self._new}, self.nodes, self.switches)
