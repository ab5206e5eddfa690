"""What a report measured, as rows and small pictures: worked out from its data, whatever check it is of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ..core.units import format_duration, format_rate, format_size

__all__ = ["Series", "figures", "formatted", "plots", "series_of"]

_MOST_PLOTS = 4
_MOST_BARS = 16
_LEAST_POINTS = 3
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 420, 132, 62, 20
_SKIPPED = frozenset({"version", "ok"})


@dataclass(frozen=True)
class Series:
    """Numbers that belong together: a line over their order, or where they have names a bar for each."""

    name: str
    """The field they come from, with its unit: ``rtt_s``."""
    values: tuple[float | None, ...]
    """None where nothing was measured."""
    labels: tuple[str, ...] = ()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def figures(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The single numbers of a report, as name and text; those of an object in it by ``outer.inner``."""
    for name, value in data.items():
        if name in _SKIPPED:
            continue
        if _is_number(value):
            yield name, formatted(name, value)
        elif isinstance(value, Mapping):
            for inner, number in value.items():
                if _is_number(number):
                    yield f"{name}.{inner}", formatted(f"{name}_s" if name == "rtt" else inner, number)


def formatted(name: str, value: float) -> str:
    """A number for a reader, by the unit in its name."""
    for ending, text in (("_bps", format_rate), ("_bytes", format_size), ("_s", format_duration)):
        if name.endswith(ending):
            return text(value)
    if name.rpartition(".")[2] in ("loss", "share") and 0 <= value <= 1:
        return f"{100 * value:.3g}%"
    if name in ("port", "pid"):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def series_of(data: Mapping[str, Any]) -> list[Series]:
    """The series in a report's data: lists of numbers, lists of objects with numbers, objects of numbers by name."""
    found: list[Series] = []
    for name, value in data.items():
        if isinstance(value, Mapping) and name != "rtt":
            found += _bars(name, value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found += _lines(name, value)
    return found[:_MOST_PLOTS]


def _bars(name: str, value: Mapping[str, Any]) -> Iterator[Series]:
    numbers = {label: number for label, number in value.items() if _is_number(number)}
    if 2 <= len(numbers) == len(value) <= _MOST_BARS:
        yield Series(name, tuple(numbers.values()), tuple(numbers))


def _lines(name: str, value: Sequence[Any]) -> Iterator[Series]:
    if all(item is None or _is_number(item) for item in value):
        if sum(item is not None for item in value) >= _LEAST_POINTS:
            yield Series(name, tuple(value))
    elif value and all(isinstance(item, Mapping) for item in value):
        yield from _of_objects(name, value)


def _of_objects(name: str, value: Sequence[Mapping[str, Any]]) -> Iterator[Series]:
    labels = tuple(str(item["name"]) for item in value if isinstance(item.get("name"), str))
    for field in value[0]:
        numbers = tuple(item[field] if _is_number(item.get(field)) else None for item in value)
        if len(set(numbers)) < 2:
            continue
        if len(labels) == len(value) <= _MOST_BARS:
            yield Series(f"{name}.{field}", numbers, labels)
        elif sum(number is not None for number in numbers) >= _LEAST_POINTS and field not in ("sequence", "number"):
            yield Series(f"{name}.{field}", numbers)


def plots(data: Mapping[str, Any]) -> list[str]:
    """The series of a report as pictures (SVG, with classes that the page styles)."""
    return [_bar_plot(series) if series.labels else _line_plot(series) for series in series_of(data)]


def _line_plot(series: Series) -> str:
    values = [value for value in series.values if value is not None]
    low, high = min([0.0, *values]), max(values)
    span = (high - low) or 1.0
    right = _WIDTH - _LEFT - 12

    def spot(number: int, value: float) -> tuple[float, float]:
        x = _LEFT + right * number / max(len(series.values) - 1, 1)
        return x, 10 + (_HEIGHT - _BOTTOM - 16) * (1 - (value - low) / span)

    runs: list[list[str]] = [[]]
    dots = []
    for number, value in enumerate(series.values):
        if value is None:
            runs.append([])
            continue
        x, y = spot(number, value)
        runs[-1].append(f"{x:.1f},{y:.1f}")
        about = f"{number + 1}: {formatted(series.name, value)}"
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2"><title>{escape(about)}</title></circle>')
    lines = [f'<polyline points="{" ".join(run)}"/>' for run in runs if len(run) > 1]
    base = _HEIGHT - _BOTTOM - 6
    body = [*_scale(series.name, low, high, base), *lines, *(dots if len(dots) <= 120 else [])]
    body.append(f'<text class="axis" x="{_LEFT}" y="{_HEIGHT - 6}">1</text>')
    body.append(f'<text class="axis" x="{_WIDTH - 12}" y="{_HEIGHT - 6}" text-anchor="end">{len(series.values)}</text>')
    return _figure(series.name, _HEIGHT, body)


def _scale(name: str, low: float, high: float, base: float) -> Iterator[str]:
    for value, y in ((high, 10.0), (low, base)):
        yield f'<line class="rail" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y:.0f}" y2="{y:.0f}"/>'
        text = escape(formatted(name, value))
        yield f'<text class="axis" x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{text}</text>'


def _bar_plot(series: Series) -> str:
    most = max((abs(value) for value in series.values if value is not None), default=0) or 1.0
    left, room = 120, _WIDTH - 120 - 84
    body = []
    for number, (label, value) in enumerate(zip(series.labels, series.values, strict=True)):
        y = 6 + 20 * number
        body.append(f'<text class="lane" x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(label[:18])}</text>')
        if value is not None:
            width = room * abs(value) / most
            body.append(f'<rect x="{left}" y="{y}" width="{max(width, 1):.1f}" height="14" rx="2"/>')
            text = escape(formatted(series.name, value))
            body.append(f'<text class="axis" x="{left + width + 6:.1f}" y="{y + 11}">{text}</text>')
    return _figure(series.name, 12 + 20 * len(series.values), body)


def _figure(name: str, height: float, body: Sequence[str]) -> str:
    picture = "\n".join([f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img">', *body, "</svg>"])
    return f"<figure>{picture}<figcaption>{escape(name)}</figcaption></figure>"
