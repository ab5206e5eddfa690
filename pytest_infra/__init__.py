"""Real network labs for pytest: hosts, switches and routers in milliseconds, and checks that say why they failed.

The public names are imported at first use (PEP 562), so that a test run without ``--infra`` pays for none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .checks import (
        assert_path,
        assert_reachable,
        assert_unreachable,
        ping,
        traceroute,
    )
    from .container import Bind, Health, Tmpfs, Volume, ready
    from .core.errors import (
        BadInput,
        CheckFailed,
        CleanupFailed,
        CommandFailed,
        InfraError,
        StartFailed,
        Unavailable,
        WaitTimeout,
    )
    from .core.wait import until
    from .lab import Lab
    from .session import Infra

__all__ = [
    "BadInput",
    "Bind",
    "CheckFailed",
    "CleanupFailed",
    "CommandFailed",
    "Health",
    "Infra",
    "InfraError",
    "Lab",
    "StartFailed",
    "Tmpfs",
    "Unavailable",
    "Volume",
    "WaitTimeout",
    "__version__",
    "assert_path",
    "assert_reachable",
    "assert_unreachable",
    "ping",
    "ready",
    "traceroute",
    "until",
]

_MODULES = {
    "checks": ("assert_path", "assert_reachable", "assert_unreachable", "ping", "traceroute"),
    "container": ("Bind", "Health", "Tmpfs", "Volume", "ready"),
    "core.errors": (
        "BadInput",
        "CheckFailed",
        "CleanupFailed",
        "CommandFailed",
        "InfraError",
        "StartFailed",
        "Unavailable",
        "WaitTimeout",
    ),
    "core.wait": ("until",),
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
