"""The trace of firewall rules is read for a while only, and what was read counts."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_infra.checks import rule_trace
from pytest_infra.checks.rule_trace import RuleTrace

MESSAGE = struct.pack("=IHHII4x", 20, 0x0A11, 0, 0, 0)


class Endless:
    """A socket of a namespace in which somebody sends without end."""

    def recv(self, _: int) -> bytes:
        return MESSAGE * 50


def test_packets_of_others_do_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_trace, "_READ_S", 0.05)
    node: Any = SimpleNamespace(name="r1")
    trace = RuleTrace([node], lambda _: None)
    trace._open.append((node, Endless(), []))  # type: ignore[arg-type]
    assert trace.drops() == []
    assert trace.blind == [
        "the firewall rules of r1: other packets meet rules there without end; 0.05 s of them were looked at"
    ]
