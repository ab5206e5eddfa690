"""A lab as a picture: SVG, and Mermaid for pages that draw it themselves."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .facts import End, LabFacts, Wire
from .layout import place

__all__ = ["mermaid", "svg"]

_SHAPES = {"host": ('["', '"]'), "router": ('(("', '"))'), "": ('{{"', '"}}')}
_APART, _MARGIN = 260, 110
_WIDTH, _HEIGHT = 110, 40
_FILLS = {"host": "#e8f1fb", "router": "#fdf0d5", "": "#e6f4ea"}
_GOOD, _BAD, _INK = "#5f6368", "#c5221f", "#202124"


def mermaid(facts: LabFacts) -> str:
    """The lab as a Mermaid flowchart (mermaid.js.org); wires with something wrong are dotted."""
    kinds = facts.kinds
    ids = {name: f"n{number}" for number, name in enumerate(kinds)}
    lines = ["graph LR"]
    for name, kind in kinds.items():
        left, right = _SHAPES.get(kind, _SHAPES[""])
        lines.append(f"  {ids[name]}{left}{name}{'' if kind == 'host' else f' ({kind})'}{right}")
    for wire in facts.wires:
        line = "-.-" if wire.state else "---"
        lines.append(f'  {ids[wire.a.node]} {line}|"{_label(wire.a)} / {_label(wire.b)}"| {ids[wire.b.node]}')
    return "\n".join(lines) + "\n"


def _label(end: End) -> str:
    four = [address for address in end.addresses if ":" not in address]
    return " ".join(text for text in (end.port, *four[:1], end.impairment, end.state) if text)


def svg(facts: LabFacts) -> str:
    """The lab as an SVG picture, with addresses; wires with something wrong are red."""
    kinds, wires = facts.kinds, facts.wires
    where = place(list(kinds), [(wire.a.node, wire.b.node) for wire in wires])
    left, top = (min((point[axis] for point in where.values()), default=0) for axis in (0, 1))
    spots = {name: (_MARGIN + (x - left) * _APART, _MARGIN + (y - top) * _APART) for name, (x, y) in where.items()}
    width, height = (max((spot[axis] for spot in spots.values()), default=0) + _MARGIN for axis in (0, 1))
    body = [line for number, wire in enumerate(wires) for line in _wire(wire, spots, _bend(wires, number))]
    body += [line for name, kind in kinds.items() for line in _node(name, kind, spots[name])]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(facts.name)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>', *body, "</svg>", "",
    ])  # fmt: skip


def _bend(wires: list[Wire], number: int) -> float:
    """How far aside a wire goes that is not the first one between its two nodes."""
    ends = {wires[number].a.node, wires[number].b.node}
    return 40.0 * sum({wire.a.node, wire.b.node} == ends for wire in wires[:number])


def _wire(wire: Wire, spots: dict[str, tuple[float, float]], bend: float) -> Iterator[str]:
    (x1, y1), (x2, y2) = spots[wire.a.node], spots[wire.b.node]
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5 or 1.0
    middle = (x1 + x2) / 2 - (y2 - y1) / length * bend, (y1 + y2) / 2 + (x2 - x1) / length * bend
    colour = f'stroke="{_BAD}" stroke-dasharray="6 4"' if wire.state else f'stroke="{_GOOD}"'
    yield (
        f'<path d="M {x1:.0f} {y1:.0f} Q {middle[0]:.0f} {middle[1]:.0f} {x2:.0f} {y2:.0f}" fill="none" '
        f'{colour} stroke-width="2"><title>{escape(f"{wire.a} -- {wire.b} {wire.state}".strip())}</title></path>'
    )
    for end, (x, y), share in ((wire.a, (x1, y1), 0.34), (wire.b, (x2, y2), 0.34)):
        yield from _text(end, x + (middle[0] - x) * share * 2, y + (middle[1] - y) * share * 2)


def _text(end: End, x: float, y: float) -> Iterator[str]:
    for number, line in enumerate(text for text in (end.port, *end.addresses, end.impairment, end.state) if text):
        colour = _BAD if line == end.state else _INK
        yield (
            f'<text x="{x:.0f}" y="{y + 13 * number:.0f}" text-anchor="middle" font-size="10" fill="{colour}" '
            f'stroke="#ffffff" stroke-width="3" paint-order="stroke">{escape(line)}</text>'
        )


def _node(name: str, kind: str, spot: tuple[float, float]) -> Iterator[str]:
    x, y = spot
    fill, round_px = _FILLS.get(kind, _FILLS[""]), {"host": 4, "router": 20}.get(kind, 0)
    yield (
        f'<rect x="{x - _WIDTH / 2:.0f}" y="{y - _HEIGHT / 2:.0f}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'rx="{round_px}" fill="{fill}" stroke="{_GOOD}"/>'
    )
    yield f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" font-weight="bold" fill="{_INK}">{escape(name)}</text>'
    yield f'<text x="{x:.0f}" y="{y + 14:.0f}" text-anchor="middle" font-size="10" fill="{_GOOD}">{escape(kind)}</text>'
