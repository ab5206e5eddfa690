"""`Host`: a network namespace in which commands and functions run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from ..core import process
from ..core.errors import BadInput
from ..core.guard import Guard
from ..core.keep import Holdings
from ..core.node import Address, ControlGroup, Interface, IPNetwork, Neighbour, Route
from ..core.process import Completed, Process
from ..core.resource import Artifact, Facts, Resource
from ..core.units import duration_s
from .activation import activating
from .diagnosis import Journal, diagnose_network
from .namespace import Entrance, NetNamespace
from .nft import OwnTables, Rule, read_rules
from .port import Port
from .reading import read_addresses, read_interfaces, read_neighbours, read_routes
from .sysctl import Sysctl

if TYPE_CHECKING:
    from socket import socket

    from .dhcp import DhcpReport
    from .link import Link
    from .plan import Hop
    from .slaac import SlaacReport

__all__ = ["Host", "HostLab"]

T = TypeVar("T")

_SYSCTL = {
    # A new namespace has the machine's IPv4 settings (devconf_inherit_init_net); these decide what a host does.
    "net.ipv4.ip_forward": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv6.conf.default.accept_dad": "0",  # an address is usable at once (RFC 4862 waits for a second)
    "net.ipv6.conf.default.accept_ra": "0",
}


class HostLab(Protocol):
    """What a host needs of its lab."""

    journal: Journal

    def up(self) -> None:
        """Settle what has been declared."""

    def guard(self) -> Guard:
        """The guard in which the lab's commands run."""

    def adopt(self, child: Process) -> Process:
        """End this process with the lab."""


class Host(Resource):
    """A host: a network namespace, made when the lab settles. It implements `core.node.Node`.

    Args:
        name: its name.
        lab: what it needs of its lab.
        entrance: makes the namespace.
        auto_routes: whether the lab works out its routes.
        declared_at: the line of the test that made it.
    """

    kind = "host"
    forwards = False
    sysctl_defaults: ClassVar[Mapping[str, str]] = _SYSCTL

    def __init__(
        self, name: str, *, lab: HostLab, entrance: Entrance, auto_routes: bool = True, declared_at: str = ""
    ) -> None:
        self.name = name
        self.auto_routes = auto_routes
        self.declared_at = declared_at
        self.ports: list[Port] = []
        self.planned_routes: dict[IPNetwork, Hop] = {}
        self.vrfs: dict[str, int] = {}
        """The routing tables of its VRFs, by name."""
        self.control_group: ControlGroup | None = None
        """The control group that commands join which are started from now on; see `cgroup.Group.adopt`."""
        self.prefix: tuple[str, ...] = ()
        """The program, with its arguments, that starts each command from now on, such as ``("nice",)``."""
        self.uplink = ""
        """How it reaches what is outside of the lab; empty where it does not."""
        self.noted_faults = lab.journal.faults
        """What tests have broken on purpose in the lab, also what is over; see `core.fault`."""
        self.namespace = NetNamespace(name, entrance, self.sysctl_defaults)
        self.own_tables = OwnTables(self.run)
        self._lab = lab

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _start(self, undo: ExitStack) -> None:
        undo.enter_context(self.namespace)

    def hand_over(self, holdings: Holdings) -> None:
        """Its namespace; what runs in it is the guard's."""
        self._hand_over_parts(holdings)

    def observe(self) -> None:
        """Settle what the lab has declared."""
        self._lab.up()

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        timeout_s: float = 30.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Completed:
        """Run a command here to its end and return its status and output.

        Args:
            argv: the program and its arguments; never a shell string.
            check: whether an exit status other than 0 is an error.
            timeout_s: seconds after which the command and its process group are killed.
            input: given to it as standard input; nothing by default.
            env: variables added to the environment.
            cwd: the folder to run in; the present one by default.

        Raises:
            BadInput: `argv` is a string, empty, or not made of strings.
            CommandFailed: another exit status than 0 (with `check`), no such program, or out of time.
        """
        words = process.check_argv(argv)
        start = partial(self._lab.journal.process, kind=Process)
        options: dict[str, Any] = {"where": self.name, "popen": self._popen(), "input": input, "env": env, "cwd": cwd}
        return process.run(words, check=check, timeout_s=timeout_s, kind=start, **options)

    def spawn(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Process:
        """Start a command here in the background; it ends with the lab at the latest.

        Raises:
            BadInput: `argv` is a string, empty, or not made of strings.
            CommandFailed: no such program.
        """
        words = process.check_argv(argv)
        return self._spawn(words, self._popen(), input=input, env=env, cwd=cwd)

    def _spawn(self, argv: Sequence[str | os.PathLike[str]], popen: process.Popen, **options: Any) -> Process:
        lab, words = self._lab, process.check_argv(argv)
        return lab.adopt(lab.journal.process(words, where=self.name, kind=Process, popen=popen, **options))

    def activate(
        self, argv: Sequence[str | os.PathLike[str]], sockets: Mapping[str, socket], **options: Any
    ) -> Process:
        """Start a server here that is handed its listening sockets, which may belong to another node's network.

        It gets them as descriptors from 3 on, with LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES set (sd_listen_fds(3)).

        Args:
            argv: the program and its arguments.
            sockets: the sockets by name, 1 to 7 of them.
            options: ``input``, ``env`` and ``cwd``, as `spawn` takes them.

        Raises:
            BadInput: too few or too many sockets, or `argv` cannot be used.
        """
        words = process.check_argv(argv)
        popen = activating(self._popen(), sockets)
        return self._spawn(words, popen, **options)

    @property
    def processes(self) -> list[Process]:
        """The background processes that were started here, ended ones too."""
        return [child for child in self._lab.journal.processes if child.where == self.name]

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a Python function in a thread that lives in this host, and return its value or raise its error.

        Sockets that it opens are sockets of this host, and stay so when other threads use them.
        """
        self.observe()
        return self.namespace.call(function, *args, **kwargs)

    def namespaces(self) -> dict[str, int]:
        """The descriptors of its namespaces, by their names under /proc/PID/ns."""
        return {"net": self.namespace.fd} if self.namespace.fd >= 0 else {}

    def _popen(self) -> process.Popen:
        self.observe()
        guard = self._lab.guard()

        def popen(argv: Sequence[str], **options: Any) -> Any:
            return guard.popen([*self.prefix, *argv], (self.namespace.fd,), **options)

        return self._confined(popen)

    def _confined(self, popen: process.Popen) -> process.Popen:
        return popen if self.control_group is None else self.control_group.joining(popen)

    @property
    def interfaces(self) -> dict[str, Interface]:
        """The network interfaces now, by name."""
        self.observe()
        with self.namespace.netlink() as netlink:
            return read_interfaces(netlink)

    @property
    def addresses(self) -> list[Address]:
        """The IP addresses now."""
        self.observe()
        with self.namespace.netlink() as netlink:
            return read_addresses(netlink)

    @property
    def routes(self) -> list[Route]:
        """The routes of the main table now, IPv4 before IPv6."""
        self.observe()
        with self.namespace.netlink() as netlink:
            return read_routes(netlink)

    @property
    def neighbours(self) -> list[Neighbour]:
        """The ARP and neighbour discovery tables now."""
        self.observe()
        with self.namespace.netlink() as netlink:
            return read_neighbours(netlink)

    @property
    def sysctl(self) -> Sysctl:
        """The kernel settings of this host's network namespace, by dotted name."""
        return Sysctl(self.call, self.name)

    def nft(self, ruleset: str | os.PathLike[str]) -> None:
        """Load a rule set of nftables (nft(8)) here, all of it or nothing.

        ``flush ruleset`` in it spares the tables of the lab itself: those of services, faults and uplinks.

        Args:
            ruleset: the text, or the path of a file that has it.

        Raises:
            BadInput: nft does not understand it; the text names the line.
            Unavailable: nft is not installed.
        """
        self.observe()
        self.own_tables.load(ruleset)

    @property
    def nft_rules(self) -> list[Rule]:
        """The rules of nftables that are loaded here, with their counters."""
        return read_rules(self.run)

    def dhcp(self, link: Link | None = None, *, within: str | float = "10 s") -> DhcpReport:
        """Get an address by DHCP (RFC 2131), and use it: with its prefix, and the router as the default route.

        The lab knows the address from then on. The name servers are in the report: ``/etc/resolv.conf`` is not changed.

        Args:
            link: one that ends here, declared with ``ip=[]``; the only one by default.
            within: how long to go on asking.

        Raises:
            CheckFailed: no server has given one.
            BadInput: a link that does not end here, or several of which none was named.
        """
        from .dhcp import configure

        port = self._port_of("dhcp", link)
        self.observe()
        return configure(port, duration_s(within))

    def slaac(self, link: Link | None = None, *, within: str | float = "10 s") -> SlaacReport:
        """Get IPv6 addresses and the default route by router advertisement (RFC 4862), and wait until they are usable.

        The lab knows the addresses from then on.

        Args:
            link: one that ends here, declared with ``ip=[]``; the only one by default.
            within: how long to go on asking.

        Raises:
            CheckFailed: no router has advertised a prefix.
            BadInput: a link that does not end here, or several of which none was named.
        """
        from .slaac import configure_slaac

        port = self._port_of("slaac", link)
        self.observe()
        return configure_slaac(port, duration_s(within))

    def vrf(self, name: str, links: Sequence[Link], *, table: int | None = None) -> int:
        """Put links into a VRF: what arrives by one of them is routed only by the routes of its table (ip-vrf(8)).

        The subnets of the links, and the routes by them that the lab has planned so far, are in its table then. From
        now on the lab works out no more routes for this node.

        Args:
            name: of the VRF, and of its device.
            links: those that end here.
            table: the number of its routing table, no other VRF's; one that nothing uses by default.

        Returns:
            The number of its routing table, for ``ip route add … table``.

        Raises:
            BadInput: a link that does not end here or is in a VRF already, a name or a table that cannot be used.
            Unavailable: the kernel has no VRF, or ip is not installed.
        """
        from .vrf import make_vrf

        if not isinstance(links, list | tuple) or not links:
            raise BadInput(f"links of the VRF {name!r} is a list of links of {self.name}, not {links!r}")
        ports = [self._port_of("vrf", link) for link in links]
        self.observe()
        self.vrfs[name] = make_vrf(self, name, ports, table)
        return self.vrfs[name]

    def _port_of(self, what: str, link: Link | None) -> Port:
        ports = [port for port in self.ports if link is None or port.link is link]
        if len(ports) != 1:
            raise BadInput(
                f"{what}: {self.name} has {len(ports)} ports {'there' if link else 'to choose from'}; name a link"
            )
        return ports[0]

    def diagnose(self) -> Iterator[Artifact]:
        """Interfaces, addresses, routes, neighbours, counters, changed settings, firewall rules, sockets."""
        return diagnose_network(self.namespace)

    def describe(self) -> Facts:
        """The host and its ports."""
        ports = [{"name": port.name, "addresses": [str(ip) for ip in port.planned or ()]} for port in self.ports]
        outside = {"uplink": self.uplink} if self.uplink else {}
        return {"name": self.name, "kind": self.kind, "ports": ports, **outside}
