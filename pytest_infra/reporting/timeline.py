"""When things happened in a test, as a picture: its phases, its checks, and what ran in each node."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from ..core.units import format_duration

__all__ = ["FAULTS", "timeline"]

FAULTS = "faults"
"""The lane of what the test has broken on purpose."""

_WIDTH, _LEFT, _RIGHT = 880, 96, 16
_ROW, _BAR, _TOP = 24, 12, 8
_MOST_ROWS = 14
_LEAST_PX = 2.5
_TICKS = 6


def timeline(
    phases: Sequence[Mapping[str, Any]], commands: Sequence[Mapping[str, Any]], checks: Sequence[Mapping[str, Any]]
) -> str:
    """A picture (SVG, with classes that the page styles); empty where nothing is known.

    Args:
        phases: ``when``, ``outcome``, ``began_s`` (since 1970) and ``took_s`` of set-up, call, teardown.
        commands: ``where``, ``line``, ``began_s``, ``took_s`` (null while it ran), ``status``.
        checks: ``kind``, ``ok`` (null where nothing was judged), ``at_s``, ``title``.
    """
    if not phases:
        return ""
    began = min(phase["began_s"] for phase in phases)
    took = max(max(phase["began_s"] + phase["took_s"] for phase in phases) - began, 1e-6)
    scale = _Scale(began, took)
    lanes = list(dict.fromkeys(command["where"] for command in commands))
    rows = [_phases(phases, scale)]
    rows += [_checks(checks, scale)] if checks else []
    rows += [
        _commands([item for item in commands if item["where"] == lane], lane, scale) for lane in lanes[:_MOST_ROWS]
    ]
    height = _TOP + _ROW * len(rows) + 22
    body = list(_axis(scale, _TOP + _ROW * len(rows)))
    body += [line for number, row in enumerate(rows) for line in _placed(row, number)]
    return "\n".join([f'<svg class="timeline" viewBox="0 0 {_WIDTH} {height}" role="img">', *body, "</svg>"])


class _Scale:
    """From seconds to pixels."""

    def __init__(self, began: float, took: float) -> None:
        self.began, self.took = began, took

    def x(self, at: float) -> float:
        share = min(max((at - self.began) / self.took, 0.0), 1.0)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def bar(self, began: float, took: float | None) -> tuple[float, float]:
        left = self.x(began)
        right = self.x(self.began + self.took if took is None else began + took)
        return left, max(right - left, _LEAST_PX)


_Row = tuple[str, list[str]]


def _placed(row: _Row, number: int) -> Iterator[str]:
    label, marks = row
    y = _TOP + _ROW * number
    yield f'<g transform="translate(0 {y})"><text class="lane" x="{_LEFT - 10}" y="15" text-anchor="end">'
    yield f'{escape(label[:14])}</text><line class="rail" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="11" y2="11"/>'
    yield from marks
    yield "</g>"


def _bar(left: float, width: float, kind: str, about: str) -> str:
    place = f'x="{left:.1f}" y="{11 - _BAR / 2:.0f}" width="{width:.1f}" height="{_BAR}" rx="2"'
    return f'<rect class="{kind}" {place}><title>{escape(about)}</title></rect>'


def _phases(phases: Sequence[Mapping[str, Any]], scale: _Scale) -> _Row:
    marks = []
    for phase in phases:
        left, width = scale.bar(phase["began_s"], phase["took_s"])
        about = f"{_NAMES.get(phase['when'], phase['when'])}: {phase['outcome']} in {format_duration(phase['took_s'])}"
        marks.append(_bar(left, width, f"phase {phase['when']} {phase['outcome']}", about))
        if width > 54:
            marks.append(f'<text class="inside" x="{left + 6:.1f}" y="15">{_NAMES.get(phase["when"], "")}</text>')
    return "phases", marks


_NAMES = {"setup": "set-up", "call": "call", "teardown": "teardown"}


def _commands(commands: Sequence[Mapping[str, Any]], lane: str, scale: _Scale) -> _Row:
    marks = []
    for item in commands:
        took = item["took_s"]
        how = "still running" if took is None else f"{format_duration(took)}, status {item['status']}"
        kind = "command" if not item["status"] else "command bad"
        if lane == FAULTS:
            how, kind = "to the end" if took is None else format_duration(took), "fault"
        marks.append(_bar(*scale.bar(item["began_s"], took), kind, f"{item['line']}\n{how}"))
    return lane, marks


def _checks(checks: Sequence[Mapping[str, Any]], scale: _Scale) -> _Row:
    marks = []
    for item in checks:
        x = scale.x(item["at_s"])
        kind = "check bad" if item["ok"] is False else "check"
        points = f"{x:.1f},4 {x + 6:.1f},11 {x:.1f},18 {x - 6:.1f},11"
        marks.append(f'<polygon class="{kind}" points="{points}"><title>{escape(item["title"])}</title></polygon>')
    return "checks", marks


def _axis(scale: _Scale, y: float) -> Iterator[str]:
    step = _step(scale.took)
    for number in range(int(scale.took / step) + 1):
        x = scale.x(scale.began + number * step)
        anchor = "start" if number == 0 else "middle" if x < _WIDTH - 40 else "end"
        yield f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{y + 3}"/>'
        text = "0" if number == 0 else format_duration(number * step)
        yield f'<text class="axis" x="{x:.1f}" y="{y + 16}" text-anchor="{anchor}">{text}</text>'


def _step(took: float) -> float:
    """The distance of the marks of the axis: 1, 2 or 5 of a power of ten."""
    power = 10.0 ** math.floor(math.log10(took / _TICKS))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * _TICKS >= took)
