"""What was probably meant by a name that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

__all__ = ["Named", "did_you_mean", "not_among"]

V = TypeVar("V")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """``; did you mean 'alice'?``, or nothing where no known name is like it."""
    from difflib import get_close_matches

    near = get_close_matches(str(name), list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]!r}?" if near else ""


def not_among(known: Iterable[str], *names: object) -> str:
    """The names that are not there, what was probably meant, and what there is."""
    there = list(known)
    wrong = ", ".join(f"{name!r}{did_you_mean(name, there)}" for name in names)
    return f"{wrong}{' There' if wrong.endswith('?') else '; there'} are {', '.join(there) or 'none'}"


class Named(dict[str, V]):
    """Things by name; a name that is not there is told with those that are.

    Args:
        what: what has them, for the message.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def __missing__(self, name: object) -> V:
        raise KeyError(f"{self._what} has no {not_among(self, name)}")
