"""What was measured in a test: every report of a check, on its way to the HTML report and to JUnit properties."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import pytest

from ..core.report import Report, observers
from ..fixtures import SESSION

__all__ = ["CHECKS", "Measured"]

CHECKS = "infra_checks"
"""The attribute of a report with what was measured in its phase, in JSON types and bounded."""

_MOST_REPORTS, _MOST_OF_A_KIND = 40, 8
_MOST_TEXT, _MOST_DATA_BYTES, _MOST_ITEMS = 4000, 16_000, 400
_MOST_PROPERTIES = 30
_PROPERTY = "infra_"
_OF_WHAT = ("source", "destination", "protocol", "port", "name")


@dataclass
class _Seen:
    """A report, and when it was made."""

    report: Report
    at_s: float = field(default_factory=time.time)


class Measured:
    """The hooks: hands over, at the end of each phase, what was measured in it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._seen: list[_Seen] = []
        self._left_out = 0
        observers().append(self._observe)
        config.add_cleanup(lambda: observers().remove(self._observe))

    def _observe(self, report: Report) -> None:
        self._seen.append(_Seen(report))
        if len(self._seen) > 10 * _MOST_REPORTS:
            del self._seen[0]
            self._left_out += 1

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put it into the phase's report."""
        report = yield
        checks, left_out = self._take()
        if checks:
            vars(report)[CHECKS] = {"checks": checks, "more": left_out}
        properties = self._properties(report, checks)
        for place in (item.user_properties, report.user_properties):
            known = {name for name, _ in place}
            place.extend(pair for pair in properties.items() if pair[0] not in known)
        return report

    def _take(self) -> tuple[list[dict[str, Any]], int]:
        """The latest reports of each kind, in the order in which they were made."""
        kinds: Counter[str] = Counter()
        kept: list[dict[str, Any]] = []
        told = [
            seen
            for seen, after in zip_longest(self._seen, self._seen[1:])
            if after is None or not _superseded(seen.report, after.report)
        ]
        for seen in reversed(told):
            kinds[seen.report.kind] += 1
            if kinds[seen.report.kind] <= _MOST_OF_A_KIND and len(kept) < _MOST_REPORTS:
                kept.append(_bounded(seen))
        left_out = self._left_out + len(told) - len(kept)
        self._seen, self._left_out = [], 0
        return kept[::-1], left_out

    def _properties(self, report: pytest.TestReport, checks: list[dict[str, Any]]) -> dict[str, object]:
        """The labs, the kernel, and the single numbers of the last report of each kind; none of a teardown."""
        session = self._config.stash.get(SESSION, None)
        labs = [lab.name for lab in session.labs] if session is not None else []
        if report.when == "teardown" or not (labs or checks):
            return {}
        found: dict[str, object] = {f"{_PROPERTY}lab": ", ".join(labs[:10])} if labs else {}
        found[f"{_PROPERTY}kernel"] = platform.release()
        for check in checks:
            for name, value in (check["data"] or {}).items():
                if isinstance(value, int | float) and not isinstance(value, bool) and name != "version":
                    found[f"{_PROPERTY}{check['kind']}.{name}"] = value
        return dict(list(found.items())[:_MOST_PROPERTIES])


def _superseded(one: Report, later: Report) -> bool:
    """Whether a report is a failed try of what the next one reports, or the same measurement told in less detail."""
    if one.kind != later.kind:
        return False
    mine, theirs = vars(one), vars(later)
    if any(theirs.get(name) != mine.get(name) for name in _OF_WHAT):
        return False
    series = [name for name, value in mine.items() if isinstance(value, tuple) and value]
    return not one.ok or (bool(series) and all(theirs.get(name) == mine[name] for name in series))


def _bounded(seen: _Seen) -> dict[str, Any]:
    """A report in JSON types: its text, and its data where that is not too much."""
    report = seen.report
    try:
        text, data = report.explain(), _thinned(report.to_dict())
    except Exception as error:  # noqa: BLE001 - a report that cannot be shown must not fail the test
        text, data = f"{report.kind}: cannot be shown: {type(error).__name__}: {error}", None
    if data is not None and len(json.dumps(data, default=str)) > _MOST_DATA_BYTES:
        data = {name: value for name, value in data.items() if not isinstance(value, list | dict)}
    judged = data.get("ok") if data is not None else None
    title = text.partition("\n")[0][:200]
    facts = {"kind": report.kind, "ok": judged, "at_s": seen.at_s, "title": title, "text": text[:_MOST_TEXT]}
    return {**facts, "data": json.loads(json.dumps(data, default=str))}


def _thinned(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same with long lists thinned out evenly."""
    found: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, list) and len(item) > _MOST_ITEMS:
            step = -(-len(item) // _MOST_ITEMS)
            found[name] = item[::step]
        else:
            found[name] = _thinned(item) if isinstance(item, Mapping) else item
    return found
