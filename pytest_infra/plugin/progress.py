"""Lines on the terminal while something takes long: what pytest captures is not disturbed by them."""

from __future__ import annotations

import logging
import os

import pytest

from ..core.progress import PROGRESS

__all__ = ["show_progress"]


class _OnTerminal(logging.StreamHandler):  # type: ignore[type-arg]
    """Begins each line on a line of its own: pytest may be in the middle of its dots."""

    terminator = ""

    def format(self, record: logging.LogRecord) -> str:
        return f"\n{record.getMessage()}\n"


def show_progress(config: pytest.Config) -> None:
    """Tell of what takes long where somebody looks on: at a terminal, or with ``-v``.

    pytest's own output goes to this descriptor while tests run; they themselves write elsewhere.
    """
    verbose = config.option.verbose
    if hasattr(config, "workerinput") or verbose < 0 or not (verbose or os.isatty(1)):
        return
    terminal = os.fdopen(os.dup(1), "w", encoding="utf-8")
    handler = _OnTerminal(terminal)

    def end() -> None:
        PROGRESS.removeHandler(handler)
        PROGRESS.setLevel(logging.NOTSET)
        terminal.close()

    PROGRESS.addHandler(handler)
    PROGRESS.setLevel(logging.INFO)
    config.add_cleanup(end)
