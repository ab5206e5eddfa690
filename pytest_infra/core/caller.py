"""Which line of the user's code is asking: for messages that name where something was declared."""

from __future__ import annotations

import os
import sys

__all__ = ["caller_line"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def caller_line() -> str:
    """The innermost line on the stack that is outside this package, as ``FILE:LINE`` with the file's short name.

    Where pytest itself called a fixture of this package, it is the fixture's name.
    """
    frame = inner = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        inner, frame = frame, frame.f_back
    if frame.f_globals.get("__name__", "").startswith("_pytest."):
        return f"the fixture {inner.f_code.co_name}"
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
