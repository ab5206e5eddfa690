"""Whether time means anything here: in an emulated guest nothing can be said of time and throughput."""

from __future__ import annotations

import os
from typing import Any

from .errors import Inconclusive

__all__ = ["EMULATED", "demand_real_time", "why_time_is_not_real"]

EMULATED = "PYTEST_INFRA_EMULATED"
"""The variable that is set in a guest whose processor is emulated (``--infra-kernel``)."""


def why_time_is_not_real(*nodes: Any) -> str:
    """Why nothing can be said of time and throughput, of tests that run here or of these nodes; empty where it can.

    Args:
        nodes: nodes, pairs of a node and its address, or anything else, which is real.
    """
    if os.environ.get(EMULATED):
        return "the tests run in an emulated guest (--infra-kernel, without KVM)"
    alone = [node[0] if isinstance(node, tuple) else node for node in nodes]
    emulated = [node.name for node in alone if getattr(node, "emulated", False)]
    return f"{', '.join(emulated)} is emulated (no KVM)" if emulated else ""


def demand_real_time(what: str, *nodes: Any) -> None:
    """Refuse to judge time or throughput where neither is real.

    Raises:
        Inconclusive: an emulated processor is in the way.
    """
    if why := why_time_is_not_real(*nodes):
        raise Inconclusive(f"{what} cannot be judged: {why}; run it on the machine, or under KVM")
