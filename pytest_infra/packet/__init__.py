"""Packet classification, metering, scheduling and balancing: pure models, and real devices to compare them with.

The names are imported at first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auditing import audit
    from .classifier import DEFAULT, Classifier, Verdict
    from .dropper import Red, TailDrop, Wred
    from .edge_packets import edges
    from .hierarchy import LinkClass, Scheduler
    from .install_acl import RteAcl
    from .install_bpf import TcBpf, XdpIngress
    from .install_bridge import NftBridge
    from .install_nft import NftIngress
    from .install_ovs import OvsFlows
    from .install_router import NftRouter
    from .install_tc import TcFlower, TcU32
    from .meter import Arrival, Colour, OvsMeter, SrTcm, TrTcm2698, TrTcm4115
    from .meter_ovs import OvsMeterDevice
    from .packet import Packet
    from .police import Police
    from .probe import Bench, Fate
    from .probed import External, Probed
    from .red import RedQueue
    from .rule import Rule
    from .spoilt import malformed
    from .strategies import near, policies
    from .tracking import Tracked, error_about

__all__ = [
    "DEFAULT",
    "Arrival",
    "Bench",
    "Classifier",
    "Colour",
    "External",
    "Fate",
    "LinkClass",
    "NftBridge",
    "NftIngress",
    "NftRouter",
    "OvsFlows",
    "OvsMeter",
    "OvsMeterDevice",
    "Packet",
    "Police",
    "Probed",
    "Red",
    "RedQueue",
    "RteAcl",
    "Rule",
    "Scheduler",
    "SrTcm",
    "TailDrop",
    "TcBpf",
    "TcFlower",
    "TcU32",
    "TrTcm2698",
    "TrTcm4115",
    "Tracked",
    "Verdict",
    "Wred",
    "XdpIngress",
    "audit",
    "edges",
    "error_about",
    "malformed",
    "near",
    "policies",
]

_MODULES = {
    "red": ("RedQueue",),
    "tracking": (
        "Tracked",
        "error_about",
    ),
    "police": ("Police",),
    "install_router": ("NftRouter",),
    "hierarchy": (
        "LinkClass",
        "Scheduler",
    ),
    "auditing": ("audit",),
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
