"""The bridge to pytest-testinfra: a testinfra ``Host`` for any node, and the backend ``infra``.

``pytest --hosts=infra://LAB/NODE`` reaches a node of a lab that is up, and so does
``testinfra.get_host("LAB/NODE", connection="infra")``. testinfra itself drops what follows a slash in a URL, so that
``testinfra.get_host`` takes ``infra://NODE@LAB``.

Files, processes, sockets, interfaces, users, packages and mount points are those that the node has. A plain host of a
lab shares the machine's files and users, and has a network of its own: /sys shows that one.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .core import process
from .core.errors import BadInput
from .core.node import Node
from .core.process import Completed
from .core.requirement import PythonModule

if TYPE_CHECKING:
    import testinfra.host

__all__ = ["TESTINFRA", "host_of", "register"]

TESTINFRA = PythonModule(
    "testinfra", module="testinfra", extra="testinfra", purpose="infra_host: files, services, users of a node"
)

_OWN_SYS = """
exec 3<&- 9</sys/fs/cgroup
mount -t sysfs sysfs /sys 2>/dev/null && mount --rbind /proc/self/fd/9 /sys/fs/cgroup
exec 9<&-
exec /bin/sh -c "$0"
"""
# A node without a mount namespace of its own sees the machine's /sys, and so the machine's interfaces, in it.

_Runner = Callable[[Sequence[str], float], Completed]
_TIMEOUT_S = 60.0


def host_of(node: Node) -> testinfra.host.Host:
    """A testinfra ``Host`` that looks at a node of a lab from inside.

    ``host.run`` takes ``timeout=`` in seconds, 60 by default; a command that takes longer is killed, and an error.

    Args:
        node: a host, router, container or any other node.

    Raises:
        Unavailable: pytest-testinfra is not installed.
        BadInput: it is no node.
    """
    TESTINFRA.demand()
    if not isinstance(node, Node):
        raise BadInput(f"{node!r} is no node of a lab")

    def run(argv: Sequence[str], timeout_s: float) -> Completed:
        return node.run(_inside(node, argv), check=False, timeout_s=timeout_s)

    return _make_host(_backend_class()(node.name, run))


def _make_host(backend: Any) -> testinfra.host.Host:
    import testinfra.host

    host = testinfra.host.Host(backend)
    backend.set_host(host)
    return host


def _inside(node: Any, argv: Sequence[str]) -> Sequence[str]:
    spaces = node.namespaces() if hasattr(node, "namespaces") else {}
    if set(spaces) != {"net"}:
        return argv
    return ["unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", _OWN_SYS, argv[-1]]


def _in_shell(name: str) -> _Runner:
    """Runs commands in a node of a lab of any session of this user, as ``pytest-infra shell`` does.

    Args:
        name: ``NODE@LAB`` or ``LAB/NODE``.
    """
    node, at, lab = name.partition("@") if "@" in name else name.partition("/")[::-1]
    if not (node and at and lab):
        raise BadInput(
            f"infra://{name} names no node; write infra://NODE@LAB (testinfra drops what follows a '/' in a URL), or "
            "LAB/NODE with the connection 'infra'"
        )

    def run(argv: Sequence[str], timeout_s: float) -> Completed:
        command = [sys.executable, "-m", "pytest_infra", "shell", lab, node, "--", *argv]
        return process.run(command, check=False, timeout_s=timeout_s, where=f"{node} of the lab {lab}")

    return run


@lru_cache(maxsize=1)
def _backend_class() -> Any:
    from testinfra.backend.base import BaseBackend

    class NodeBackend(BaseBackend):  # type: ignore[misc]
        """Runs testinfra's commands in a node."""

        NAME = "infra"

        def __init__(self, name: str, run: _Runner | None = None, **options: Any) -> None:
            options.pop("timeout", None)
            super().__init__(name, **options)
            self._encoding = "utf-8"  # else testinfra runs Python in the node to ask
            self._in_node = run or _in_shell(name)

        def run(self, command: str, *args: str, timeout: float = _TIMEOUT_S, **_: Any) -> Any:
            """Run a command line, as testinfra quotes it, with the node's shell."""
            line = self.get_command(command, *args)
            done = self._in_node(["/bin/sh", "-c", line], timeout)
            return self.result(done.returncode, self.encode(line), self.encode(done.stdout), self.encode(done.stderr))

    return NodeBackend


def register(options: argparse.Namespace | None = None) -> None:
    """Make the backend ``infra`` known to testinfra, where that is installed.

    Args:
        options: pytest's; an ``infra://LAB/NODE`` in ``--hosts`` is spelt as testinfra can read it.
    """
    if TESTINFRA.probe():
        import testinfra.backend

        testinfra.backend.BACKENDS.setdefault("infra", f"{__name__}.NodeBackend")
    if options is not None and getattr(options, "hosts", None):
        options.hosts = re.sub(r"\binfra://([^/@,?]+)/([^/@,?]+)", r"infra://\2@\1", options.hosts)


def __getattr__(name: str) -> Any:
    if name == "NodeBackend":
        return _backend_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
