"""Which line of the user's code is asking: for messages that name it, and for tracebacks that end there."""

from __future__ import annotations

import os
import sys
from types import FrameType

__all__ = ["caller_line", "end_at_caller"]

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


def end_at_caller(error: BaseException) -> None:
    """Cut an error's traceback after the innermost line of the user's, so that it shows no line of this package.

    The errors that it came from keep their text only. Where no line is the user's, nothing is cut.
    """
    last = None
    entry = error.__traceback__
    while entry is not None:
        if _is_users(entry.tb_frame):
            last = entry
        entry = entry.tb_next
    if last is None:
        return
    last.tb_next = None
    origin = error.__cause__ or error.__context__
    while origin is not None:
        origin.__traceback__ = None
        origin = origin.__cause__ or origin.__context__


def _is_users(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    ours = frame.f_code.co_filename.startswith(_PACKAGE)
    return not ours and package not in {"pytest", "_pytest", "pluggy"} and package not in sys.stdlib_module_names
