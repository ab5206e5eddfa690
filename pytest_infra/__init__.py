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
    from .checks import (
        assert_path,
        assert_reachable,
        assert_unreachable,
        ping,
        traceroute,
        workload,
    )
    from .checks.accounting import assert_accounted
    from .checks.events import assert_not_throttled, assert_oom_killed
    from .checks.limits import assert_limited
    from .checks.shares import assert_shares
    from .checks.usage import measure_usage
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
    from .faults import fill_disk, frozen, kill, memory_pressure
    from .lab import Lab
    from .session import Infra

__all__ = [
    "BadInput",
    "CheckFailed",
    "CleanupFailed",
    "CommandFailed",
    "Group",
    "Inconclusive",
    "Infra",
    "InfraError",
    "IoMax",
    "Lab",
    "StartFailed",
    "Unavailable",
    "WaitTimeout",
    "__version__",
    "assert_accounted",
    "assert_limited",
    "assert_not_throttled",
    "assert_oom_killed",
    "assert_path",
    "assert_reachable",
    "assert_shares",
    "assert_unreachable",
    "fill_disk",
    "frozen",
    "kill",
    "measure_usage",
    "memory_pressure",
    "ping",
    "traceroute",
    "until",
    "workload",
]

_MODULES = {
    "cgroup.group": ("Group",),
    "cgroup.limits": ("IoMax",),
    "checks": ("assert_path", "assert_reachable", "assert_unreachable", "ping", "traceroute", "workload"),
    "checks.accounting": ("assert_accounted",),
    "checks.events": ("assert_not_throttled", "assert_oom_killed"),
    "checks.limits": ("assert_limited",),
    "checks.shares": ("assert_shares",),
    "checks.usage": ("measure_usage",),
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
    "faults": ("fill_disk", "frozen", "kill", "memory_pressure"),
    "lab": ("Lab",),
    "session": ("Infra",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
