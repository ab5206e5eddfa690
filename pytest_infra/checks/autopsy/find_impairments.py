"""What the lab itself was told to do to packets: the impairments of the links, on the way there and back."""

from __future__ import annotations

import errno
from typing import Any

from ..answer import Answer
from ..obstacles import both_ways, delay_s, impaired, lost_part
from .finding import Case, EndFinder, Finding, HopFinder, spot
from .hop import Hop

__all__ = ["IMPAIRED", "IMPASSABLE"]

_HOST_UNREACHABLE = {4: (3, 1), 6: (1, 3)}
_LIKELY = 0.1  # two probes in a row are lost with 1 %
_ROUND_TRIPS = 2  # the first packet waits for address resolution (RFC 826, RFC 4861), which takes one of its own


def _impassable(hop: Hop) -> Finding | None:
    """Whether no answer can come in time over this wire alone; then not even addresses are resolved."""
    if hop.far is None or not _may_be_lost(hop.case.answer):
        return None
    ways = impaired(hop.node, hop.far.node) + impaired(hop.far.node, hop.node)
    slow = 0 < hop.case.within_s <= delay_s(ways)
    return _finding(ways, slow=slow) if slow or lost_part(ways) == 1.0 else None


def _may_be_lost(answer: Answer) -> bool:
    """Silence; a host is unreachable, where no address is resolved; or no buffer space, where a queue drops at once."""
    error = answer.icmp
    unresolved = error is not None and (error.type, error.code) == _HOST_UNREACHABLE[error.version]
    return answer.kind == "silence" or answer.errno in (errno.EHOSTUNREACH, errno.ENOBUFS) or unresolved


def _impaired(case: Case) -> Finding | None:
    """Whether the links lose packets, or delay them for longer than an answer was waited for."""
    ways = both_ways(case.source, case.destination)
    lost, slow = lost_part(ways), 0 < case.within_s <= _ROUND_TRIPS * delay_s(ways)
    if not slow and not (lost if _answered_later(case) else lost >= _LIKELY):
        return None
    return _finding(ways, slow=slow)


def _finding(ways: list[tuple[Any, Any]], *, slow: bool) -> Finding:
    first = next(port for port, item in ways if item.loss or item.corrupt or (slow and item.delay_s))
    does = {"loses packets": lost_part(ways) > 0, "delays packets for as long as was waited": slow}
    what = [said for said, done in does.items() if done]
    words = "; ".join(f"{spot(port)} -> {spot(port.peer)}: {item}" for port, item in ways)
    return Finding(
        "impaired",
        first.node.name,
        f"the lab itself {' and '.join(what)}, by the impairments of its links: {words}",
        "take them away: link.clear(); or allow for them: a longer within=, more tries; assert_loss measures the loss",
        mark="IMPAIRED",
        port=spot(first),
    )


def _answered_later(case: Case) -> bool:
    return case.trace is not None and case.trace.status == "answered"


def _applies(case: Case) -> bool:
    """A server of UDP may be silent of its own accord."""
    return case.destination is not None and case.answer.kind == "silence" and (case.protocol != "udp" or case.served)


IMPASSABLE = HopFinder("", _impassable)
"""Whether the lab itself lets nothing through in time on a wire."""
IMPAIRED = EndFinder("", _impaired, applies=_applies)
"""Whether the lab itself loses or delays packets."""
