"""What a device can do beyond moving packets: rte_flow, meters, traffic management; asked, not assumed."""

from __future__ import annotations

import re

from ..core.requirement import Absent, Present
from .console import Console

__all__ = ["CAPABILITIES", "probe_capability"]

_NOBODYS = "0x88b6"  # an EtherType for local experiments (IEEE 802): the rule that is tried drops nothing else

CAPABILITIES = {
    "rte_flow": (f"flow create {{port}} ingress pattern eth type is {_NOBODYS} / end actions drop / end", "created"),
    "meter": ("show port meter cap {port}", "Meter Capabilities"),
    "tm": ("show port tm cap {port}", "TM Capabilities"),
}
"""Each capability, the question to testpmd, and what only a yes says."""


def probe_capability(console: Console, capability: str, port: int) -> Present | Absent:
    """Whether a port's driver can do it; where not, in its own words."""
    question, yes = CAPABILITIES[capability]
    said = console.command(question.format(port=port))
    if yes.lower() in said.lower():
        if capability == "rte_flow":
            console.command(f"flow flush {port}")
        return Present(said.splitlines()[0])
    words = [line.strip() for line in said.splitlines() if re.search(r"error|not |unsupported|cause|fail", line, re.I)]
    text = " ".join(words or said.split("\n")) or "testpmd says nothing"
    return Absent(
        f"the driver of port {port} says: {text}", "use a device whose driver can do it, such as a network card"
    )
