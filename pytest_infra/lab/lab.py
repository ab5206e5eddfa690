"""`Lab`: all parts of a lab in one."""

from __future__ import annotations

from .captures import LabCaptures
from .containers import LabContainers
from .dpdk import LabDpdk
from .groups import LabGroups
from .keeping import LabKeeping
from .names import LabNames
from .topology_file import LabTopologyFiles
from .uplinks import LabUplinks
from .vms import LabVms

__all__ = ["Lab"]


class Lab(LabTopologyFiles, LabNames, LabUplinks, LabContainers, LabVms, LabGroups, LabCaptures, LabDpdk, LabKeeping):
    """Nodes, switches and the links between them.

    What is declared is recorded at once and made at the first observation: a check, a command, a property that
    reads the kernel, or `up`. So addresses and routes are worked out from the whole, and a lab costs one batch of
    requests per namespace.

    Args:
        name: the lab's name, for people.
        services: what the labs of a session share.
    """
