"""Real network labs for pytest: hosts, switches and routers in milliseconds, and checks that say why they failed.

The public names are imported at first use (PEP 562), so that a test run without ``--infra`` pays for none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .cgroup.group import Group
    from .cgroup.limits import IoMax
    from .checks import assert_path, assert_reachable, assert_unreachable, ping, traceroute, workload
    from .checks.accounting import assert_accounted
    from .checks.agree import assert_agrees, assert_installs
    from .checks.balance import assert_flow_affinity, assert_flow_order, assert_spread
    from .checks.balanced import assert_balanced
    from .checks.classify import assert_classified, assert_dropped
    from .checks.compare import assert_ratio, compare
    from .checks.converge import assert_all_reachable, assert_converged, assert_reconverged
    from .checks.deliver import connect_flows, send_flows
    from .checks.drop_curve import assert_drop_curve
    from .checks.events import assert_not_throttled, assert_oom_killed
    from .checks.find_rate import assert_rate, find_rate
    from .checks.forwarding import assert_forwarded, assert_no_drops, measure_forwarding
    from .checks.gpu_clean import assert_gpu_clean
    from .checks.gpu_overlap import assert_overlap, measure_overlap
    from .checks.gpu_transfer import assert_transfer, measure_transfer
    from .checks.http import assert_http, measure_http
    from .checks.latency import assert_jitter, assert_latency, measure_latency
    from .checks.limits import assert_limited
    from .checks.loss import assert_loss, measure_loss
    from .checks.meter import assert_metered
    from .checks.migration import assert_migrates
    from .checks.multicast import assert_multicast
    from .checks.multipath import assert_multipath
    from .checks.packet_rate import measure_packet_rate
    from .checks.pipeline import Stage, assert_pipeline, measure_pipeline
    from .checks.police import assert_policed, offer
    from .checks.resolve import assert_resolves
    from .checks.schedule import assert_link_shares, assert_priority, assert_shaped
    from .checks.shares import assert_shares, measure_shares
    from .checks.survive import assert_survives
    from .checks.throughput import assert_throughput, measure_throughput
    from .checks.track import assert_tracks
    from .checks.usage import measure_usage
    from .container import Bind, Health, Tmpfs, Volume, ready
    from .core.errors import (
        BadInput,
        CheckFailed,
        CleanupFailed,
        CommandFailed,
        Inconclusive,
        InfraError,
        StartFailed,
        Unavailable,
        WaitTimeout,
    )
    from .core.wait import until
    from .faults import (
        blackhole,
        clock_moved,
        cut,
        daemon_down,
        delay_step,
        duplicate_address,
        fill_disk,
        flapping,
        frozen,
        kill,
        memory_pressure,
        moved_mac,
        one_way,
        partition,
    )
    from .lab import Lab
    from .net.ovs_dpdk import Policer
    from .net.ovs_openflow import Bucket
    from .session import Infra
    from .vm.nic import SocketNic, UserNic, VdeNic

__all__ = [
    "BadInput",
    "Bind",
    "Bucket",
    "CheckFailed",
    "CleanupFailed",
    "CommandFailed",
    "Group",
    "Health",
    "Inconclusive",
    "Infra",
    "InfraError",
    "IoMax",
    "Lab",
    "Policer",
    "SocketNic",
    "Stage",
    "StartFailed",
    "Tmpfs",
    "Unavailable",
    "UserNic",
    "VdeNic",
    "Volume",
    "WaitTimeout",
    "__version__",
    "assert_accounted",
    "assert_agrees",
    "assert_all_reachable",
    "assert_balanced",
    "assert_classified",
    "assert_converged",
    "assert_drop_curve",
    "assert_dropped",
    "assert_flow_affinity",
    "assert_flow_order",
    "assert_forwarded",
    "assert_gpu_clean",
    "assert_http",
    "assert_installs",
    "assert_jitter",
    "assert_latency",
    "assert_limited",
    "assert_link_shares",
    "assert_loss",
    "assert_metered",
    "assert_migrates",
    "assert_multicast",
    "assert_multipath",
    "assert_no_drops",
    "assert_not_throttled",
    "assert_oom_killed",
    "assert_overlap",
    "assert_path",
    "assert_pipeline",
    "assert_policed",
    "assert_priority",
    "assert_rate",
    "assert_ratio",
    "assert_reachable",
    "assert_reconverged",
    "assert_resolves",
    "assert_shaped",
    "assert_shares",
    "assert_spread",
    "assert_survives",
    "assert_throughput",
    "assert_tracks",
    "assert_transfer",
    "assert_unreachable",
    "blackhole",
    "clock_moved",
    "compare",
    "connect_flows",
    "cut",
    "daemon_down",
    "delay_step",
    "duplicate_address",
    "fill_disk",
    "find_rate",
    "flapping",
    "frozen",
    "kill",
    "measure_forwarding",
    "measure_http",
    "measure_latency",
    "measure_loss",
    "measure_overlap",
    "measure_packet_rate",
    "measure_pipeline",
    "measure_shares",
    "measure_throughput",
    "measure_transfer",
    "measure_usage",
    "memory_pressure",
    "moved_mac",
    "offer",
    "one_way",
    "partition",
    "ping",
    "ready",
    "send_flows",
    "traceroute",
    "until",
    "workload",
]

_MODULES = {
    "cgroup.group": ("Group",),
    "cgroup.limits": ("IoMax",),
    "checks": ("assert_path", "assert_reachable", "assert_unreachable", "ping", "traceroute", "workload"),
    "checks.accounting": ("assert_accounted",),
    "checks.agree": ("assert_agrees", "assert_installs"),
    "checks.balance": ("assert_flow_affinity", "assert_flow_order", "assert_spread"),
    "checks.balanced": ("assert_balanced",),
    "checks.classify": ("assert_classified", "assert_dropped"),
    "checks.compare": ("assert_ratio", "compare"),
    "checks.converge": ("assert_all_reachable", "assert_converged", "assert_reconverged"),
    "checks.deliver": ("connect_flows", "send_flows"),
    "checks.drop_curve": ("assert_drop_curve",),
    "checks.events": ("assert_not_throttled", "assert_oom_killed"),
    "checks.find_rate": ("assert_rate", "find_rate"),
    "checks.forwarding": ("assert_forwarded", "assert_no_drops", "measure_forwarding"),
    "checks.gpu_clean": ("assert_gpu_clean",),
    "checks.gpu_overlap": ("assert_overlap", "measure_overlap"),
    "checks.gpu_transfer": ("assert_transfer", "measure_transfer"),
    "checks.http": ("assert_http", "measure_http"),
    "checks.latency": ("assert_jitter", "assert_latency", "measure_latency"),
    "checks.limits": ("assert_limited",),
    "checks.loss": ("assert_loss", "measure_loss"),
    "checks.meter": ("assert_metered",),
    "checks.migration": ("assert_migrates",),
    "checks.multicast": ("assert_multicast",),
    "checks.multipath": ("assert_multipath",),
    "checks.packet_rate": ("measure_packet_rate",),
    "checks.pipeline": ("Stage", "assert_pipeline", "measure_pipeline"),
    "checks.police": ("assert_policed", "offer"),
    "checks.resolve": ("assert_resolves",),
    "checks.schedule": ("assert_link_shares", "assert_priority", "assert_shaped"),
    "checks.shares": ("assert_shares", "measure_shares"),
    "checks.survive": ("assert_survives",),
    "checks.throughput": ("assert_throughput", "measure_throughput"),
    "checks.track": ("assert_tracks",),
    "checks.usage": ("measure_usage",),
    "container": ("Bind", "Health", "Tmpfs", "Volume", "ready"),
    "core.errors": (
        "BadInput",
        "CheckFailed",
        "CleanupFailed",
        "CommandFailed",
        "Inconclusive",
        "InfraError",
        "StartFailed",
        "Unavailable",
        "WaitTimeout",
    ),
    "core.wait": ("until",),
    "faults": (
        "blackhole",
        "clock_moved",
        "cut",
        "daemon_down",
        "delay_step",
        "duplicate_address",
        "fill_disk",
        "flapping",
        "frozen",
        "kill",
        "memory_pressure",
        "moved_mac",
        "one_way",
        "partition",
    ),
    "lab": ("Lab",),
    "net.ovs_dpdk": ("Policer",),
    "net.ovs_openflow": ("Bucket",),
    "session": ("Infra",),
    "vm.nic": ("SocketNic", "UserNic", "VdeNic"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
