"""What ends a run from outside: signals, and the death of the controller of pytest-xdist."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["end_in_order", "end_with_controller"]


def end_in_order() -> Any:
    """Let SIGTERM and SIGHUP end the run as Ctrl-C does, where nobody else handles them; returns the undoing."""
    import signal
    import threading

    def end(number: int, _frame: object) -> None:
        pytest.exit(signal.Signals(number).name, returncode=128 + number)

    before = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before.append((number, signal.signal(number, end)))
    return lambda: [signal.signal(number, handler) for number, handler in before]


def end_with_controller() -> None:
    """A worker of pytest-xdist whose controller was killed would go on for as long as its test takes."""
    import signal

    from ..core.linux import die_with_parent

    die_with_parent(signal.SIGTERM)
