"""`Infra`: what one test process shares: the way into namespaces, the Open vSwitch instances, the lease."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from .core.errors import BadInput
from .core.lease import Lease
from .core.requirement import PRIVILEGE
from .core.resource import Resource
from .lab import Lab, LabServices
from .net.machine import Machine
from .net.namespace import Entrance

if TYPE_CHECKING:
    from .net.ovs_pool import OvsPool
    from .net.recorder import Recorder

__all__ = ["Infra"]


class Infra(Resource):
    """The session: makes labs, and ends what they share. It needs no pytest.

    Example::

        with Infra() as infra, infra.lab("demo") as lab:
            a, b = lab.host("a"), lab.host("b")
            lab.link(a, b)
            assert_reachable(a, b)

    Args:
        record: whether the latest frames of every lab are kept for its evidence.
    """

    requires = (PRIVILEGE,)

    def __init__(self, *, record: bool = False) -> None:
        self._labs = 0
        self._record = record

    def _start(self, undo: ExitStack) -> None:
        self.lease = undo.enter_context(Lease())
        entrance = undo.enter_context(Entrance())
        self._machine = Machine()
        pool = undo.enter_context(self._ovs_pool(entrance))
        self._services = LabServices(entrance, pool, self.lease, self._recorder(undo))
        undo.callback(self._end_labs)

    def _end_labs(self) -> None:
        for lab in tuple(self._services.labs):
            lab.stop()

    @property
    def labs(self) -> tuple[Lab, ...]:
        """The labs that are up."""
        return tuple(sorted(self._services.labs, key=lambda lab: lab.name)) if self.started else ()

    def _recorder(self, undo: ExitStack) -> Recorder | None:
        if not self._record:
            return None
        from .net.recorder import Recorder

        return undo.enter_context(Recorder())

    @staticmethod
    def _ovs_pool(entrance: Entrance) -> OvsPool:
        from .net.ovs_pool import OvsPool

        return OvsPool(entrance)

    @property
    def machine(self) -> Machine:
        """The machine's own network, read-only."""
        self.start()
        return self._machine

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
