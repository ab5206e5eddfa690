"""`kill` and `frozen`: every process of a group or node at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..cgroup.group import Group
from ..core.errors import BadInput
from ..core.fault import noted
from ..core.node import Confined

__all__ = ["frozen", "kill"]


def _group_of(target: Group | Confined) -> Group:
    group = target if isinstance(target, Group) else getattr(target, "control_group", None)
    if isinstance(group, Group):
        return group
    name = getattr(target, "name", repr(target))
    raise BadInput(f"{name} is in no control group of ours; put it in one first: lab.cgroup('name', {name})")


def kill(target: Group | Confined) -> None:
    """SIGKILL to every process of a group, or of the group that a node's commands are in; returns when all have ended.

    Raises:
        BadInput: the node is in no group.
    """
    _group_of(target).kill()


@contextmanager
def frozen(target: Group | Confined) -> Iterator[None]:
    """Stop every process of a group, or of the group that a node's commands are in, where it is; at the end it goes on.

    Raises:
        BadInput: the node is in no group.
        Unavailable: the machine has no freezer.
    """
    with noted(f"frozen {getattr(target, 'name', target)}", [target]), _group_of(target).frozen():
        yield
