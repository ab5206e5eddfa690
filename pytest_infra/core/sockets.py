"""What Python's socket module does not have: an option of socket(7), and closing without waiting."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

__all__ = ["SO_TIMESTAMPNS", "close_in_background"]

SO_TIMESTAMPNS = 35
"""The kernel stamps what arrives (socket(7))."""


class _Closable(Protocol):
    def close(self) -> object: ...


def close_in_background(items: Sequence[_Closable]) -> None:
    """Close packet sockets without waiting: the kernel takes some ten milliseconds to be sure that nobody uses one."""

    def close() -> None:
        for item in items:
            item.close()

    threading.Thread(target=close, name="infra-close", daemon=True).start()
