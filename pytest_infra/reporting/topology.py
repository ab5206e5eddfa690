"""A lab as a picture: SVG, and Mermaid for pages that draw it themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from .facts import End, LabFacts, Wire
from .layout import place

__all__ = ["drawing", "mermaid", "svg"]

_SHAPES = {"host": ('["', '"]'), "router": ('(("', '"))'), "": ('{{"', '"}}')}
_APART, _MOST_APART, _MARGIN = 230, 420, 78
_LEAST_NODE, _HEIGHT, _CHARACTER = 92, 44, 8.6
_LINE, _STEEP, _FROM_NODE = 13.5, 0.3, 84
_LABEL_CHARACTER, _LEAST_SCALE = 6.6, 0.72
_STYLE = """
.ground{fill:#fff}.wire{fill:none;stroke:#8b93a1;stroke-width:1.6}.wire.bad{stroke:#c5221f;stroke-dasharray:6 4}
.node rect{stroke-width:1.4}.host rect{fill:#e9f2fd;stroke:#6a9bd8}.router rect{fill:#fdf1d8;stroke:#d3a032}
.switch rect{fill:#e5f5ea;stroke:#5aa876}.other rect{fill:#f1ecfb;stroke:#9277cc}
.broken rect{stroke:#c5221f;stroke-dasharray:4 3}
.name{font-size:14px;font-weight:600;fill:#1c1f24}.kind{font-size:11px;fill:#5b626d}
.label{font-size:11.5px;fill:#3c424c;paint-order:stroke;stroke:#fff;stroke-width:3.5px;stroke-linejoin:round}
.label .count{fill:#6b7280}.label .bad{fill:#c5221f;font-weight:600}
@media (prefers-color-scheme:dark){.ground{fill:#15181d}.wire{stroke:#6d7686}.wire.bad{stroke:#ff7b72}
.host rect{fill:#14273f;stroke:#4a7fc1}.router rect{fill:#33280f;stroke:#b98a2a}
.switch rect{fill:#13301e;stroke:#4b9a68}.other rect{fill:#261f3a;stroke:#8168bd}.name{fill:#eceff4}.kind{fill:#9aa3b2}
.label{fill:#c9d0db;stroke:#15181d}.label .count{fill:#8e97a6}.label .bad{fill:#ff7b72}}
"""
_GROUPS = {"host": "host", "router": "router", "bridge": "switch", "ovs": "switch"}


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
    for number, (what, where) in enumerate(facts.faults):
        lines.append(f'  f{number}>"{what.replace(chr(34), "")}"]')
        lines += [f"  f{number} -.- {ids[node]}" for node in where if node in ids]
    return "\n".join(lines) + "\n"


def _label(end: End) -> str:
    four = [address for address in end.addresses if ":" not in address]
    return " ".join(text for text in (end.port, *four[:1], end.impairment, end.state) if text)


def svg(facts: LabFacts) -> str:
    """The lab as a picture of its own, for light and dark pages, with addresses; what is wrong is red."""
    return drawing(facts.name, facts.kinds, facts.wires, facts.faults)


def drawing(
    name: str, kinds: Mapping[str, str], wires: Sequence[Wire], faults: Sequence[tuple[str, Sequence[str]]] = ()
) -> str:
    """A picture (SVG 1.1 with CSS classes) of nodes, by their kinds, and the wires between them.

    Faults that last are written below it, and the nodes concerned have a red border.

    Each end of a wire shows its port, its first IPv4 address or else its first one, and where it has been counted how
    many packets came in and went out; the rest is shown by pointing at it.
    """
    where = place(list(kinds), [(wire.a.node, wire.b.node) for wire in wires])
    left, top = (min((point[axis] for point in where.values()), default=0) for axis in (0, 1))
    apart = min(max([_APART, *map(_room, wires)]), _MOST_APART)
    spots = {node: (_MARGIN + (x - left) * apart, _MARGIN + (y - top) * apart) for node, (x, y) in where.items()}
    width, height = (max((spot[axis] for spot in spots.values()), default=0) + _MARGIN for axis in (0, 1))
    body = [line for number, wire in enumerate(wires) for line in _wire(wire, spots, _bend(wires, number))]
    broken = {node for _, where in faults for node in where}
    body += [line for node, kind in kinds.items() for line in _node(node, kind, spots[node], node in broken)]
    for number, (what, _) in enumerate(faults):
        spot = f'x="12" y="{height + 6 + 18 * number:.0f}"'
        body.append(f'<text class="label" {spot}><tspan class="bad">{escape(what)}</tspan></text>')
    height += 18 * len(faults)
    width = max(width, *(24 + _LABEL_CHARACTER * len(what) for what, _ in faults)) if faults else width
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    look = f'style="min-width:{_LEAST_SCALE * width:.0f}px" font-family="system-ui, sans-serif" role="img"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {look}>',
        f"<title>{escape(name)}</title>", f"<style>{_STYLE}</style>",
        '<rect class="ground" width="100%" height="100%"/>', *body, "</svg>", "",
    ])  # fmt: skip


def _room(wire: Wire) -> float:
    """How far apart two nodes must be for the texts of a wire between them."""
    room = 12.0
    for end in (wire.a, wire.b):
        longest = max(len(text) for part in _lines(end) for _, text in part)
        room += _node_width(end.node) / 2 + 7 + _LABEL_CHARACTER * longest
    return room


def _bend(wires: Sequence[Wire], number: int) -> float:
    """How far aside a wire goes that is not the first one between its two nodes."""
    ends = {wires[number].a.node, wires[number].b.node}
    return 62.0 * sum({wire.a.node, wire.b.node} == ends for wire in wires[:number])


def _wire(wire: Wire, spots: Mapping[str, tuple[float, float]], bend: float) -> Iterator[str]:
    (x1, y1), (x2, y2) = spots[wire.a.node], spots[wire.b.node]
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5 or 1.0
    middle = (x1 + x2) / 2 - (y2 - y1) / length * bend, (y1 + y2) / 2 + (x2 - x1) / length * bend
    about = escape(f"{_whole(wire.a)}\n{_whole(wire.b)}")
    yield (
        f'<path class="wire{" bad" if wire.state else ""}" d="M {x1:.0f} {y1:.0f} '
        f'Q {middle[0]:.0f} {middle[1]:.0f} {x2:.0f} {y2:.0f}"><title>{about}</title></path>'
    )
    for end, spot in ((wire.a, (x1, y1)), (wire.b, (x2, y2))):
        yield _label_of(end, spot, middle, bent=bend > 0)


def _label_of(end: End, spot: tuple[float, float], middle: tuple[float, float], bent: bool) -> str:
    """The text at one end: along a wire that lies, what it is above and what passed below; beside one that stands.

    A bent wire is below another one, and has everything below.
    """
    above, below = _lines(end)
    above, below = ([], [*above, *below]) if bent else (above, below)
    dx, dy = middle[0] - spot[0], middle[1] - spot[1]
    if abs(dy) <= _STEEP * abs(dx):
        side = 1 if dx >= 0 else -1
        x = spot[0] + side * (_node_width(end.node) / 2 + 7)
        slope = dy / dx if dx else 0.0
        y, clear = spot[1] + (x - spot[0]) * slope, 40 * abs(slope)  # clear of a wire that rises or falls a little
        top = y - 6 - clear - _LINE * (len(above) - 1)
        lines = [(x, top + _LINE * number, *line) for number, line in enumerate(above)]
        lines += [(x, y + 15 + clear + _LINE * number, *line) for number, line in enumerate(below)]
        return _text(end, lines, "start" if side > 0 else "end")
    share = _FROM_NODE / ((dx**2 + dy**2) ** 0.5 or 1.0)
    x, y = spot[0] + dx * share + 8, spot[1] + dy * share
    whole = [*above, *below]
    top = y - 3 - _LINE * (len(whole) - 1) if dx * dy > 0 else y + 12  # on the side where the wire is not
    return _text(end, [(x, top + _LINE * number, *line) for number, line in enumerate(whole)], "start")


def _lines(end: End) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What an end is, and what happened there, each line with its class."""
    above = [("", end.port), *(("", address) for address in _shown(end))]
    below = [("", end.impairment)] if end.impairment else []
    below += [] if end.rx is None else [("count", f"{_short(end.rx)} in \u00b7 {_short(end.tx or 0)} out")]
    below += [("bad", f"{_short(end.lost)} lost")] if end.lost and end.state else []
    below += [("bad", end.state)] if end.state else []
    return above, below


def _text(end: End, lines: Sequence[tuple[float, float, str, str]], anchor: str) -> str:
    spans = "".join(
        f'<tspan class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</tspan>' for x, y, kind, text in lines
    )
    return f'<text class="label" text-anchor="{anchor}"><title>{escape(_whole(end))}</title>{spans}</text>'


def _whole(end: End) -> str:
    counted = "" if end.rx is None else f", {end.rx} packets in, {end.tx} out, {end.lost} lost"
    about = f"{end}: {', '.join(end.addresses) or 'no address'}, {end.mac}, mtu {end.mtu}{counted}"
    return " ".join(text for text in (about, end.state, end.impairment) if text)


def _shown(end: End) -> Sequence[str]:
    four = [address for address in end.addresses if ":" not in address]
    return (four or list(end.addresses))[:1]


def _short(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= 10 * size:
            return f"{number / size:.0f}{unit}"
    return str(number)


def _node_width(name: str) -> float:
    return max(_LEAST_NODE, _CHARACTER * len(name) + 20)


def _node(name: str, kind: str, spot: tuple[float, float], broken: bool) -> Iterator[str]:
    x, y = spot
    width = _node_width(name)
    round_px = {"host": 7, "router": 21}.get(kind, 3)
    place = f'x="{x - width / 2:.0f}" y="{y - _HEIGHT / 2:.0f}" width="{width:.0f}" height="{_HEIGHT}"'
    classes = f"node {_GROUPS.get(kind, 'other')}{' broken' if broken else ''}"
    yield f'<g class="{classes}"><rect {place} rx="{round_px}"/>'
    yield f'<text class="name" x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{escape(name)}</text>'
    yield f'<text class="kind" x="{x:.0f}" y="{y + 14:.0f}" text-anchor="middle">{escape(kind)}</text>'
    yield "</g>"
