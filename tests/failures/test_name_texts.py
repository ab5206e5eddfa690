"""What assert_resolves and assert_balanced say."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks.balanced import BalanceReport
from pytest_infra.checks.resolve import ResolveReport
from pytest_infra.core.report import Report


def resolve(failure: str = "", found: tuple[str, ...] = (), wanted: tuple[str, ...] | None = ("10.96.0.1",)) -> Report:
    full = "web.prod.svc.cluster.local" if found else ""
    return ResolveReport("client", "web", ("10.0.0.53",), ("prod.svc.cluster.local",), found, full, failure, wanted)


def balance(connections: dict[str, int], opened: int, failures: dict[str, int] | None = None) -> Report:
    return BalanceReport("client", "web", "10.96.0.1:80", connections, failures or {}, opened)


REPORTS: dict[str, Report] = {
    "resolves": resolve(found=("10.96.0.1",)),
    "elsewhere": resolve(found=("192.0.2.7",)),
    "no such name": resolve("no such name"),
    "no address": resolve("no address"),
    "no answer": resolve("no answer"),
    "refused": resolve("refused", wanted=None),
    "no name server": ResolveReport("client", "web", (), (), (), "", "no name server", None),
    "should not resolve": resolve(found=("192.0.2.7",), wanted=()),
    "nobody says that it does not resolve": resolve("no answer", wanted=()),
    "does not resolve as wanted": resolve("no such name", wanted=()),
    "balanced": balance({"b1:80": 10, "b2:80": 11}, 21),
    "uneven": balance({"b1:80": 40, "b2:80": 2}, 42),
    "past the service": balance({"b1:80": 8, "b2:80": 8}, 50),
    "idle back end": balance({"b1:80": 10, "b2:80": 0}, 10),
    "dead back end": balance({"b1:80": 10, "b2:80": 10}, 10, {"connection refused": 10}),
    "nobody knows it": balance({"b1:80": 0}, 0, {"network is unreachable": 10}),
    "no back ends": balance({}, 0, {"connection refused": 10}),
}


@pytest.mark.parametrize("name", REPORTS)
def test_text(name: str, snapshot: SnapshotAssertion) -> None:
    assert REPORTS[name].explain() == snapshot
