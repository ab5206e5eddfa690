"""The skip policy: the one place where `Unavailable` becomes a skip, and the lines that count them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from ..core.errors import CheckFailed, InfraError, Unavailable
from .options import SETTINGS

__all__ = ["LACKS", "Skips"]

LACKS = "infra_lacks"
"""The attribute of a report that says what was lacking: ``[what, why, remedy]``."""


class Skips:
    """The hooks: turns a lack into a skip, and counts, where the terminal is, the tests skipped for each."""

    def __init__(self) -> None:
        self.lacks: Counter[tuple[str, ...]] = Counter()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn a lack into a skip; where it is an error, an xfail marker does not excuse it."""
        _end_at_caller(item, call)
        report = yield
        lacking = _lack(call)  # only now: of a unittest.TestCase, the error is known since the report was made
        if lacking is None:
            return report
        vars(report).pop("wasxfail", None)
        if item.config.stash[SETTINGS].demands(lacking.what):
            report.outcome = "failed"
            return report
        skip = pytest.skip.Exception(str(lacking)).with_traceback(lacking.__traceback__)
        call.excinfo = pytest.ExceptionInfo.from_exception(skip)
        path, line, _ = item.reportinfo()
        report.outcome = "skipped"
        report.longrepr = (os.fspath(path), (line or 0) + 1, f"Skipped: {lacking}")
        vars(report)[LACKS] = [
            lacking.what,
            lacking.why,
            lacking.remedy,
        ]  # JSON: xdist sends it to the controller
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count it."""
        if lacks := vars(report).get(LACKS):
            self.lacks[tuple(lacks)] += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was lacking, once for each."""
        for lacks, count in self.lacks.items():
            tests = "1 test" if count == 1 else f"{count} tests"
            terminalreporter.write_line(f"infra: {tests} skipped: {Unavailable(*lacks)}")


def _lack(call: pytest.CallInfo[None]) -> Unavailable | None:
    error = call.excinfo.value if call.excinfo is not None and call.when != "teardown" else None
    return error if isinstance(error, Unavailable) and not _follows_a_failure(error) else None


def _follows_a_failure(error: BaseException) -> bool:
    """Whether it was raised while an assertion's failure was handled, which a skip would hide."""
    seen: set[int] = set()
    earlier = error.__context__
    while earlier is not None and id(earlier) not in seen:
        if isinstance(earlier, AssertionError):
            return True
        seen.add(id(earlier))
        earlier = earlier.__context__
    return False


def _end_at_caller(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """The traceback of one of our errors ends at the user's line; a lack that becomes a skip has none to show."""
    error = call.excinfo.value if call.excinfo is not None else None
    if not isinstance(error, (InfraError, CheckFailed)) or item.config.getoption("fulltrace"):
        return
    if (lacking := _lack(call)) is None or item.config.stash[SETTINGS].demands(lacking.what):
        from ..core.caller import end_at_caller

        end_at_caller(error)
