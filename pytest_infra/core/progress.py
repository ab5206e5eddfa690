"""What takes more than two seconds is told while it lasts: images being made, kernels being fetched, large labs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["PROGRESS", "taking_long"]

PROGRESS = logging.getLogger("pytest_infra.progress")
"""Gets a line when something has begun to take long, and one at its end; who wants them sets its level to INFO."""
_AFTER_S = 2.0


@contextmanager
def taking_long(what: str) -> Iterator[None]:
    """Within it something is done that may take long; it is told if it does, and how long it took in the end.

    Args:
        what: in words: ``"building the image web"``.
    """
    if not PROGRESS.isEnabledFor(logging.INFO):
        yield
        return
    began = time.monotonic()
    timer = threading.Timer(_AFTER_S, PROGRESS.info, ["infra: %s …", what])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if (took_s := time.monotonic() - began) > _AFTER_S:
            PROGRESS.info("infra: %s took %.1f s", what, took_s)
