"""``--infra-pause``: after a failure, wait with the lab still up."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

__all__ = ["Pause", "check_pause"]

_MOST_LINES = 20


def check_pause(config: pytest.Config, terminal: bool) -> None:
    """Refuse to pause where nobody could go on."""
    if config.getoption("numprocesses", None) or config.getoption("tx", None):
        raise pytest.UsageError("--infra-pause cannot be used with -n: the workers have no terminal")
    if not terminal:
        raise pytest.UsageError("--infra-pause needs a terminal to wait at, and standard input is none")


class Pause:
    """The hook."""

    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector, report: Any) -> None:
        """With ``--infra-pause``, say why the test failed, and wait while its lab is still up."""
        config = node.config
        capture = config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            capture.suspend(in_=True)
        try:
            sys.stdout.write("\n" + "\n".join([report.longreprtext, "", *_pause_text(node.nodeid)]))
            sys.stdout.flush()
            sys.stdin.readline()
        finally:
            if capture is not None:
                capture.resume()


def _pause_text(nodeid: str) -> Iterator[str]:
    from ..core.sweep import leases

    yield f"{nodeid} has failed; its lab is still up. From another terminal:"
    for lease in leases():
        if lease.session.get("pid") == os.getpid():
            lines = [
                f"  pytest-infra shell {name} {node}" for name, facts in lease.labs.items() for node in facts["nodes"]
            ]
            yield from lines[:_MOST_LINES]
            if len(lines) > _MOST_LINES:
                yield f"  … and {len(lines) - _MOST_LINES} more: pytest-infra list"
    yield "Enter goes on: "
