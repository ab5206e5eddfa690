"""``--infra-keep``: labs that stay when their test has ended, for a person to look into."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

from ..core.evidence import says_something
from ..fixtures import BEFORE_END, SESSION
from .options import Choice
from .teardown import teardown_has_failed

if TYPE_CHECKING:
    from ..lab import Lab

__all__ = ["KEEP", "Keep"]

KEEP = Choice("keep", ("never", "on-failure", "always"), "never", "when a lab stays up after its test")
_KEPT_LABS = "infra_kept_labs"  # the attribute of a report: [[lab, nodes, why it was not kept], …]
_MOST_NODES = 5


class Keep:
    """The hooks."""

    def __init__(self, config: pytest.Config, when: str) -> None:
        self._config = config
        self._when = when
        self._test = ""
        self._failed: WeakKeyDictionary[Lab, str] = WeakKeyDictionary()
        """The tests that failed while a lab was up, the first one of each."""
        self._news: list[list[Any]] = []
        self._told: list[list[Any]] = []
        config.stash[BEFORE_END].append(self._before_end)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Remember whose labs they are."""
        self._test = item.nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Remember the labs that were up at a failure; tell the terminal's process of those that have been kept."""
        report = yield
        if report.failed and (session := self._config.stash.get(SESSION, None)) is not None:
            for lab in session.labs:
                self._failed.setdefault(lab, self._test)
        if self._news:
            vars(report)[_KEPT_LABS], self._news = self._news, []  # JSON types: xdist sends it to the controller
        return report

    def _before_end(self, lab: Lab, error: BaseException | None) -> None:
        failed = lab in self._failed or not lab.started or says_something(error) or teardown_has_failed()
        if self._when == "always" or failed:
            from ..core.keep import CannotKeep

            names = [*lab.nodes, *lab.switches]
            try:
                name = lab.keep(test=self._failed.get(lab, self._test), outcome="failed" if failed else "passed")
                self._news.append([name, names[:_MOST_NODES], ""])
            except CannotKeep as reason:
                self._news.append([lab.name, [], str(reason)])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what workers tell."""
        self._told += vars(report).get(_KEPT_LABS, ())

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how to enter the kept labs, and how to end them."""
        kept = [item for item in self._told if not item[2]]
        for name, _, why in self._told:
            if why:
                terminalreporter.write_line(f"infra: the lab {name} was not kept: {why}")
        for name, nodes, _ in kept:
            terminalreporter.write_line(f"infra: kept the lab {name}: pytest-infra shell {name} {'|'.join(nodes)}")
        if kept:
            terminalreporter.write_line("infra: kept labs stay until: pytest-infra clean")
