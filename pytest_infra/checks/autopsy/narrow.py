"""A way that is too narrow for what TCP sends: segments vanish, and nobody tells their sender (RFC 2923)."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import Case, spot
from .hop import Hop, walk

__all__ = ["narrow_way", "unacknowledged"]

_TABLES, _LISTEN = ("tcp", "tcp6"), "0A"


def narrow_way(case: Case) -> str:
    """Which port on the way of the answers takes only smaller packets than their sender's, in words; "" for none."""
    if case.destination is None or case.source_address is None:
        return ""
    first = Hop(case, case.destination, case.source, case.source_address, case.address, back=True)
    widest = 0
    for hop in walk(first):
        interface = hop.view.interface(hop.port) if hop.port is not None else None
        if hop.port is None or interface is None:
            return ""
        if widest and interface.mtu < widest:
            return f"the MTU of {spot(hop.port)} is {interface.mtu}, less than the {widest} of {case.name}"
        widest = widest or interface.mtu
    return ""


def unacknowledged(port: int) -> int:
    """The bytes that TCP sockets of this port have sent and nobody has confirmed, in the calling thread's namespace."""
    return sum(_queues(port))


def _queues(port: int) -> Iterator[int]:
    for table in _TABLES:
        try:
            with open(f"/proc/thread-self/net/{table}", encoding="ascii") as lines:
                rows = [line.split() for line in lines][1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for row in rows:
            if int(row[1].rpartition(":")[2], 16) == port and row[3] != _LISTEN:
                yield int(row[4].partition(":")[0], 16)
