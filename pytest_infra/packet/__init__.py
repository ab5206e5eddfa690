"""Packet classification, metering, scheduling and balancing: pure models, and real devices to compare them with.

The names are imported at first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auditing import audit
    from .capture import Capture
    from .classifier import DEFAULT, Classifier, Verdict
    from .dropper import Red, TailDrop, Wred
    from .edge_packets import edges
    from .install_acl import RteAcl
    from .install_bpf import TcBpf, XdpIngress
    from .install_bridge import NftBridge
    from .install_nft import NftIngress
    from .install_ovs import OvsFlows
    from .install_tc import TcFlower, TcU32
    from .meter import Arrival, Colour, OvsMeter, SrTcm, TrTcm2698, TrTcm4115
    from .meter_ovs import OvsMeterDevice
    from .packet import Packet
    from .probe import Bench, Fate
    from .probed import External, Probed
    from .rule import Rule
    from .spoilt import malformed
    from .strategies import near, policies

__all__ = [
    "DEFAULT",
    "Arrival",
    "Bench",
    "Capture",
    "Classifier",
    "Colour",
    "External",
    "Fate",
    "NftBridge",
    "NftIngress",
    "OvsFlows",
    "OvsMeter",
    "OvsMeterDevice",
    "Packet",
    "Probed",
    "Red",
    "RteAcl",
    "Rule",
    "SrTcm",
    "TailDrop",
    "TcBpf",
    "TcFlower",
    "TcU32",
    "TrTcm2698",
    "TrTcm4115",
    "Verdict",
    "Wred",
    "XdpIngress",
    "audit",
    "edges",
    "malformed",
    "near",
    "policies",
]

_MODULES = {
    "auditing": ("audit",),
    "capture": ("Capture",),
    "classifier": (
        "DEFAULT",
        "Classifier",
        "Verdict",
    ),
    "dropper": (
        "Red",
        "TailDrop",
        "Wred",
    ),
    "edge_packets": ("edges",),
    "install_acl": ("RteAcl",),
    "install_bpf": (
        "TcBpf",
        "XdpIngress",
    ),
    "install_bridge": ("NftBridge",),
    "install_nft": ("NftIngress",),
    "install_ovs": ("OvsFlows",),
    "install_tc": (
        "TcFlower",
        "TcU32",
    ),
    "spoilt": ("malformed",),
    "meter": (
        "Arrival",
        "Colour",
        "OvsMeter",
        "SrTcm",
        "TrTcm2698",
        "TrTcm4115",
    ),
    "meter_ovs": ("OvsMeterDevice",),
    "packet": ("Packet",),
    "probe": (
        "Bench",
        "Fate",
    ),
    "probed": (
        "External",
        "Probed",
    ),
    "rule": ("Rule",),
    "strategies": (
        "near",
        "policies",
    ),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
