"""What the tests of failure texts share: how to break a lab, and texts without what differs from run to run."""

from __future__ import annotations

import re
import sys
from typing import Any

from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks import measure_reach

__all__ = ["WITHIN", "cause", "nft", "normal", "sh"]

WITHIN = "100 ms"


def normal(text: str) -> str:
    """The text without what differs from run to run, or from kernel to kernel."""
    text = re.sub(r"\b[\d.e+-]+ (us|ms|s)\b", "<time>", text)
    text = re.sub(r", at the last of \d+ tries", "", text)
    text = re.sub(r"declared at \S+:\d+", "declared at <line>", text)
    text = re.sub(r"has dropped \d+ packets?", "has dropped <n> packets", text)
    text = re.sub(r"^ +kernel .*\n", "", text, flags=re.MULTILINE)
    text = text.replace(sys.executable, "python")
    return re.sub(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "<mac>", text)


def sh(node: Any, command: str) -> None:
    """Run a command that has no spaces in its arguments."""
    node.run(command.split())


def nft(node: Any, hook: str, rule: str) -> None:
    """Add a filter rule in a table of its own."""
    node.run(["nft", "add table inet t"])
    node.run(["nft", f"add chain inet t c {{ type filter hook {hook} priority 0; }}"])
    node.run(["nft", f"add rule inet t c {rule}"])


def cause(a: Any, b: Any, kind: str, node: str, snapshot: SnapshotAssertion, **options: Any) -> None:
    """The check fails, for this cause at this node, and says so in these words."""
    report = measure_reach(a, b, **{"within": WITHIN, **options})
    assert not report.ok
    assert report.autopsy is not None
    assert report.autopsy.finding is not None, report.explain()
    assert (report.autopsy.finding.kind, report.autopsy.finding.node) == (kind, node), report.explain()
    assert normal(report.explain()) == snapshot
