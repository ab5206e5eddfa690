"""`Group`: a control group, over version 1, version 2, or both at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core import process
from ..core.errors import BadInput, StartFailed, Unavailable
from ..core.guard import Guard
from ..core.keep import Holdings
from ..core.node import Confined
from ..core.process import Completed, Process
from ..core.resource import Artifact, Facts, Resource
from ..core.wait import until
from . import device_filter, v1, v2
from .files import flat, read, write
from .layout import V2_DEFAULT, Layout, controller_files, read_layout
from .limits import Limits, parse_limits
from .processes import home_of, join, joining, kill_all, leave, pids_in, remove_group
from .requirement import CGROUP, can_hold_groups, v2_home
from .setting import Setting
from .usage import Usage, read_usage

if TYPE_CHECKING:
    from ..core.lease import Lease

__all__ = ["Group"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_FROZEN_S = 5.0


class Group(Resource):
    """A control group: limits what its processes may use together, and counts what they have used.

    It has a folder of its own in every hierarchy that can be written; nothing else is changed, but for one thing: as
    root on version 2, the controllers that a limit or the accounting needs are switched on at the root, as any
    container engine does, and stay on.

    Args:
        name: letters, digits, ``-``, ``_`` and ``.``.
        lease: where the folders are written down before they are made.
        parent: the group to be nested in.
        limits: what `parse_limits` takes: ``memory_max="64 MiB"``, ``cpu_max=0.5``, ``pids_max=20`` …

    Raises:
        BadInput: a name or limit that cannot be.
    """

    requires = (CGROUP,)

    def __init__(self, name: str, *, lease: Lease, parent: Group | None = None, **limits: Any) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadInput(f"a group's name is 1 to 64 letters, digits, '-', '_' and '.', not {name!r}")
        self.name = name
        self.limits: Limits = parse_limits(**limits)
        self.parent = parent
        self.layout = Layout()
        self.folders: dict[str, str] = {}
        """Its folder for each controller; ``""`` is the version 2 group, which has a controller or only events."""
        self.joined_late: list[int] = []
        """Processes that `add` moved here after they had started: what they used before counts elsewhere."""
        self._lease = lease
        self._guard: Guard | None = None
        self._nested: list[Group] = []
        self._filter = -1
        self._spawned: list[Process] = []
        self._kept = False

    def __repr__(self) -> str:
        return f"<Group {self.name}>"

    # -- making ------------------------------------------------------------------------------------------------

    def _start(self, undo: ExitStack) -> None:
        self._stack = undo
        self.layout = read_layout() if self.parent is None else self.parent.layout
        homes = self._homes()
        own_name = self.name if self.parent else f"pytest-infra-{os.getpid()}-{os.urandom(3).hex()}-{self.name}"
        made = {home: os.path.join(home, own_name) for home in homes.values()}
        if taken := [path for path in made.values() if os.path.lexists(path)]:
            raise BadInput(f"group {self.name}: there is {taken[0]} already; give it another name")
        entry = self._entry = self._lease.add("cgroup", folders=list(made.values()))
        undo.callback(self._lease.done, entry)
        undo.callback(self._remove, list(made.values()))
        for home, folder in made.items():
            os.mkdir(folder)
            for controller in (name for name, place in homes.items() if place == home and name in self.layout.v1):
                v1.prepare(controller, folder, home)
        self.folders = {name: made[home] for name, home in homes.items()}
        undo.callback(self.folders.clear)
        if "" in self.folders:
            found = controller_files(self.folders[""]) - set(self.layout.v1)
            self.folders.update(dict.fromkeys(found, self.folders[""]))
        undo.callback(self._close_filter)
        self._apply(self.limits)

    def _homes(self) -> dict[str, str]:
        """The folder to make this group's in, for each version 1 controller and for version 2 (``""``)."""
        if self.parent is not None:
            if pids_in(self.parent._all(), below=False):
                raise BadInput(
                    f"group {self.parent.name} has processes of its own: only a group without can have groups in it "
                    "(cgroups(7), 'no internal processes'); nest first, and run in the nested ones"
                )
            self.parent._nested.append(self)
            self._stack.callback(self.parent._nested.remove, self)
            homes = {name: path for name, path in self.parent.folders.items() if name == "" or name in self.layout.v1}
        else:
            homes = {name: path for name, path in self.layout.v1.items() if can_hold_groups(path)}
            if home := v2_home(self.layout):
                homes[""] = home
        if "" in homes:
            self._hand_down(homes[""])
        return homes

    def _hand_down(self, home: str) -> None:
        """Have a version 2 folder give its controllers to the groups in it."""
        asked = {setting.controller for setting in v2.settings(self.limits)}
        wanted = controller_files(home) & {*V2_DEFAULT, *asked} - set(
            (read(home, "cgroup.subtree_control") or "").split()
        )
        for controller in sorted(wanted):
            try:
                write(home, "cgroup.subtree_control", f"+{controller}")
            except OSError as error:
                if controller in asked:
                    why = f"{home} cannot hand the {controller} controller down: {error.strerror}"
                    raise Unavailable(
                        f"cgroup-{controller}", why, "run in a delegated group without processes"
                    ) from error

    def _apply(self, limits: Limits) -> None:
        """Write the limits' files, each in the version that has its controller."""
        for version, module in ((1, v1), (2, v2)):
            for setting in module.settings(limits):
                if self._version(setting.controller) == version:
                    self._write(setting)
        if limits.devices is not None and self._filters_devices:
            earlier, folder = self._filter, self.folders[""]
            self._filter = device_filter.attach(folder, limits.devices)
            if earlier >= 0:
                device_filter.detach(folder, earlier)
        for setting in {item.limit: item for item in (*v1.settings(limits), *v2.settings(limits))}.values():
            self._check_written(setting)
        if limits.memory_high is not None and self._version("memory") == 1:
            why = "memory.high is in version 2 only, and the memory controller is in version 1 here"
            raise Unavailable("cgroup-memory_high", why, "use memory_max, or a machine with version 2")

    @property
    def _filters_devices(self) -> bool:
        """Whether the devices are up to version 2, which has a program for it and no controller."""
        return "" in self.folders and "devices" not in self.layout.v1

    def _close_filter(self) -> None:
        if self._filter >= 0:
            os.close(self._filter)

    def _version(self, controller: str) -> int:
        return 0 if controller not in self.folders else 1 if controller in self.layout.v1 else 2

    def _check_written(self, setting: Setting) -> None:
        """A limit whose controller this machine lacks, or has in a version without such a file, is refused."""
        controller, version = setting.controller, self._version(setting.controller)
        if controller == "devices" and self._filters_devices:
            return
        what = f"cgroup-{controller}"
        if version == 0:
            why = (
                f"{setting.limit} needs the {controller} controller, and this group has none: {self.layout.describe()}"
            )
            raise Unavailable(what, why, "pytest-infra doctor tells which controller is where")

    def _write(self, setting: Setting) -> None:
        folder = self.folders[setting.controller]
        if not os.path.exists(os.path.join(folder, setting.file)):
            if setting.optional:
                return
            why = f"{setting.limit}: {folder} has no {setting.file}"
            raise Unavailable(f"cgroup-{setting.limit}", why, "use a kernel that has it")
        try:
            write(folder, setting.file, setting.text)
        except OSError as error:
            raise StartFailed(
                f"group {self.name}: {setting.limit} cannot be set: "
                f"writing {setting.text!r} to {error.filename}: {error.strerror}"
            ) from error

    def hand_over(self, holdings: Holdings) -> None:
        """Its entry in the lease, and what runs in it."""
        self._hand_over_parts(holdings)
        holdings.entries.append(self._entry)
        holdings.taken += [lambda: setattr(self, "_kept", True), *(child.let_go for child in self._spawned)]

    def _remove(self, folders: Sequence[str]) -> None:
        if self._kept:
            return
        until(lambda: _removed(folders), within_s=5.0, what=f"the removal of the control group {self.name}")

    def limit(self, **limits: Any) -> None:
        """Change limits of the running group; the names and values are those of the constructor.

        Raises:
            BadInput: a value that cannot be.
            StartFailed: the kernel refuses it.
            Unavailable: the machine has no such limit.
        """
        self._demand_up()
        self._apply(parse_limits(**limits))

    def nest(self, name: str, **limits: Any) -> Group:
        """A group within this one, up until this one ends; what it uses counts here too.

        Raises:
            BadInput: this group has processes of its own.
        """
        self._demand_up()
        return self._stack.enter_context(Group(name, lease=self._lease, parent=self, **limits))

    # -- processes ---------------------------------------------------------------------------------------------

    def _demand_up(self) -> None:
        if not self.started and not self.folders:
            raise StartFailed(f"the group {self.name} is not up: it has ended, or was never started")

    def _all(self) -> list[str]:
        return list(dict.fromkeys(self.folders.values()))

    def _leaf(self) -> list[str]:
        self._demand_up()
        if self._nested:
            inner = ", ".join(group.name for group in self._nested)
            raise BadInput(f"group {self.name} has groups in it ({inner}); processes run in those (cgroups(7))")
        return self._all()

    def joining(self, popen: process.Popen) -> process.Popen:
        """A way to start processes as `popen` does, but in this group before they become the command."""
        return joining(popen, self._leaf)

    def _popen(self) -> process.Popen:
        self._leaf()
        if self._guard is None:
            self._guard = self._stack.enter_context(Guard(f"infra-{self.name}"))
        return self.joining(self._guard.popen)

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
        """Run a command of the machine in this group to its end; the arguments are those of `core.process.run`."""
        process.check_argv(argv)
        return process.run(
            argv, check=check, timeout_s=timeout_s, where=self.name, popen=self._popen(), input=input, env=env, cwd=cwd
        )

    def spawn(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Process:
        """Start a command of the machine in this group in the background; it ends with the group at the latest."""
        process.check_argv(argv)
        child = Process(argv, where=self.name, popen=self._popen(), input=input, env=env, cwd=cwd)
        self._stack.callback(child.close)
        self._spawned.append(child)
        return child

    def adopt(self, node: Confined) -> None:
        """Put every command that `node` runs from now on into this group, from its first instruction on.

        Commands that run already stay where they are, and so do functions that `node.call` runs: they are threads of
        the test's own process.

        Raises:
            BadInput: the node cannot be put in a group, or has one of its own.
        """
        self._leaf()
        if not isinstance(node, Confined):
            raise BadInput(f"{node!r} cannot be put in a control group: it is no host")
        if node.control_group is not None and node.control_group is not self:
            has = getattr(node.control_group, "name", "one of its own")
            raise BadInput(f"{node.name} has a control group already: {has}")
        node.control_group = self  # type: ignore[misc]
        self._stack.callback(setattr, node, "control_group", None)

    def add(self, pid: int) -> None:
        """Move a running process with its threads here, until the group ends; then it goes back to where it was.

        What it used before counts where it was, memory included. What it forks meanwhile ends with the group.

        Raises:
            BadInput: it is no process id, or the test's own.
            StartFailed: there is no such process, or the kernel refuses it.
        """
        folders = self._leaf()
        home = home_of(pid, self.folders)
        self.joined_late.append(pid)
        self._stack.callback(leave, pid, folders, home)
        join(pid, folders)

    @property
    def pids(self) -> set[int]:
        """The processes in this group and in those within it."""
        return pids_in(self._all())

    def kill(self) -> None:
        """SIGKILL to every process in this group and in those within it; returns when all have ended."""
        self._demand_up()
        kill_all(self._all())

    def freeze(self) -> None:
        """Stop every process of the group where it is, until `thaw`; returns when all stand still.

        Raises:
            Unavailable: the machine has no freezer.
            WaitTimeout: some did not stop.
        """
        self._set_frozen(True)

    def thaw(self) -> None:
        """Let the processes go on."""
        self._set_frozen(False)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen meanwhile."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def _set_frozen(self, wanted: bool) -> None:
        self._demand_up()
        if (folder := self.folders.get("")) and os.path.exists(os.path.join(folder, "cgroup.freeze")):
            write(folder, "cgroup.freeze", str(int(wanted)))  # preferred: here a frozen process can be killed
            done = partial(_frozen_is, folder, wanted)
        elif folder := self.folders.get("freezer"):
            word = "FROZEN" if wanted else "THAWED"
            write(folder, "freezer.state", word)
            done = partial(_state_is, folder, word)
        else:
            why = f"neither the version 1 freezer nor version 2 (Linux 5.2) is here: {self.layout.describe()}"
            raise Unavailable("cgroup-freezer", why, "use a kernel that has it")
        word = "frozen" if wanted else "thawed"
        until(done, within_s=_FROZEN_S, what=f"the processes of group {self.name} to be {word}")

    # -- counting ----------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """What the group has used so far, from the kernel's counters."""
        self._demand_up()
        return read_usage(self.name, self.folders, frozenset(self.layout.v1))

    def describe(self) -> Facts:
        """The group, its folders, and its limits."""
        return {"name": self.name, "folders": dict(self.folders), "versions": self.layout.mode}

    def diagnose(self) -> Iterator[Artifact]:
        """What it has used, as text."""
        yield Artifact(f"cgroup-{self.name}.txt", self.usage().explain())


def _state_is(folder: str, word: str) -> bool:
    return (read(folder, "freezer.state") or "").strip() == word


def _frozen_is(folder: str, wanted: bool) -> bool:
    return flat(folder, "cgroup.events").get("frozen") == int(wanted)


def _removed(folders: Sequence[str]) -> bool:
    try:
        remove_group(folders)
    except OSError:
        return False
    return True
