"""From a failed check to its autopsy."""

from __future__ import annotations

from ipaddress import ip_address

from ..core.errors import InfraError
from ..core.node import IPAddress
from .answer import Answer
from .autopsy import Autopsy, Case, examine
from .inet import local_address
from .outcome import Outcome
from .target import Ends

__all__ = ["autopsy_of", "case_of"]


def autopsy_of(
    ends: Ends,
    answer: Answer,
    *,
    protocol: str = "icmp",
    port: int | None = None,
    served: bool = False,
    trace: Outcome | None = None,
    packet_bytes: int = 0,
    dont_fragment: bool = False,
    within_s: float = 0.0,
) -> Autopsy:
    """Why packets from one end to the other were not answered.

    Args:
        ends: where the packets come from and go to.
        answer: the one that made the check fail.
        protocol: ``"icmp"``, ``"tcp"`` or ``"udp"``.
        port: the TCP or UDP port.
        served: whether the check itself listened there.
        trace: how far a second probe came; None when none was sent.
        packet_bytes: the size of the IP packets; 0 for small ones.
        dont_fragment: whether nobody may fragment them.
        within_s: how long an answer was waited for; 0 where that is not known.
    """
    case = case_of(ends, answer, protocol=protocol, port=port)
    case.served, case.trace, case.within_s = served, trace, within_s
    case.packet_bytes, case.dont_fragment = packet_bytes, dont_fragment
    return examine(case)


def case_of(ends: Ends, answer: Answer, *, protocol: str, port: int | None) -> Case:
    """The case of packets between two ends."""
    return Case(ends.source, ends.destination, ends.address, _source_address(ends), protocol, port, answer)


def _source_address(ends: Ends) -> IPAddress | None:
    if ends.source_address is not None:
        return ends.source_address
    try:
        found = ends.source.call(local_address, str(ends.address))
    except (OSError, InfraError):
        return None
    return None if found is None else ip_address(found)
