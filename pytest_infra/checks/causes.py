"""From a failed check to its autopsy."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ..core.errors import InfraError
from ..core.node import IPAddress, Node
from .autopsy import Case, examine
from .graph import owner_of
from .inet import local_address
from .target import Ends

if TYPE_CHECKING:
    from .reach import ReachReport

__all__ = ["find_causes"]


def find_causes(report: ReachReport, ends: Ends) -> ReachReport:
    """The same report with an autopsy."""
    case = Case(
        source=ends.source,
        destination=ends.destination,
        address=ends.address,
        source_address=_source_address(ends),
        protocol=report.protocol,
        port=report.port,
        answer=report.failure,
        served=report.served,
        delivered=report.delivered,
    )
    return replace(report, autopsy=examine(case), refused_by=_name_of(report.failure.sender, ends.source))


def _name_of(address: str, start: Node) -> str:
    port = owner_of(start, ip_address(address)) if address else None
    return str(port.node.name) if port is not None else ""


def _source_address(ends: Ends) -> IPAddress | None:
    if ends.source_address is not None:
        return ends.source_address
    try:
        found = ends.source.call(local_address, str(ends.address))
    except (OSError, InfraError):
        return None
    return None if found is None else ip_address(found)
