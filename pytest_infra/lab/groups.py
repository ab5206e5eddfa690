"""`LabGroups`: what a lab does with control groups and faults; both end with it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.node import Confined
from .base import LabBase

if TYPE_CHECKING:
    from ..cgroup.group import Group

__all__ = ["LabGroups"]

T = TypeVar("T")


class LabGroups(LabBase):
    """The part of a lab that makes control groups and begins faults."""

    def cgroup(self, name: str = "group", *nodes: Confined, **limits: Any) -> Group:
        """Make a control group that ends with the lab, and put the commands of these nodes into it.

        Args:
            name: for people.
            nodes: whose commands join it from now on; functions that they `call` do not (see `Group.adopt`).
            limits: ``memory_max="64 MiB"``, ``cpu_max=0.5``, … as `cgroup.limits.parse_limits` takes them.

        Raises:
            BadInput: a limit cannot be, or a node has a group already; then no group is made, and no node joins one.
            Unavailable: the machine lacks what a limit needs.
        """
        from ..cgroup.group import Group

        self._alive()
        group = self._stack.enter_context(Group(name, lease=self._lease, **limits))
        try:
            for node in nodes:
                group.adopt(node)
        except BaseException:
            group.stop()
            raise
        return group

    def inject(self, fault: AbstractContextManager[T]) -> T:
        """Begin a fault (see `faults`) that is undone when the lab ends, and return what it yields."""
        self._alive()
        return self._stack.enter_context(fault)
