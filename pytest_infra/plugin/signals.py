"""What ends a run from outside: signals, and the death of the controller of pytest-xdist."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

__all__ = ["InOrder", "end_with_controller"]


class InOrder:
    """Lets SIGTERM and SIGHUP end the run as Ctrl-C does, where nobody else handles them.

    The error that does so may be raised where errors are caught, such as in the middle of collecting evidence; so the
    run ends after the test at the latest.
    """

    def __init__(self) -> None:
        self._came = 0
        self._before: list[tuple[int, Any]] = []
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                    self._before.append((number, signal.signal(number, self._end)))

    def _end(self, number: int, _frame: object) -> None:
        self._came = number
        pytest.exit(signal.Signals(number).name, returncode=128 + number)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        """End the run, if the signal has not yet."""
        if self._came:
            pytest.exit(signal.Signals(self._came).name, returncode=128 + self._came)

    def pytest_unconfigure(self) -> None:
        """Give the signals back."""
        while self._before:
            signal.signal(*self._before.pop())


def end_with_controller() -> None:
    """A worker of pytest-xdist whose controller was killed would go on for as long as its test takes."""
    from ..core.linux import die_with_parent

    die_with_parent(signal.SIGTERM)
