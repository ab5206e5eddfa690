"""Whether a teardown has failed: asked while its finalizers still run."""

from __future__ import annotations

import sys

__all__ = ["teardown_has_failed"]


def teardown_has_failed() -> bool:
    """Whether pytest, which goes on with the next finalizer when one has failed, holds an error at this moment.

    pytest tells nobody before all of them have run, and by then the lab is gone; so its frames are asked.
    """
    frame = sys._getframe(1)
    while (caller := frame.f_back) is not None:
        frame = caller
        if str(frame.f_globals.get("__name__", "")).startswith("_pytest."):
            for value in frame.f_locals.values():
                held = value if isinstance(value, list) else [value]
                if held and all(isinstance(item, BaseException) for item in held):
                    return True
    return False
