"""`DpdkProcess`: testpmd or somebody's own DPDK application, started, watched and ended."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

from ..core.errors import CommandFailed, InfraError, StartFailed
from ..core.guard import Guard
from ..core.process import Process, run
from ..core.report import as_json
from ..core.requirement import PRIVILEGE, find_program
from ..core.resource import Artifact, Resource
from ..core.wait import until
from .console import Console, with_console
from .cores import Cores, lease_cores
from .eal import EalArguments
from .hugepages import HugePages
from .kernel_drops import KernelDrops
from .requirement import TESTPMD
from .telemetry import PortStatistics, Statistics, Telemetry, TelemetryError

__all__ = ["Application", "DpdkProcess", "TestPmd"]

_START_S = 20.0
_LOOK_S = 0.005
_NICE = 5  # a core that others want too goes to them first: a thread that polls would take half of it, or more
_LAST_LINES = 12
_HUGE = "/run/hugepages"


@dataclass(frozen=True)
class Application:
    """A DPDK application, and what it is told after the EAL's arguments."""

    program: str
    arguments: tuple[str, ...] = ()
    ready: str = ""
    """What it writes when it forwards; by default it is ready when all its ports are started."""

    def argv(self, eal: EalArguments) -> list[str]:
        """The whole command."""
        return [self.program, *eal.argv(), "--", *self.arguments]


@dataclass(frozen=True)
class TestPmd(Application):
    """DPDK's own test application (DPDK's Testpmd Application User Guide)."""

    __test__ = False

    program: str = "dpdk-testpmd"
    forward: str = "io"
    buffers: int = 8192
    burst: int = 32
    start: bool = True
    """Whether it forwards from the beginning."""

    def argv(self, eal: EalArguments) -> list[str]:
        """The whole command; its output is written line by line."""
        TESTPMD.demand()
        own = ["-i", *(["--auto-start"] if self.start else []), f"--forward-mode={self.forward}"]
        own += [f"--total-num-mbufs={self.buffers}", f"--burst={self.burst}", f"--nb-cores={len(eal.cpus) - 1}"]
        own += ["--no-mlockall", "--disable-link-check", "--no-lsc-interrupt", "--no-flush-rx", "--record-core-cycles"]
        by_line = [stdbuf, "-oL"] if (stdbuf := find_program("stdbuf")) else []
        return [*by_line, TESTPMD.path(), *eal.argv(), "--", *own, *self.arguments]


class DpdkProcess(Resource):
    """A DPDK process in a network namespace of its lab.

    Args:
        name: the node it is.
        application: what runs.
        eal: what its EAL is told; its cores and huge pages are filled in here.
        guard: gives the guard in which it runs, whose /run is its own.
        popen: starts processes in that guard and in the node's network namespace.
        cores: how many workers, or which CPUs.
        huge: the huge pages that are to be set aside for it.
        eal_at_start: called when the links are there, for the devices.
        wire: called when its ports are there, before they are waited for.
        waits_for: whether a port's link has to be up before the process is ready.
        kernel_sources: where the kernel counts what it drops on the way to a port; see `KernelDrops`.
    """

    requires = (PRIVILEGE,)

    def __init__(
        self,
        name: str,
        *,
        application: Application,
        memory_mib: int,
        more_eal: tuple[str, ...],
        vdevs: Callable[[], tuple[str, ...]],
        guard: Callable[[], Guard],
        popen: Callable[..., Any],
        cores: int | tuple[int, ...] = 1,
        huge: HugePages | None = None,
        wire: Callable[[], None] = lambda: None,
        waits_for: Callable[[PortStatistics], bool] = bool,
        kernel_sources: Callable[[], Mapping[int, int | str]] = dict,
    ) -> None:
        self.name = name
        self.application = application
        self.huge = huge
        self.cores = Cores(())
        self.child: Process | None = None
        self.console: Console | None = None
        self._eal = EalArguments((), name, memory_mib=memory_mib, more=more_eal)
        self._vdevs = vdevs
        self._guard = guard
        self._popen = popen
        self._wanted_cores = cores
        self._wire = wire
        self._waits_for = waits_for
        self._dropped = KernelDrops(kernel_sources)

    @property
    def program(self) -> str:
        """Its name, for people."""
        return "testpmd" if isinstance(self.application, TestPmd) else os.path.basename(self.application.program)

    def _start(self, undo: ExitStack) -> None:
        vdevs = self._vdevs()
        guard = self._guard()
        self.cores = lease_cores(self._wanted_cores, undo)
        eal = replace(self._eal, cpus=self.cores.cpus, vdevs=vdevs)
        if self.huge is not None:
            undo.enter_context(self.huge)
            eal = replace(eal, huge_folder=self._mount_huge(), memory_mib=self.huge.size_bytes >> 20)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            undo.callback(os.close, writing)
            popen = with_console(self._popen, reading)
            argv = self.application.argv(eal)
            self.child = Process(argv, where=self.name, popen=popen, env={"RUNTIME_DIRECTORY": "/run"})
        finally:
            os.close(reading)
        undo.callback(self.child.close)
        with suppress(ProcessLookupError):  # its threads come later, and inherit it
            os.setpriority(os.PRIO_PROCESS, self.child.pid, _NICE)
        undo.callback(self._keep_last_words)
        self.console = Console(self.child, writing) if isinstance(self.application, TestPmd) else None
        path = f"{guard.root}/run/dpdk/{self.name}/dpdk_telemetry.v2"
        self.telemetry = Telemetry(path, f"{self.program} in {self.name}")
        undo.callback(self.telemetry.close)
        self._await(self._answers, "is up")
        self._wire()

    def _mount_huge(self) -> str:
        """Mount huge pages where only this lab's processes see them."""
        popen = self._guard().popen
        run(["mkdir", "-p", _HUGE], popen=popen, where=self.name)
        if not run(["mountpoint", "-q", _HUGE], popen=popen, where=self.name, check=False).ok:
            run(["mount", "-t", "hugetlbfs", "none", _HUGE], popen=popen, where=self.name)
        return _HUGE

    def _answers(self) -> bool:
        """Whether the EAL is up and has made all ports."""
        self._check()
        if not self.telemetry.connect():
            return False
        try:
            return len(self.telemetry.ports()) >= len(self._vdevs())
        except TelemetryError:
            self._check()
            return False

    def _check(self) -> None:
        assert self.child is not None
        if not self.child.running:
            raise StartFailed(f"{self.program} in {self.name} {self.end()}\n{self.last_words()}")

    def await_ready(self) -> None:
        """Wait until it forwards.

        Raises:
            StartFailed: it has ended; the text has its last words.
            WaitTimeout: it is not ready in time.
        """

        def ready() -> bool:
            self._check()
            assert self.child is not None
            if self.console is not None and not self.console.ready():
                return False
            if self.application.ready:
                return self.application.ready in self.child.stdout + self.child.stderr
            return self._ports_ready()

        self._await(ready, "is ready")
        assert self.child is not None
        with suppress(OSError):  # it has just ended, which whoever uses it next is told
            self._dropped.begin(self.child.pid)

    def statistics(self) -> Statistics:
        """The counters of all ports; what the kernel dropped on the way to one counts as missed by it.

        Raises:
            TelemetryError: it does not answer.
        """
        assert self.child is not None
        found = self.telemetry.statistics()
        with suppress(OSError):  # it has just ended
            dropped = self._dropped.look(self.child.pid)
            ports = (replace(port, rx_missed=port.rx_missed + dropped.get(port.number, 0)) for port in found.ports)
            return Statistics(tuple(ports))
        return found

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        text = f"{self.program} in {self.name} {what}"
        until(condition, within_s=_START_S, what=text, at_most_every_s=_LOOK_S, last_words=self.last_words)

    def _ports_ready(self) -> bool:
        try:
            ports = self.telemetry.statistics().ports
        except TelemetryError:
            return False
        return all(port.started and (port.link_up or not self._waits_for(port)) for port in ports)

    @property
    def running(self) -> bool:
        """Whether it is up."""
        return self.child is not None and self.started and self.child.running

    def end(self) -> str:
        """How it ended, in words; empty while it runs."""
        status = self.child.returncode if self.child is not None else None
        if status is None:
            return ""
        if status >= 0:
            return f"has ended with status {status}"
        return f"was killed by {signal.Signals(-status).name}"

    def _keep_last_words(self) -> None:
        self._last = self.last_words()

    def last_words(self) -> str:
        """The last lines that it wrote, those of the EAL and of drivers that complain first."""
        if self.child is None:
            return ""
        try:
            lines = [line.rstrip() for line in (self.child.stdout + "\n" + self.child.stderr).splitlines()]
        except InfraError:
            return getattr(self, "_last", "")
        lines = [re.sub(r"^(testpmd> )+", "", line) for line in lines if line.strip()]
        complaints = [line for line in lines if re.search(r"error|cannot|fail|invalid|unable|panic|not ", line, re.I)]
        rest = [line for line in lines[-_LAST_LINES:] if line not in complaints]
        chosen = [*complaints[-_LAST_LINES:], *rest[-3:]] if complaints else rest
        return "\n".join(f"  {self.program}  {line}" for line in chosen)

    def wrong_cores(self) -> tuple[str, ...]:
        """The workers that may not run on the CPU that they were given, in words (sched_getaffinity(2))."""
        if self.child is None or not self.child.running:
            return ()
        found = []
        for task in sorted(map(int, os.listdir(f"/proc/{self.child.pid}/task"))):
            with suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{self.child.pid}/task/{task}/comm", encoding="ascii") as comm:
                    number = int(re.sub(r".*worker-?", "", comm.read()))
                wanted, allowed = self.cores.cpus[number], sorted(os.sched_getaffinity(task))
                if allowed != [wanted]:
                    cpus = ", ".join(map(str, allowed))
                    found.append(f"worker {number} may run on {cpus}, and was given core {wanted}")
        return tuple(found)

    def cpu_s(self) -> float:
        """CPU time that all its threads have had, seconds (/proc/PID/schedstat's of its tasks)."""
        assert self.child is not None
        folder, total_ns = f"/proc/{self.child.pid}/task", 0
        for task in os.listdir(folder):
            with open(f"{folder}/{task}/schedstat", encoding="ascii") as file:
                total_ns += int(file.read().split()[0])
        return total_ns / 1e9

    def diagnose(self) -> Iterator[Artifact]:
        """What it wrote, and what its ports count."""
        if self.child is None:
            return
        try:
            text = f"$ {' '.join(self.child.argv)}\n{self.child.stdout}\n{self.child.stderr}\n{self.end()}\n"
        except InfraError:
            text = self.last_words()
        yield Artifact(f"{self.name}-{self.program}.txt", text)
        try:
            yield Artifact(f"{self.name}-statistics.json", as_json(self.statistics()))
        except (InfraError, AttributeError, CommandFailed):
            return
