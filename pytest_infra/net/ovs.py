"""`OvsBridge`: an Open vSwitch bridge in a private Open vSwitch (ovs-vswitchd(8))."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import BadInput, InfraError, StartFailed
from ..core.keep import Holdings
from ..core.process import Completed, check_argv
from ..core.report import as_json
from ..core.requirement import PRIVILEGE, Requirement
from ..core.resource import Artifact, Facts
from .offload import set_transmit_checksum
from .ovs_features import BridgeSettings, OvsFeatures
from .ovs_flows import FdbEntry, Flow, parse_fdb, parse_flows
from .ovs_instance import DATAPATHS, OvsInstance
from .ovs_openflow import OvsOpenFlow
from .ovs_pool import OvsPool
from .ovs_requirements import OVS
from .ovs_rows import add_ports, make_bridge, vlan_columns
from .ovs_rpc import Operation, members, transact
from .ovs_settings import read_settings
from .port import Port
from .switch import Switch

if TYPE_CHECKING:
    from .host import Host

__all__ = ["OvsBridge"]

_VERSIONS = "OpenFlow10,OpenFlow11,OpenFlow12,OpenFlow13,OpenFlow14,OpenFlow15"
_READS = ("show", "list", "list-commands", "version", "trace", "dump-flows", "rxq-show", "stats-show", "read-counter",
          "pmd-stats-show", "pmd-rxq-show", "pmd-perf-show", "pmd-stats-clear", "get-mempool-info")  # fmt: skip
_CHANGES = ("add", "bundle", "clear", "create", "del", "destroy", "insert", "mod", "remove", "replace", "set")
_OFTEN_EMPTY = ("groups", "meters")  # the answer of a switch that has none is a line that says what was asked
_MOST_TRACKED = 8  # how often a packet may come to connection tracking in one bridge
_OF_ONE_BRIDGE = ("fdb/", "mdb/", "bridge/", "stp/", "rstp/", "bond/", "lacp/", "cfm/", "bfd/")


class OvsBridge(OvsOpenFlow, OvsFeatures, Switch):
    """An Open vSwitch bridge. Without flows and controller it switches by MAC address (the action NORMAL).

    Args:
        name: the bridge's name.
        pool: lends the instance.
        lab: the lab it belongs to: all bridges of a lab with the same datapath are in one instance.
        datapath: ``"netdev"`` for the userspace datapath, ``"system"`` for the kernel's.
        private: an instance of its own, which ends with the lab: for tests that kill or reconfigure the daemons.
        host: the host in whose network namespace its instance runs; None for one of its own.
        settings: spanning tree and controller.
        observe: settles what the lab has declared.
        declared_at: the line of the test that made it.

    Raises:
        BadInput: no such datapath.
    """

    kind = "ovs"
    requires: ClassVar[tuple[Requirement, ...]] = (PRIVILEGE, *OVS)
    instance: OvsInstance

    def __init__(
        self,
        name: str,
        *,
        pool: OvsPool,
        lab: object,
        datapath: str = "netdev",
        private: bool = False,
        host: Host | None = None,
        settings: BridgeSettings | None = None,
        observe: Callable[[], None],
        declared_at: str = "",
    ) -> None:
        super().__init__(name, observe=observe, declared_at=declared_at)
        if datapath not in DATAPATHS:
            raise BadInput(f"switch {name}: no datapath {datapath!r}: allowed are {' and '.join(map(repr, DATAPATHS))}")
        self.datapath = datapath
        self.private = private
        self.host = host
        self.settings = settings or BridgeSettings()
        self._pool = pool
        self._lab = lab
        self._change = 0

    @property
    def daemons_pid(self) -> int:
        """A process that sees the daemons' sockets and /proc; 0 before they are there."""
        return self.instance.guard.pid if self.started and self.instance.started else 0

    def siblings(self) -> Iterable[Switch]:
        """The lab's bridges in the same instance, this one among them."""
        switches = getattr(self._lab, "switches", {self.name: self}).values()
        if self.host is not None:
            return self._in_same_host(switches)
        if self.private:
            return (self,)
        mine = [one for one in switches if isinstance(one, OvsBridge) and not (one.private or one.host)]
        return [one for one in mine if one.instance_kind == self.instance_kind]

    @property
    def instance_kind(self) -> str:
        """The kind of instance that it needs."""
        return self.datapath

    def _start(self, undo: ExitStack) -> None:
        if self.host is not None:
            self.instance = self._instance_in(self.host, undo)
        elif self.private:
            self.instance = undo.enter_context(OvsInstance(self.name, self._pool.entrance, self.instance_kind))
        else:
            self.instance = self._pool.acquire(self._lab, self.instance_kind)
            undo.callback(self._pool.release, self.instance)
        self.namespace = self.instance.namespace
        rows = make_bridge(self.name, self.instance.datapath_type, **self.settings.rows())
        self._change, _ = self.instance.send(rows)  # Open vSwitch makes it while the lab makes links

    def _instance_in(self, host: Host, undo: ExitStack) -> OvsInstance:
        """The instance that runs in a host: one for all its bridges."""
        for one in self.siblings():
            if one is not self and one.started and isinstance(one, OvsBridge):
                return one.instance
        return undo.enter_context(OvsInstance(host.name, self._pool.entrance, self.datapath, host.namespace))

    def hand_over(self, holdings: Holdings) -> None:
        """The instance; one of the pool's is not the pool's any more."""
        self.instance.hand_over(holdings)
        if not self.private and self.host is None:
            holdings.taken.append(lambda: self._pool.give_away(self.instance))

    def attach(self, ports: Sequence[Port]) -> None:
        """Add ports to the bridge, all in one transaction, and wait until they are there.

        A port's OpenFlow number is its place among the switch's ports: ``sw1-p1`` is port 1.
        """
        numbers = {port.name: self.ports.index(port) + 1 for port in ports}
        if self.datapath == "netdev":
            for port in ports:
                far = port.peer
                set_transmit_checksum(partial(self._pool.entrance.within, far.node.namespace.fd), far.name, False)
        columns = {port.name: self.interface_columns(port) for port in ports}
        bonds: dict[str, list[str]] = {}
        settings = {port.name: vlan_columns(port.vlans) for port in ports}
        for port in ports:
            if port.bond is not None:
                bond = port.bond.name_at(self.name)
                bonds.setdefault(bond, []).append(port.name)
                settings[bond] = {**vlan_columns(port.vlans), **port.bond.columns(bonds[bond])}
        self._change, _ = self.instance.send(add_ports(self.name, numbers, columns, settings, bonds))
        self._follow([self.name, *numbers])

    def interface_columns(self, port: Port) -> Mapping[str, object]:
        """What the row of a port's interface says besides its name (table Interface)."""
        del port  # an interface of the kernel
        return {}

    def _follow(self, names: Sequence[str]) -> None:
        """Wait until Open vSwitch has done what the database says."""
        self.instance.follow(self._change)
        self._change = 0
        self._check(names)

    def _check(self, names: Sequence[str]) -> None:
        wanted = set(names)
        for item in self._interface_rows():
            if item["name"] in wanted and (item["error"] or item["ofport"] in (-1, [])):
                said = item["error"] or "it gives no reason"
                log = "\n".join(self._warnings(item["name"]))
                raise StartFailed(f"Open vSwitch does not take {item['name']} as a port of {self.name}: {said}\n{log}")

    def _warnings(self, name: str) -> list[str]:
        """The latest lines of the log that warn, or speak of an interface."""
        lines = self.instance.log("ovs-vswitchd").splitlines()
        return [line for line in lines if re.search(rf"\|(WARN|ERR|EMER)\||\b{re.escape(name)}\b", line)][-8:]

    def _numbers(self) -> dict[str, int]:
        return {row["name"]: row["ofport"] for row in self._interface_rows() if isinstance(row["ofport"], int)}

    def _interface_rows(self) -> list[dict[str, Any]]:
        """The interfaces of this bridge: others of the same instance have the same OpenFlow numbers."""
        wanted = {"Bridge": ["name", "ports"], "Port": ["_uuid", "interfaces"]}
        wanted["Interface"] = ["_uuid", "name", "ofport", "error"]
        read: list[Operation] = [
            {"op": "select", "table": table, "where": [], "columns": columns} for table, columns in wanted.items()
        ]
        bridges, ports, interfaces = (result["rows"] for result in transact(self.instance.database, *read))
        mine = {one for row in bridges if row["name"] == self.name for one in members(row["ports"])}
        its = {one for row in ports if row["_uuid"][1] in mine for one in members(row["interfaces"])}
        rows = [row for row in interfaces if row["_uuid"][1] in its]
        return [{**row, "error": row["error"] if isinstance(row["error"], str) else ""} for row in rows]

    def _settle(self) -> None:
        self.observe()
        if self._change:
            self._follow([self.name])

    def vsctl(self, argv: Sequence[str], *, check: bool = True, timeout_s: float = 30.0) -> Completed:
        """Run ``ovs-vsctl`` with these arguments on the lab's own database (ovs-vsctl(8)).

        Raises:
            BadInput: `argv` is not a list of strings.
            CommandFailed: it refused (with `check`), or ran out of time.
        """
        return self._tool("ovs-vsctl", argv, check, timeout_s)

    def ofctl(self, argv: Sequence[str], *, check: bool = True, timeout_s: float = 30.0) -> Completed:
        """Run ``ovs-ofctl`` with these arguments (ovs-ofctl(8)), as in ``sw1.ofctl(["add-flow", "sw1", "…"])``.

        A change applies to the next packet: what the datapath has cached of older flows is dropped.

        Raises:
            BadInput: `argv` is not a list of strings.
            CommandFailed: it refused (with `check`), or ran out of time.
        """
        return self._tool("ovs-ofctl", argv, check, timeout_s)

    def appctl(self, argv: Sequence[str], *, check: bool = True, timeout_s: float = 30.0) -> Completed:
        """Run ``ovs-appctl`` with these arguments (ovs-appctl(8)); it speaks to ovs-vswitchd.

        An instance that was told something else than to show or to change its bridges serves no other lab.

        Raises:
            BadInput: `argv` is not a list of strings.
            CommandFailed: it refused (with `check`), or ran out of time.
        """
        return self._tool("ovs-appctl", argv, check, timeout_s)

    def _tool(self, program: str, argv: Sequence[str], check: bool, timeout_s: float) -> Completed:
        words = check_argv(argv)
        self._settle()
        if program == "ovs-appctl" and not _leaves_no_trace(words):
            self.instance.changed = f"ovs-appctl {' '.join(words)}"
        done = self.instance.tool(program, words, check=check, timeout_s=timeout_s)
        if any(word.startswith(_CHANGES) for word in words):
            self.instance.settle_datapath()
        return done

    def show(self) -> str:
        """The configuration of the lab's Open vSwitch, for people (``ovs-vsctl show``)."""
        return self.vsctl(["show"]).stdout

    def flows(self, table: int | None = None) -> list[Flow]:
        """The flows of one OpenFlow table, or of all, with their counters now.

        Open vSwitch itself brings the counters up to date twice a second; here the datapath is made to hand them
        over first, for which it gives up the flows that it has cached.

        Raises:
            CommandFailed: the bridge does not answer, or allows no version of OpenFlow that ovs-ofctl speaks.
        """
        self._settle()
        self.instance.settle_datapath()
        which = [] if table is None else [f"table={table}"]
        return parse_flows(self._openflow("dump-flows", *which))

    def _openflow(self, command: str, *arguments: str) -> str:
        return self.instance.tool("ovs-ofctl", ["-O", _VERSIONS, "--names", command, self.name, *arguments]).stdout

    def add_flow(self, flow: Flow | str) -> None:
        """Add a flow, as ``ovs-ofctl add-flow`` writes it: ``"priority=100,icmp,actions=drop"`` (ovs-ofctl(8)).

        Raises:
            CommandFailed: Open vSwitch does not understand it.
        """
        self._settle()
        self._openflow("add-flow", str(flow))
        self.instance.settle_datapath()

    @property
    def fdb(self) -> list[FdbEntry]:
        """The MAC addresses that the bridge has learned, now (``ovs-appctl fdb/show``)."""
        self._settle()
        names = {str(row["ofport"]): row["name"] for row in self._interface_rows()}
        return parse_fdb(self.instance.appctl("fdb/show", self.name), {**names, "LOCAL": self.name})

    def trace(self, flow: str, *, tracked: str = "") -> str:
        """What the bridge would do to a packet, table by table (``ovs-appctl ofproto/trace``).

        Args:
            flow: the packet, such as ``"in_port=sw1-p1,icmp,nw_dst=192.168.1.20"`` (ovs-fields(7)).
            tracked: how connection tracking finds it, such as ``"trk,est,rpl"``; by default that it is new.

        Raises:
            OvsError: Open vSwitch does not understand it.
        """
        self._settle()
        options = ["--ct-next", tracked] * _MOST_TRACKED if tracked else []
        return self.instance.appctl("ofproto/trace", "--names", self.name, flow, *options)

    def describe(self) -> Facts:
        """The bridge, its ports and its datapath."""
        facts = {**super().describe(), "datapath": self.datapath, "private": self.private}
        return {**facts, "instance": self.instance.describe()} if self.started else facts

    def diagnose(self) -> Iterator[Artifact]:
        """Configuration, flows as cached and as set, MAC table, port statistics, the logs of both daemons."""
        if not hasattr(self, "instance"):
            return
        ailing = self.instance.ailing
        asked: dict[str, Callable[[], str]] = {
            "show": lambda: self.instance.tool("ovs-vsctl", ["show"], timeout_s=5).stdout,
            "datapath-flows": lambda: self.instance.appctl("dpctl/dump-flows", "-m"),
            "flows": lambda: self._openflow("dump-flows"),
            "groups": partial(self._openflow, "dump-groups"),
            "meters": partial(self._openflow, "dump-meters"),
            "fdb": lambda: self.instance.appctl("fdb/show", self.name),
            "ports": lambda: self._openflow("dump-ports"),
        }
        sources: dict[str, Callable[[], str]] = {
            **({name: lambda: f"not asked: {ailing}\n" for name in asked} if ailing else asked),
            "ovs-vswitchd": lambda: self.instance.log("ovs-vswitchd"),
            "ovsdb-server": lambda: self.instance.log("ovsdb-server"),
        }
        for what, read in sources.items():
            if (text := _text_or_error(read)).count("\n") > 1 or what not in _OFTEN_EMPTY:
                yield Artifact(f"{self.name}-{what}.txt", text)
        with suppress(InfraError, OSError):  # the other artifacts say what is wrong with it
            yield Artifact(f"{self.name}-settings.json", as_json(read_settings(self.instance.database, self.name)))
        yield from super().diagnose()


def _text_or_error(read: Callable[[], str]) -> str:
    try:
        return read()
    except (InfraError, OSError) as error:
        return f"could not be read: {error}\n"


def _leaves_no_trace(argv: Sequence[str]) -> bool:
    """Whether an ovs-appctl command only reads, or changes something that goes with the bridge."""
    words = [word for word in argv if not word.startswith("-")]
    return bool(words) and (words[0].rpartition("/")[2] in _READS or words[0].startswith(_OF_ONE_BRIDGE))
