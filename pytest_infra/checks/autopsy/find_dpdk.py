"""DPDK processes on the way: ended, silent, stopped, without link or buffers, on wrong cores; and what they lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..graph import Wire
from .finding import Case, EndFinder, Finding, HopFinder, spot
from .hop import Hop, planned_wires

__all__ = ["PROCESS", "PROCESS_LOSSES"]

_LOSSES = ("dpdk-missed", "dpdk-receive-errors", "dpdk-send-errors")


def _processes(wires: Sequence[Wire]) -> Iterator[Any]:
    """The nodes on these wires that are DPDK processes, each once, in the order of the way."""
    nodes = [port.node for wire in wires for port in wire.switch_ports]
    yield from (node for node in dict.fromkeys(nodes) if hasattr(node, "faults"))


def _finding(node: Any, losses: bool) -> Finding | None:
    for fault in node.faults():
        if (fault.kind in _LOSSES) == losses:
            ends = [end for _, end in node.wires()]
            port = ends[fault.port] if fault.port is not None and fault.port < len(ends) else None
            where = spot(port) if port is not None else ""
            return Finding(fault.kind, node.name, fault.cause, fault.next, mark=fault.mark, port=where)
    return None


def _process(hop: Hop) -> Finding | None:
    found = (_finding(node, losses=False) for node in _processes([hop.wire] if hop.wire else []))
    return next(filter(None, found), None)


def _places(hop: Hop) -> Sequence[str]:
    return [node.name for node in _processes([hop.wire] if hop.wire else [])]


def _losses(case: Case) -> Finding | None:
    wires = list(planned_wires(case.source, case.destination, case.address.version))
    found = (_finding(node, losses=True) for node in _processes(wires))
    return next(filter(None, found), None)


PROCESS = HopFinder("process", _process, _places)
"""A DPDK process in between."""
PROCESS_LOSSES = EndFinder("", _losses)
"""What the ports of DPDK processes in between say they lost."""
