"""`OvsInstance`: one private Open vSwitch, that is an ovsdb-server and an ovs-vswitchd of its own.

The daemons run in a guard, whose /run is a file system of its own, and in a network namespace of their own:
database, sockets, logs, interfaces and the kernel's datapath go away with them, however this process ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from ..core import process
from ..core.errors import BadInput, InfraError, StartFailed
from ..core.guard import Guard
from ..core.keep import Holdings
from ..core.process import Completed, Process
from ..core.requirement import PRIVILEGE, Absent
from ..core.resource import Artifact, Facts, Resource
from ..core.wait import until
from . import messages
from .bridge import SWITCH_SYSCTL
from .namespace import Entrance, NetNamespace
from .netlink import NetlinkError
from .ovs_dpdk import DPDK, dpdk_settings
from .ovs_requirements import OVS, OVS_DPDK, OVS_KERNEL_DATAPATH, OVS_VSWITCHD, OVSDB_SERVER, OVSDB_TOOL, TUN, ovs_tool
from .ovs_rows import make_bridge
from .ovs_rpc import Operation, OvsError, RpcClient, appctl, mapping, set_of, transact
from .reading import read_interfaces

__all__ = ["DATAPATHS", "DirtyInstance", "OvsInstance"]

DATAPATHS = ("netdev", "system")
"""The userspace datapath, and the kernel's (ovs-vswitchd.conf.db(5), column datapath_type of table Bridge)."""

_RUN = "/run/openvswitch"
_ENVIRONMENT = {"OVS_RUNDIR": _RUN, "OVS_DBDIR": _RUN, "OVS_LOGDIR": _RUN}
_DPDK_VSWITCHD = f"{_RUN}/ovs-vswitchd"
_REMOTES = (f"--remote=punix:{_RUN}/db.sock", "--remote=db:Open_vSwitch,Open_vSwitch,manager_options")
_START_S = 10.0
_ANSWER_S = 10.0
_RESET_S, _RESET_PORT_S = 2.0, 0.05  # the kernel takes some 10 ms to let go of each port
_KERNEL_DATAPATH = "ovs-system"
_LEFT_OVER = 0x0F5  # the interface group of what a lab has left behind
_ROOT_TABLES = ("QoS", "Queue", "Flow_Sample_Collector_Set")  # the other tables empty themselves with the bridges
_PRISTINE: Mapping[str, object] = {
    "bridges": set_of(()),
    "datapaths": mapping({}),
    "external_ids": mapping({}),
    "manager_options": set_of(()),
    "ssl": set_of(()),
    "system_type": set_of(()),
    "system_version": set_of(()),
}
_MUST_BE_EMPTY = (*_ROOT_TABLES, "Bridge", "Port", "Interface", "Mirror", "Controller", "Manager", "Datapath", "SSL")


class DirtyInstance(InfraError):
    """An instance cannot be made as good as new; it is stopped, and another one takes its place."""


class OvsInstance(Resource):
    """A private Open vSwitch, without bridges.

    Args:
        name: for messages and thread names.
        entrance: makes its network namespace.
        datapath: ``"netdev"`` (userspace), ``"system"`` (the kernel's) or ``"dpdk"`` (userspace, with DPDK).
        namespace: where it runs, which stays; by default in a network namespace of its own.
    """

    requires = (PRIVILEGE, *OVS)

    def __init__(
        self, name: str, entrance: Entrance, datapath: str = "netdev", namespace: NetNamespace | None = None
    ) -> None:
        if datapath not in (*DATAPATHS, DPDK):
            raise BadInput(f"no datapath {datapath!r}: allowed are {' and '.join(map(repr, DATAPATHS))}")
        self.name = name
        self.datapath = datapath
        self.datapath_type = "netdev" if datapath == DPDK else datapath
        self.settings = dpdk_settings() if datapath == DPDK else {}
        """What the daemons are told before anything else (column other_config of table Open_vSwitch)."""
        self.limit = ""
        """What bridges lack on this machine, and the remedy."""
        self.changed = ""
        """What a test did that cannot be taken back; such an instance is not used again."""
        self._own_namespace = namespace is None
        self.namespace = NetNamespace(name, entrance, SWITCH_SYSCTL) if namespace is None else namespace
        self.control: RpcClient | None = None
        """The control socket of ovs-vswitchd (ovs-appctl(8))."""
        self._daemons: dict[str, Process] = {}

    def _start(self, undo: ExitStack) -> None:
        if self.datapath == "system":
            OVS_KERNEL_DATAPATH.demand()
        elif self.datapath == DPDK:
            OVS_DPDK.demand()
            TUN.demand()
        elif isinstance(missing := TUN.probe(), Absent):
            self.datapath_type = "dummy"  # the same forwarding code, which makes no TAP devices
            self.limit = f"a bridge has no local interface ({missing.why}; {missing.remedy})"
        if self._own_namespace:
            undo.enter_context(self.namespace)
        self._netlink = self.namespace.netlink()  # kept: `reset` may run while the entrance is busy with a lab
        undo.callback(self._netlink.close)
        self.guard = undo.enter_context(Guard(self.name, private=("/run",)))
        os.mkdir(self._outside(_RUN))
        self.run([OVSDB_TOOL.path(), "create"])
        self.database = RpcClient(self._outside(f"{_RUN}/db.sock"), "ovsdb-server", _ANSWER_S)
        undo.callback(self.database.close)
        self._daemon(undo, "ovsdb-server", [OVSDB_SERVER.path(), *_REMOTES], self.database.connect)
        row = {"other_config": mapping(self.settings)}
        transact(self.database, {"op": "insert", "table": "Open_vSwitch", "row": row})
        argv = [self._vswitchd(), f"unix:{_RUN}/db.sock", *self._options()]
        undo.callback(self._close_control)
        self._daemon(undo, "ovs-vswitchd", argv, self._connect_control)

    def hand_over(self, holdings: Holdings) -> None:
        """Its namespace and its guard, and the daemons in it."""
        self._hand_over_parts(holdings)
        holdings.taken += [child.let_go for child in self._daemons.values()]

    def _vswitchd(self) -> str:
        """The program; the tools know its sockets by its name, which DPDK's gets from a link."""
        if self.datapath != DPDK:
            return OVS_VSWITCHD.path()
        os.symlink(OVS_DPDK.path(), self._outside(_DPDK_VSWITCHD))
        return _DPDK_VSWITCHD

    def _options(self) -> list[str]:
        options = [] if self.datapath == "system" else ["--disable-system"]
        return [*options, "--enable-dummy"] if self.datapath_type == "dummy" else options

    def _outside(self, path: str) -> str:
        return self.guard.root + path

    def _daemon(self, undo: ExitStack, name: str, argv: Sequence[str], ready: Callable[[], bool]) -> None:
        options = ["--pidfile", f"--log-file={_RUN}/{name}.log", "-vconsole:off", "-vsyslog:off", "--no-chdir"]
        child = Process([*argv, *options], where=self.name, popen=self._popen, env=_ENVIRONMENT)
        undo.callback(child.close)
        self._daemons[name] = child

        def up() -> bool:
            if not child.running:
                raise StartFailed(f"{name} ended with status {child.returncode}\n{self._last_words(name)}")
            return ready()

        until(up, within_s=_START_S, what=f"{name} is up", last_words=lambda: self._last_words(name))

    def _last_words(self, name: str) -> str:
        text = self._daemons[name].stderr + self.log(name)
        return "\n".join(f"  {name}  {line}" for line in text.splitlines()[-10:])

    def _connect_control(self) -> bool:
        try:
            with open(self._outside(f"{_RUN}/ovs-vswitchd.pid"), encoding="ascii") as pid:
                path = self._outside(f"{_RUN}/ovs-vswitchd.{pid.read().strip()}.ctl")
        except FileNotFoundError:
            return False
        self.control = RpcClient(path, "ovs-vswitchd", _ANSWER_S)
        return self.control.connect()

    def _close_control(self) -> None:
        if self.control is not None:
            self.control.close()

    def _popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return self.guard.popen(argv, (self.namespace.fd,), **options)

    @property
    def running(self) -> bool:
        """Whether both daemons live."""
        return self.started and all(child.running for child in self._daemons.values())

    @property
    def ailing(self) -> str:
        """Which daemon does not work, and how that is seen; "" where both may."""
        for name, child in self._daemons.items():
            if (status := child.returncode) is not None:
                return f"{name} has ended with status {status}"
            with suppress(OSError), open(f"/proc/{child.pid}/stat", encoding="ascii") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "T":  # proc(5)
                    return f"{name} is stopped (SIGSTOP)"
        return ""

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the daemons, by name, as the machine sees them."""
        return {name: child.pid for name, child in self._daemons.items()}

    def log(self, name: str) -> str:
        """The log of one daemon since the instance was last made as good as new."""
        try:
            with open(self._outside(f"{_RUN}/{name}.log"), encoding="utf-8", errors="replace") as log:
                return log.read()
        except OSError:
            return ""

    def run(self, argv: Sequence[str | os.PathLike[str]], *, check: bool = True, timeout_s: float = 30.0) -> Completed:
        """Run a command among the instance's processes: the tools of Open vSwitch find its sockets by themselves."""
        return process.run(argv, check=check, timeout_s=timeout_s, where=self.name, popen=self._popen, env=_ENVIRONMENT)

    def tool(self, program: str, argv: Sequence[str], *, check: bool = True, timeout_s: float = 30.0) -> Completed:
        """Run ``ovs-vsctl``, ``ovs-ofctl`` or ``ovs-appctl`` with the arguments `argv`.

        Raises:
            BadInput: `argv` is a string, or not made of strings.
            CommandFailed: it refused (with `check`), or ran out of time.
        """
        words = process.check_argv(argv)
        return self.run([ovs_tool(program).path(), *words], check=check, timeout_s=timeout_s)

    def appctl(self, command: str, *arguments: str) -> str:
        """One command of ovs-appctl(8) to ovs-vswitchd by way of its control socket, without a process."""
        assert self.control is not None
        return appctl(self.control, command, *arguments)

    def settle_datapath(self) -> None:
        """Drop the flows that the datapath has cached, so that changes apply to the next packet and counters are exact.

        A daemon that does not answer is no error here: who has asked for something else is told so by that.
        """
        with contextlib.suppress(OvsError):
            self.appctl("revalidator/purge")

    def commit(self, *operations: Operation) -> list[dict[str, Any]]:
        """Change the database, and wait until ovs-vswitchd has done what it says.

        Raises:
            OvsError: the database refused it, or ovs-vswitchd does not follow.
        """
        number, results = self.send(operations)
        self.follow(number)
        return results

    def send(self, operations: Sequence[Operation]) -> tuple[int, list[dict[str, Any]]]:
        """Change the database; returns the number of the change, for `follow`, and the operations' results.

        Raises:
            OvsError: the database refused it.
        """
        count = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        read = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}
        *results, _, row = transact(self.database, *operations, count, read)
        if not row["rows"]:
            raise OvsError("the database has no row in the table Open_vSwitch: a test has deleted it")
        return row["rows"][0]["next_cfg"], results

    def follow(self, number: int, within_s: float = _ANSWER_S) -> None:
        """Wait until ovs-vswitchd has done what a change says.

        Raises:
            OvsError: it does not follow.
        """
        done = {
            "op": "wait",
            "table": "Open_vSwitch",
            "where": [["cur_cfg", "<", number]],
            "columns": [],
            "until": "==",
            "rows": [],
            "timeout": int(within_s * 1000),
        }
        try:
            transact(self.database, done, timeout_s=within_s + 1)
        except OvsError as error:
            raise OvsError(
                f"ovs-vswitchd does not follow its database: {error}\n{self._last_words('ovs-vswitchd')}"
            ) from error

    def warm_up(self) -> None:
        """Have ovs-vswitchd make its first bridge, which takes 0.1 s more than any later one, and take it away."""
        self.commit(*make_bridge("warm-up", self.datapath_type))
        self.reset()

    def reset(self) -> None:
        """Make the instance as good as new: no bridges, settings, interfaces or log lines of the lab that had it.

        Raises:
            DirtyInstance: it cannot be; nobody may use it again.
        """
        try:
            if not self.running:
                raise DirtyInstance(f"{self.name}: a daemon has ended")
            if self.changed:
                raise DirtyInstance(f"{self.name}: {self.changed} cannot be taken back")
            self._reset()
        except (InfraError, OSError) as error:
            if isinstance(error, DirtyInstance):
                raise
            raise DirtyInstance(f"{self.name}: {error}") from error

    def _reset(self) -> None:
        left = self._left_interfaces()
        within_s = _RESET_S + _RESET_PORT_S * len(left)
        if _KERNEL_DATAPATH in left:
            self.appctl("dpctl/flush-conntrack", f"system@{_KERNEL_DATAPATH}")  # the namespace's own, it would stay
        read = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["other_config"]}
        clear = [{"op": "delete", "table": table, "where": []} for table in _ROOT_TABLES]
        row = {**_PRISTINE, "other_config": mapping(self.settings)}
        pristine = {"op": "update", "table": "Open_vSwitch", "where": [], "row": row}
        number, results = self.send([read, pristine, *clear])
        until(self._no_interfaces, within_s=within_s, what="the lab's interfaces are gone")
        self.follow(number, within_s)
        settings = dict(results[0]["rows"][0]["other_config"][1])  # ["map", pairs]
        if settings != self.settings:
            raise DirtyInstance(f"{self.name}: other_config {settings} may have had effects that stay")
        tables = [{"op": "select", "table": table, "where": [], "columns": ["_uuid"]} for table in _MUST_BE_EMPTY]
        for table, found in zip(_MUST_BE_EMPTY, transact(self.database, *tables), strict=True):
            if found["rows"]:
                raise DirtyInstance(f"{self.name}: table {table} still has rows")
        for name in self._daemons:
            os.truncate(self._outside(f"{_RUN}/{name}.log"), 0)

    def _left_interfaces(self) -> dict[str, int]:
        found = read_interfaces(self._netlink, fresh=False)
        return {name: item.index for name, item in found.items() if name != "lo"}

    def _no_interfaces(self) -> bool:
        if not (left := self._left_interfaces()):
            return True
        requests = [(messages.set_group(index, _LEFT_OVER), f"group {name}") for name, index in left.items()]
        try:
            self._netlink.request([*requests, (messages.delete_group(_LEFT_OVER), "delete what the lab has left")])
        except NetlinkError as error:
            if error.errno not in (errno.ENODEV, errno.EOPNOTSUPP):  # ovs-vswitchd itself deletes some of them
                raise
        return False

    def diagnose(self) -> Iterator[Artifact]:
        """The logs of the daemons."""
        for name, child in self._daemons.items():
            yield Artifact(f"{self.name}-{name}.txt", child.stderr + self.log(name))

    def describe(self) -> Facts:
        """What it is and where its daemons are."""
        facts = {"name": self.name, "datapath": self.datapath, "datapath_type": self.datapath_type}
        return {**facts, "limit": self.limit, "pids": self.pids}
