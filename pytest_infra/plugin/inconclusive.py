"""``--infra-inconclusive``: what becomes of a test whose measurement could not decide."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from ..core.errors import Inconclusive
from .options import Choice

__all__ = ["CHOICE", "InconclusiveVerdicts"]

CHOICE = Choice(
    "inconclusive",
    ("fail", "skip", "pass"),
    "fail",
    "what a test becomes whose measurement could not decide on this machine",
)
_VERDICT = "infra_inconclusive"


def _hides_a_failure(error: BaseException) -> bool:
    """Whether an assertion had failed before, as in a ``finally`` whose measurement cannot decide."""
    while not error.__suppress_context__ and (earlier := error.__context__) is not None:
        if isinstance(earlier, AssertionError):
            return True
        error = earlier
    return False


class InconclusiveVerdicts:
    """The hooks: turns the error into what was chosen, and counts such tests where the terminal is."""

    def __init__(self, config: pytest.Config) -> None:
        self._choice = CHOICE.value(config)
        self._counts: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn an `Inconclusive` into a skip or a pass."""
        report = yield
        error = call.excinfo.value if call.excinfo is not None and call.when == "call" else None
        if not isinstance(error, Inconclusive) or report.outcome != "failed" or _hides_a_failure(error):
            return report
        vars(report)[_VERDICT] = self._choice
        if self._choice == "pass":
            report.outcome, report.longrepr = "passed", None
            call.excinfo = None  # else pytest takes it for a failure to stop at: --pdb, --infra-pause
            report.sections.append(("infra: inconclusive, and passed by --infra-inconclusive=pass", str(error)))
        elif self._choice == "skip":
            skip = pytest.skip.Exception(f"inconclusive: {error}").with_traceback(error.__traceback__)
            call.excinfo = pytest.ExceptionInfo.from_exception(skip)
            path, line, _ = item.reportinfo()
            report.outcome = "skipped"
            report.longrepr = (os.fspath(path), (line or 0) + 1, f"Skipped: inconclusive: {error}")
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count it."""
        if choice := vars(report).get(_VERDICT):
            self._counts[choice] += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how many verdicts were none."""
        words = {"fail": "failed", "skip": "skipped", "pass": "passed"}
        for choice, count in self._counts.items():
            tests = "1 test was" if count == 1 else f"{count} tests were"
            terminalreporter.write_line(
                f"infra: {tests} inconclusive, and {words[choice]} (--infra-inconclusive={choice})"
            )
