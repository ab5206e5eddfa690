"""`assert_balanced`: connections to a service reach all of its back ends, each its share."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.node import Node
from ..core.report import Report, explain
from ..packet.statistics import chi_square_p
from .arguments import check_count
from .reach import measure_reach
from .rule_trace import list_rules

__all__ = ["BalanceReport", "assert_balanced", "measure_balance"]

_ANSWER_S = 2.0
_UNLIKELY = 1e-4
_LEAST_EACH = 5
_TRANSLATES = re.compile(r"\b(dnat|redirect)\b")


@dataclass(frozen=True)
class BalanceReport(Report):
    """Where new connections to a service went."""

    kind: ClassVar[str] = "balance"

    client: str
    service: str
    address: str
    connections: Mapping[str, int]
    """By back end, by the counters of the service's rules."""
    failures: Mapping[str, int]
    """How often connecting failed, by the system's word."""

    @property
    def attempts(self) -> int:
        """How many connections were tried."""
        return self.opened + sum(self.failures.values())

    opened: int = 0
    advice: tuple[tuple[str, str], ...] = ()
    """Rows that say why connections fail."""

    @property
    def past(self) -> int:
        """How many were opened that no rule of the service has counted."""
        return max(0, self.opened - sum(self.connections.values()))

    @property
    def p(self) -> float:
        """How likely a spread at least as uneven is, if each connection may go to any back end (chi-square)."""
        return _p(list(self.connections.values()))

    @property
    def ok(self) -> bool:
        """Whether all connections were opened by the service's rules, and went to all back ends alike."""
        complete = bool(self.opened) and not self.failures and not self.past
        return complete and all(self.connections.values()) and self.p >= _UNLIKELY

    def explain(self) -> str:
        """How many went where."""
        spread = ", ".join(f"{count} to {name}" for name, count in self.connections.items()) or "none to anybody"
        where = f"{self.service} ({self.address})"
        if self.ok:
            return explain(f"{self.client}: {self.opened} connections to {where} are spread: {spread}", [])
        failed = ", ".join(f"{count} {word}" for word, count in self.failures.items())
        verdict = f"{self.client}: {sum(self.failures.values())} of {self.attempts} connections to {where} fail"
        if not self.failures:
            verdict = f"{self.client}: connections to {where} are not spread"
        if self.past and not self.failures:
            verdict = f"{self.client}: {self.past} of {self.attempts} connections to {where} went past the service"
        rows = [
            ("measured", f"{self.opened} opened, {spread}" + (f"; {failed}" if failed else "")),
            ("wanted", "all opened, and to each back end as many as to any other"),
        ]
        return explain(verdict, [*rows, *(self.advice or [("cause", self._cause())])])

    def _cause(self) -> str:
        if not self.connections:
            return "the service has no back ends"
        if self.past:
            return "something else translates or has the address: no rule of the service has counted them"
        if not any(self.connections.values()):
            return f"{self.client} does not know the service: none of its rules has seen a connection"
        if self.failures:
            return "each back end answers the client directly, so what translates the address loses connections"
        if idle := [name for name, count in self.connections.items() if not count]:
            return f"no connection went to {', '.join(idle)}: no rule leads there, or something else chooses"
        return "the rules prefer some back ends, or something else than its rules chooses them"


def _p(counts: list[int]) -> float:
    total = sum(counts)
    if len(counts) < 2 or not total:
        return 1.0 if total else 0.0
    return chi_square_p(counts, [1.0] * len(counts))


def measure_balance(client: Node, service: Any, *, count: int = 50) -> BalanceReport:
    """Open connections to a service one after the other, and see where they went.

    Args:
        client: who connects.
        service: one of ``lab.service``, for TCP.
        count: how many connections, 1 to 65535.

    Raises:
        BadInput: an argument that cannot be.
    """
    if getattr(service, "protocol", "") != "tcp":
        raise BadInput(f"the balance of a service for TCP can be measured, not that of {service!r}")
    before = service.connections()
    if check_count(count) < _LEAST_EACH * len(before):
        raise BadInput(f"{count} connections tell too little of {len(before)} back ends; try {_LEAST_EACH} for each")
    outcomes = client.call(_connect, service.address, service.port, check_count(count))
    after = service.connections()
    failures: dict[str, int] = {}
    for word in filter(None, outcomes):
        failures[word] = failures.get(word, 0) + 1
    report = BalanceReport(
        client.name,
        service.name,
        f"{service.address}:{service.port}",
        {name: after[name] - before.get(name, 0) for name in after},
        failures,
        opened=outcomes.count(""),
    )
    if failures:
        return replace(report, advice=_advice(client, service)) if any(report.connections.values()) else report
    return replace(report, advice=_others(client, service)) if report.past else report


def _others(client: Node, service: Any) -> tuple[tuple[str, str], ...]:
    """The client's rules that translate destinations, and are none of the service's."""
    step = ("next", f"look at nft list ruleset in {client.name}, and at the priorities of its nat chains")
    found, table = [], ""
    for line in map(str.strip, client.call(list_rules)):
        if line.startswith("table "):
            table = line.removeprefix("table ").partition(" {")[0]
        elif _TRANSLATES.search(line) and table != f"ip {service.table}":
            found.append(f"'{line}' (table {table})")
    if not found:
        return ()
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return ("cause", f"{client.name} has another rule that translates: {found[0]}{more}"), step


def _advice(client: Node, service: Any) -> tuple[tuple[str, str], ...]:
    """Why the client does not reach the first of the back ends that it does not reach by itself."""
    for backend in service.backends:
        reached = measure_reach(client, (backend.node, backend.address), protocol="tcp", port=backend.port)
        if not reached.ok:
            rows = reached.autopsy.rows() if reached.autopsy is not None else [("cause", "it does not answer")]
            told = [(name, f"the back end {backend}: {text}" if name == "cause" else text) for name, text in rows]
            return tuple((name, text) for name, text in told if text)
    return ()


def _connect(address: str, port: int, count: int) -> list[str]:
    outcomes = []
    for _ in range(count):
        try:
            socket.create_connection((address, port), timeout=_ANSWER_S).close()
            outcomes.append("")
        except OSError as error:
            outcomes.append((error.strerror or str(error) or type(error).__name__).lower())
            if len(outcomes) >= 10 and all(outcomes):
                break  # nothing has come through
    return outcomes


def assert_balanced(client: Node, service: Any, *, count: int = 50) -> BalanceReport:
    """Check that connections to a service reach all of its back ends alike.

    Args:
        client: who connects.
        service: one of ``lab.service``, for TCP.
        count: how many connections.

    Raises:
        BadInput: an argument that cannot be.
        CheckFailed: a connection failed or went past the service's rules, or the spread is one that chance gives in
            less than 1 of 10,000 runs.
    """
    __tracebackhide__ = True
    report = measure_balance(client, service, count=count)
    report.demand()
    return report
