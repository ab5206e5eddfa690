"""The marker ``infra_exclusive``: what a test holds alone, on the whole machine."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

__all__ = ["give_back", "take_exclusive"]

_LOCKS = pytest.StashKey[ExitStack]()


def take_exclusive(item: pytest.Item) -> None:
    """Wait for what the test's markers name, and hold it."""
    if marks := _exclusive_marks(item):
        locks = item.stash[_LOCKS] = ExitStack()
        for name in sorted(marks):
            _hold(marks[name], locks)


def give_back(item: pytest.Item) -> None:
    """Let others have it."""
    if (locks := item.stash.get(_LOCKS, None)) is not None:
        locks.close()


def _exclusive_marks(item: pytest.Item) -> dict[str, pytest.Mark]:
    """By name, as all tests must take several in the same order; of two for one name the closer to the test counts."""
    marks = reversed(list(item.iter_markers("infra_exclusive")))
    return {str(mark.args[0] if mark.args else mark.kwargs.get("name")): mark for mark in marks}


def _hold(mark: pytest.Mark, locks: ExitStack) -> None:
    """Take what an `infra_exclusive` marker names; it is given back with `locks`."""
    from ..core.lock import exclusive

    try:
        lock = exclusive(*mark.args, **mark.kwargs)
    except TypeError as error:
        pytest.fail(f"infra_exclusive: {str(error).replace('exclusive()', 'the marker')}", pytrace=False)
    locks.enter_context(lock)
