"""`Infra`: what one test process shares: the way into namespaces, the Open vSwitch instances, the lease."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from .core.errors import BadInput
from .core.lease import Lease
from .core.requirement import PRIVILEGE
from .core.resource import Resource
from .core.units import duration_s, size_bytes
from .lab import Lab
from .net.machine import Machine
from .net.namespace import Entrance
from .services import LabServices

if TYPE_CHECKING:
    from .cgroup.group import Group
    from .container.engine import Engine
    from .container.image import Images
    from .gpu.device import Gpus
    from .net.ovs_pool import OvsPool
    from .net.recorder import Recorder

__all__ = ["Infra"]


def _nothing(_lab: Lab, _error: BaseException | None) -> None:
    """What is done before a lab ends where nobody asked for anything."""


class Infra(Resource):
    """The session: makes labs, and ends what they share. It needs no pytest; so a script may have one.

        with Infra() as infra, infra.lab("demo") as lab:
            a, b = lab.host("a"), lab.host("b")
            lab.link(a, b)
            assert_reachable(a, b)

    Args:
        record: whether the latest frames of every lab are kept for its evidence.
        before_end: called with a lab, and the error that it ends with, before it ends in order.
        command: what somebody has started, for ``pytest-infra list``; this process's command line by default.
    """

    requires = (PRIVILEGE,)

    def __init__(
        self,
        *,
        record: bool = False,
        before_end: Callable[[Lab, BaseException | None], object] = _nothing,
        command: Sequence[str] = (),
    ) -> None:
        self._labs = 0
        self._before_end = before_end
        self._record = record
        self._about = {"argv": list(command)} if command else {}

    def _start(self, undo: ExitStack) -> None:
        self.lease = undo.enter_context(Lease(about=self._about))
        entrance = undo.enter_context(Entrance())
        self._machine = Machine()
        self._engine: Engine | None = None
        undo.callback(self._end_engine)
        ovs_pool = undo.enter_context(self._ovs_pool(entrance))
        self._services = LabServices(
            entrance, ovs_pool, self.lease, self.engine, self._recorder(undo), self._before_end
        )
        undo.callback(self._end_labs)

    def _end_labs(self) -> None:
        for lab in tuple(self._services.labs):
            lab.stop()

    @property
    def labs(self) -> tuple[Lab, ...]:
        """The labs that are up."""
        labs = [lab for lab in self._services.labs if isinstance(lab, Lab)] if self.started else []
        return tuple(sorted(labs, key=lambda lab: lab.name))

    def _recorder(self, undo: ExitStack) -> Recorder | None:
        if not self._record:
            return None
        from .net.recorder import Recorder

        return undo.enter_context(Recorder())

    @staticmethod
    def _ovs_pool(entrance: Entrance) -> OvsPool:
        from .net.ovs_pool import OvsPool

        return OvsPool(entrance)

    def engine(self) -> Engine:
        """The container engine of the session; found, or started, when it is asked for first.

        Raises:
            Unavailable: none answers, and none can be started here.
        """
        from .container.engine import SESSION_LABEL, Engine

        self.start()
        if self._engine is None:
            label = os.path.basename(self.lease.folder)
            engine = Engine(os.environ.get("PYTEST_XDIST_TESTRUNUID") or label, label).start()
            self._engine_entry = self.lease.add("docker", address=engine.address, label=f"{SESSION_LABEL}={label}")
            self._engine = engine
        return self._engine

    def _end_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            try:
                engine.remove_mine()
                self.lease.done(self._engine_entry)
            finally:
                engine.stop()

    @property
    def images(self) -> Images:
        """Images: from folders, archives, programs of this machine, Dockerfiles."""
        from .container.image import Images

        return Images(self.engine)

    @property
    def machine(self) -> Machine:
        """The machine's own network, read-only."""
        self.start()
        return self._machine

    def cgroup(self, name: str = "group", **limits: Any) -> Group:
        """A new control group; use it as a context manager.

        Args:
            name: for people.
            limits: ``memory_max="64 MiB"``, ``cpu_max=0.5``, … as `cgroup.limits.parse_limits` takes them.
        """
        from .cgroup.group import Group

        self.start()
        return Group(name, lease=self.lease, **limits)

    def gpus(
        self,
        count: int = 1,
        *,
        memory: int | str = 0,
        name: str = "",
        min_compute: tuple[int, int] | None = None,
        backend: str = "auto",
        shared: bool = False,
        timeout: str | float = "10 min",
    ) -> Gpus:
        """GPUs that are healthy and held against the whole machine; use it as a context manager.

        Args:
            count: how many.
            memory: how much memory each has at least, or with `shared` how much of it is wanted: ``"2 GiB"``.
            name: a part of its name.
            min_compute: CUDA's compute capability at least: ``(8, 0)``.
            backend: ``cuda``, ``opencl`` (a CPU too), or ``auto`` for the first that there is.
            shared: whether others may have the rest of its memory meanwhile.
            timeout: how long to wait for them.

        Raises:
            BadInput: an argument that cannot be.
        """
        from .gpu.device import Gpus
        from .gpu.found import Wish

        wish = Wish(count, size_bytes(memory), name, min_compute, backend)
        return Gpus(wish, shared=shared, timeout_s=duration_s(timeout))

    def lab(self, name: str | None = None) -> Lab:
        """A new lab; use it as a context manager.

        Args:
            name: for people; ``lab1``, ``lab2``, … by default.

        Raises:
            BadInput: the name is not printable text.
        """
        if name is not None and not (isinstance(name, str) and name.isprintable()):
            raise BadInput(f"lab name {name!r} cannot be used: printable text is wanted")
        self.start()
        self._labs += 1
        return Lab(name or f"lab{self._labs}", self._services)
