"""Where the nodes of a picture go: linked ones close together, all others apart (Fruchterman and Reingold, 1991)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["place"]

_Point = tuple[float, float]
_STEPS, _EFFORT, _NEAR = 200, 300_000, 1.5


def place(names: Sequence[str], links: Sequence[tuple[str, str]]) -> dict[str, _Point]:
    """A position for each name, with linked ones about 1 apart; the same input gives the same picture."""
    order = _breadth_first(names, links)
    count = max(len(order), 1)
    radius = count / (2 * math.pi)
    angle = {name: 2 * math.pi * number / count for number, name in enumerate(order)}
    where = {name: (radius * math.cos(angle[name]), radius * math.sin(angle[name])) for name in order}
    steps = min(_STEPS, _EFFORT // count**2)
    for step in range(steps):
        near = _NEAR if step > steps / 2 else math.inf  # later on, only neighbours push: links become equally long
        where = _moved(where, links, farthest=0.3 * (1 - step / steps), near=near)
    return _lying(_spread(where, links))


def _spread(where: Mapping[str, _Point], links: Sequence[tuple[str, str]]) -> dict[str, _Point]:
    """Scaled so that the ends of the shortest link are 1 apart; several times as large at most."""
    lengths = [math.dist(where[a], where[b]) for a, b in links if a != b]
    scale = min(1 / max(min(lengths, default=1.0), 1e-6), 3.0)
    return {name: (x * max(scale, 1.0), y * max(scale, 1.0)) for name, (x, y) in where.items()}


def _lying(where: Mapping[str, _Point]) -> dict[str, _Point]:
    """Turned so that it is as wide, and as little high, as it can be; the first name is on the left."""
    count = max(len(where), 1)
    middle_x, middle_y = (sum(point[axis] for point in where.values()) / count for axis in (0, 1))
    centred = {name: (x - middle_x, y - middle_y) for name, (x, y) in where.items()}
    xx, yy, xy = (sum(a[i] * a[j] for a in centred.values()) for i, j in ((0, 0), (1, 1), (0, 1)))
    angle = -0.5 * math.atan2(2 * xy, xx - yy)
    first = next(iter(centred.values()), (0.0, 0.0))
    if first[0] * math.cos(angle) - first[1] * math.sin(angle) > 0:
        angle += math.pi
    cos, sin = math.cos(angle), math.sin(angle)
    return {name: (x * cos - y * sin, x * sin + y * cos) for name, (x, y) in centred.items()}


def _breadth_first(names: Sequence[str], links: Sequence[tuple[str, str]]) -> list[str]:
    """Neighbours near each other on the circle that it begins with."""
    near: dict[str, list[str]] = {name: [] for name in names}
    for a, b in links:
        near[a].append(b)
        near[b].append(a)
    order: list[str] = []
    for start in names:
        queue = [start]
        while queue:
            name = queue.pop()
            if name not in order:
                order.append(name)
                queue += reversed(near[name])
    return order


def _moved(
    where: Mapping[str, _Point], links: Sequence[tuple[str, str]], farthest: float, near: float
) -> dict[str, _Point]:
    names = list(where)
    force = {name: [0.0, 0.0] for name in names}
    for number, a in enumerate(names):
        for b in names[number + 1 :]:
            if math.dist(where[a], where[b]) < near:
                _push(force, where, a, b, repel=True)
    for a, b in links:
        if a != b:
            _push(force, where, a, b, repel=False)
    moved = {}
    for name in names:
        x, y = force[name]
        length = math.hypot(x, y) or 1.0
        step = min(length, farthest) / length
        moved[name] = (where[name][0] + x * step, where[name][1] + y * step)
    return moved


def _push(force: Mapping[str, list[float]], where: Mapping[str, _Point], a: str, b: str, repel: bool) -> None:
    x, y = where[a][0] - where[b][0], where[a][1] - where[b][1]
    distance = math.hypot(x, y) or 1e-6
    strength = 1 / distance if repel else -(distance**2)
    for name, sign in ((a, 1), (b, -1)):
        force[name][0] += sign * strength * x / distance
        force[name][1] += sign * strength * y / distance
