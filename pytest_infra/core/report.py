"""`Report`: what a check measured, as data and as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from math import isfinite
from typing import ClassVar

from .errors import CheckFailed
from .evidence import Artifact, attach

__all__ = ["REPORT_VERSION", "Report", "as_json", "explain", "observers", "to_json"]

REPORT_VERSION = 1
"""Raised whenever a report's fields change their meaning."""

_INDENT = 2
_LABEL_WIDTH = 11


def explain(verdict: str, rows: Sequence[tuple[str, str]]) -> str:
    """The text of a verdict: one line, then labelled rows; empty rows are left out, long ones continue below.

    The order of the rows is *measured, wanted, path, cause, ruled out, next, evidence* throughout the project.
    """
    lines = [verdict]
    for label, text in rows:
        for number, line in enumerate(text.splitlines()):
            lines.append(" " * _INDENT + (label if number == 0 else "").ljust(_LABEL_WIDTH) + line)
    return "\n".join(line.rstrip() for line in lines)


def to_json(value: object) -> object:
    """The same value in JSON types only: dataclasses and mappings as objects, sequences as arrays, the rest as text.

    JSON has no infinity and no NaN: they become null.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return None if isinstance(value, float) and not isfinite(value) else value
    if isinstance(value, Enum):
        return to_json(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_json(getattr(value, item.name)) for item in fields(value) if item.repr}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    return str(value)


def as_json(value: object) -> str:
    """The same value as JSON text, for people and programs."""
    import json

    return json.dumps(to_json(value), indent=1, ensure_ascii=False) + "\n"


@lru_cache(maxsize=1)
def observers() -> list[Callable[[Report], None]]:
    """Who is told of each report as it is made: what shows a test's measurements, whether it judged them or not."""
    return []


@dataclass(frozen=True)
class Report:
    """What was measured. A child is a frozen dataclass and says what its numbers mean in `explain`."""

    kind: ClassVar[str] = "report"

    def __post_init__(self) -> None:
        for observe in observers():
            observe(self)

    @property
    def ok(self) -> bool:
        """Whether what was measured is what was wanted."""
        return True

    def explain(self) -> str:
        """The verdict, what was measured and wanted, the cause, and what to do next."""
        return explain(self.kind, [(item.name, str(getattr(self, item.name))) for item in fields(self)])

    def to_dict(self) -> dict[str, object]:
        """The report in JSON types, with its kind and the version of the format."""
        content = to_json(self)
        assert isinstance(content, dict)
        return {"kind": self.kind, "version": REPORT_VERSION, "ok": self.ok, **content}

    def demand(self, artifacts: Iterable[Artifact] = ()) -> None:
        """Raise `CheckFailed` with the explanation, and these artifacts, unless the report is `ok`."""
        __tracebackhide__ = True
        if not self.ok:
            failure = CheckFailed(self.explain(), self.to_dict())
            attach(failure, artifacts)
            raise failure from None
