"""The public surface: the names that are exported, and the classes that a user meets through them.

Read from the source by griffe, as mkdocstrings reads it, and not imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import griffe

__all__ = ["ROOT", "Surface", "read_surface"]

ROOT = Path(__file__).resolve().parents[2]
_EXPORTING = ("pytest_infra", "pytest_infra.packet")
_CALLED = ("__enter__", "__call__")


@dataclass(frozen=True)
class Surface:
    """What a user of the package can name or is handed."""

    exported: dict[str, griffe.Object]
    """By the name to import: ``pytest_infra.ping``."""
    met: dict[str, griffe.Object]
    """Classes that are not exported, by where they are defined: what exported things and fixtures return or have."""
    fixtures: tuple[griffe.Function, ...]
    """The functions that are pytest's fixtures."""


def read_surface() -> Surface:
    """Read the source."""
    package = griffe.load("pytest_infra", search_paths=[str(ROOT)])
    exported = {}
    for module in _EXPORTING:
        for name in package.modules_collection[module].exports or ():
            if not str(name).startswith("__"):
                exported[f"{module}.{name}"] = _exported(package.modules_collection[f"{module}.{name}"])
    items = map(_resolved, package["fixtures"].members.values())
    fixtures = tuple(item for item in items if isinstance(item, griffe.Function) and _is_fixture(item))
    met = _met(package, (*exported.values(), *fixtures))
    return Surface(dict(sorted(exported.items())), dict(sorted(met.items())), fixtures)


def _met(package: griffe.Object | griffe.Alias, beginning: Sequence[griffe.Object]) -> dict[str, griffe.Object]:
    """The classes that can be reached from these, by where they are defined."""
    known = {item.canonical_path for item in beginning}
    met: dict[str, griffe.Object] = {}
    waiting = list(beginning)
    while waiting:
        for path in _annotated(waiting.pop()):
            found = _find(package, path)
            if found is not None and found.is_class and found.canonical_path not in known:
                known.add(found.canonical_path)
                met[found.canonical_path] = found
                waiting.append(found)
    return met


def _is_fixture(item: griffe.Function) -> bool:
    return any("fixture" in str(mark.value) for mark in item.decorators)


def _target(item: griffe.Object | griffe.Alias) -> griffe.Object:
    return item.final_target if isinstance(item, griffe.Alias) else item


def _exported(item: griffe.Object | griffe.Alias) -> griffe.Object:
    """What is exported: not the module of the same name, behind which griffe hides a function."""
    found = _target(item)
    return _target(found[found.name]) if found.is_module and found.name in found.members else found


def _resolved(item: griffe.Object | griffe.Alias) -> griffe.Object | None:
    """The object itself; none for what is imported from elsewhere."""
    with suppress(griffe.AliasResolutionError):
        return _target(item)
    return None


def _find(package: griffe.Object | griffe.Alias, path: str) -> griffe.Object | None:
    """What has this path, if it is ours and public."""
    if not path.startswith("pytest_infra.") or path.rpartition(".")[2].startswith("_"):
        return None
    with suppress(KeyError, griffe.AliasResolutionError):
        return _target(package.modules_collection[path])
    return None


def _annotated(item: griffe.Object) -> Iterator[str]:
    """The paths of what this object returns or, if it is a class, of what its public members return or are."""
    if isinstance(item, griffe.Function):
        yield from _names(item.returns)
    elif isinstance(item, griffe.Attribute):
        yield from _names(item.annotation)
    elif item.is_class:
        for name, member in item.all_members.items():
            found = _resolved(member) if not name.startswith("_") or name in _CALLED else None
            if found is not None and not found.is_class:
                yield from _annotated(found)


def _names(expression: str | griffe.Expr | None) -> Iterator[str]:
    if isinstance(expression, griffe.Expr):
        for part in expression.iterate(flat=True):
            if isinstance(part, griffe.ExprName):
                yield part.canonical_path
