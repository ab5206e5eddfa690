"""`Lab`: makes hosts, switches, routers and links, and is the one place where they are ordered and undone."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from .cgroup.lab_groups import LabGroups
from .core.caller import caller_line
from .core.errors import BadInput, InfraError, StartFailed, Unavailable
from .core.evidence import Artifact, attach, says_something
from .core.guard import Guard
from .core.naming import MacPool, interface_name, node_name
from .core.process import Process
from .core.resource import Facts
from .core.units import duration_s
from .lab_containers import LabContainers
from .net.bridge import LinuxBridge
from .net.diagnosis import Journal
from .net.entries import entries
from .net.host import Host
from .net.isolated import IsolatedHost, check_isolation
from .net.lab_captures import LabCaptures
from .net.link import Link
from .net.plan import AddressPlan, plan_routes, segments_of
from .net.port import Port
from .net.rootfs import RootedHost, check_layers
from .net.router import Router
from .net.settle import forget_unresolved, not_made, restore, settle
from .net.switch import Switch
from .net.wiring import LinkOptions, wire
from .services import LabServices

if TYPE_CHECKING:
    from .container.container import Container
    from .net.ovs import OvsBridge

__all__ = ["Lab"]

T = TypeVar("T")
H = TypeVar("H", bound=Host)
S = TypeVar("S", bound=Switch)


class Lab(LabContainers, LabGroups, LabCaptures):
    """Hosts, switches, routers and the links between them.

    What is declared is recorded at once and made at the first observation: a check, a command, a property that
    reads the kernel, or `up`. So addresses and routes are worked out from the whole, and a lab costs one batch of
    requests per namespace.

    Args:
        name: the lab's name, for people.
        services: what the labs of a session share.
    """

    def __init__(self, name: str, services: LabServices) -> None:
        self.name = name
        self.nodes: dict[str, Host | Container] = {}
        self.switches: dict[str, Switch] = {}
        self.links: list[Link] = []
        self._services = services
        self._lease = services.lease
        self._macs = MacPool(name.encode())
        self._addresses = AddressPlan(name.encode(), ipv6=os.path.exists("/proc/net/if_inet6"))
        self._numbers: defaultdict[str, count[int]] = defaultdict(lambda: count(1))
        self._new: list[Host | Switch] = []
        self._new_links: list[Link] = []
        self._new_containers: list[Container] = []
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

    # -- declaring ---------------------------------------------------------------------------------------------

    def host(
        self,
        name: str | None = None,
        *,
        isolate: Iterable[str] = (),
        rootfs: str | os.PathLike[str] | None = None,
        layers: Sequence[str | os.PathLike[str]] = (),
        clock_offset: str | float = 0,
        routes: bool = True,
    ) -> Host:
        """Declare a host.

        Args:
            name: at most 15 characters; ``h1``, ``h2``, … by default.
            isolate: what it has of its own besides its network: ``mount``, ``pid``, ``uts``, ``ipc``, ``user``,
                ``cgroup``, ``time`` (namespaces(7)).
            rootfs: the folder that is its root file system, ``"/"`` for the machine's; it is not written to.
            layers: folders laid over it, the last one on top (overlayfs). See `net.rootfs.RootedHost`.
            clock_offset: how far its monotonic clock is ahead, in whole seconds or as ``"2 h"`` (time_namespaces(7)).
            routes: whether the lab works out its routes.

        Raises:
            BadInput: the name cannot be used or is taken, an unknown isolation, or no such folder.
        """
        isolate, lowers = check_isolation(isolate), check_layers(rootfs, layers)
        options = {**self._of_hosts(routes), "isolate": isolate}
        if offset_s := round(duration_s(clock_offset)):
            options |= {"clock_offset_s": offset_s, "isolate": tuple(dict.fromkeys([*isolate, "time"]))}
        chosen = self._name(name, "h")
        if lowers:
            return self._add_node(RootedHost(chosen, lowers=lowers, **options))
        if options["isolate"]:
            return self._add_node(IsolatedHost(chosen, **options))
        return self._add_node(Host(chosen, **self._of_hosts(routes)))

    def router(self, name: str | None = None, *, routes: bool = True) -> Router:
        """Declare a router: a host that forwards between its links. The lab works out the routes of all.

        Raises:
            BadInput: the name cannot be used or is taken.
        """
        return self._add_node(Router(self._name(name, "r"), **self._of_hosts(routes)))

    def bridge(self, name: str | None = None) -> LinuxBridge:
        """Declare a switch that is a Linux bridge.

        Raises:
            BadInput: the name cannot be used or is taken.
        """
        bridge = LinuxBridge(
            self._switch_name(name),
            mac=self._macs.take(),
            entrance=self._services.entrance,
            observe=self.up,
            declared_at=caller_line(),
        )
        return self._add_switch(bridge)

    def ovs(
        self, name: str | None = None, *, datapath: str = "netdev", private: bool = False, dpdk: bool | str = False
    ) -> OvsBridge:
        """Declare a switch that is an Open vSwitch bridge.

        Args:
            name: at most 15 characters; ``sw1``, ``sw2``, … by default.
            datapath: ``netdev`` (in user space, everywhere) or ``system`` (the kernel's, where its module is).
            private: an instance of its own, for a test that kills daemons; else the lab's switches share one,
                which no other lab uses at the same time.
            dpdk: whether its ports are DPDK devices, with poll mode threads: ``True``, or the virtual device that they
                are, ``"af_packet"`` or ``"af_xdp"``. Only with the datapath ``netdev``.

        Raises:
            BadInput: the name cannot be used or is taken, or an unknown datapath or device.
        """
        from .net.ovs_dpdk_bridge import make_ovs_bridge

        options = {"pool": self._services.ovs_pool, "lab": self, "observe": self.up, "declared_at": caller_line()}
        chosen = self._switch_name(name)
        return self._add_switch(make_ovs_bridge(chosen, dpdk, datapath=datapath, private=private, **options))

    def link(
        self,
        a: Host | Switch | Container,
        b: Host | Switch | Container,
        *,
        ip: str | Sequence[str] | None = None,
        peer_ip: str | Sequence[str] | None = None,
        mtu: int = 1500,
        mac: str | None = None,
        peer_mac: str | None = None,
        name: str | None = None,
        peer_name: str | None = None,
    ) -> Link:
        """Declare a wire between two nodes, or a node and a switch, or two switches.

        `ip`, `mac` and `name` are of the first end that is not a switch, the `peer_` ones of the other end. Without an
        address it gets those that come next in the subnets of its segment, or an IPv4 and an IPv6 subnet of its own.

        Args:
            a: one end.
            b: the other end.
            ip: an address with its prefix length (``"192.168.1.10/24"``), or several; an empty list for none.
            peer_ip: the other end's.
            mtu: in bytes, 68 to 65535 (RFC 791; IPv6 needs 1280, RFC 8200).
            mac: a unicast MAC address; by default one that no other port has.
            peer_mac: the other end's.
            name: the interface's name; ``eth0``, ``eth1``, … by default, on a switch ``SWITCH-p1``, …
            peer_name: the other end's.

        Raises:
            BadInput: an address, MAC address, MTU or name cannot be used or is taken, or an end is not of this lab.
        """
        for end in (a, b):
            self._check_mine(end)
        options = LinkOptions(ip, peer_ip, mtu, mac, peer_mac, name, peer_name)
        link = wire(a, b, options, macs=self._macs, plan=self._addresses, declared_at=caller_line())
        for port in link.ports:
            port.restore = self._restore
        self.links.append(link)
        self._new_links.append(link)
        return link

    def _check_mine(self, end: object) -> None:
        name = getattr(end, "name", "")
        if end is None or (end is not self.nodes.get(name) and end is not self.switches.get(name)):
            raise BadInput(
                f"{end!r} is not a node of the lab {self.name}; make one with its host, router, container, "
                "bridge or ovs"
            )
        if outside := getattr(end, "docker_network", None):
            raise BadInput(f"{end!r} is on Docker's network {outside!r}; a link needs one on the lab's, network=None")

    def _name(self, name: str | None, prefix: str) -> str:
        if name is None:
            free = (chosen for number in self._numbers[prefix] if not self._named(chosen := f"{prefix}{number}"))
            return next(free)
        node_name(name)
        if taken := self._named(name):
            raise BadInput(f"the name {name!r} is taken in this lab (declared at {taken.declared_at})")
        return name

    def _named(self, name: str) -> Host | Container | Switch | None:
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
        if not (self._new or self._new_links or self._new_containers):
            return
        try:
            self._services.entrance.call(self._settle)
            self._start_containers()
        except BaseException as error:
            if says_something(error):
                attach(error, self.diagnose())
            self._failure = str(error) or type(error).__name__
            self.stop()
            raise

    def _start_containers(self) -> None:
        """After the links: a container's first process finds its network as it will be."""
        try:
            while self._new_containers:
                container = self._stack.enter_context(self._new_containers.pop(0))
                container.await_ready()
                self._publish()
        except OSError as error:
            raise not_made(f"the lab {self.name}", error) from error

    def _settle(self) -> None:
        """Runs in the entrance's thread, which takes one lab, and one test thread, after the other."""
        if self._settling or not (self._new or self._new_links):
            return  # a switch that looks at itself while it is made; or another thread was first
        self._settling = True
        try:
            new, links = list(self._new), list(self._new_links)
            segments = segments_of(self.links)
            self._addresses.number(segments)
            routes = plan_routes(segments)
            for resource in new:
                self._make(resource)
            settle([node for node in new if isinstance(node, Host)], links, routes)
            self._publish()
            del self._new[: len(new)], self._new_links[: len(links)]
        except OSError as error:
            raise not_made(f"the lab {self.name}", error) from error
        finally:
            self._settling = False

    def _make(self, resource: Host | Switch) -> None:
        try:
            self._stack.enter_context(resource)
            if isinstance(resource, (Host, Switch)):
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

    def node(self, name: str) -> Host | Container:
        """The host or router of that name.

        Raises:
            BadInput: there is none; the text lists those that there are.
        """
        if name not in self.nodes:
            raise BadInput(f"no node {name!r} in the lab {self.name}; there are {', '.join(self.nodes) or 'none'}")
        return self.nodes[name]

    def describe(self) -> Facts:
        """The lab as data: nodes, switches, links."""
        return {
            "name": self.name,
            "nodes": [node.describe() for node in self.nodes.values()],
            "switches": [switch.describe() for switch in self.switches.values()],
            "links": [link.describe() for link in self.links],
        }

    def diagnose(self) -> Iterator[Artifact]:
        """What every node and switch has now, background processes, commands, captures."""
        return self.journal.diagnose({**self.describe(), "up": not self._new}, self.nodes, self.switches)
