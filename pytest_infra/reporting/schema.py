"""The JSON Schema (draft 2020-12) of what `Report.to_dict` gives, worked out from the reports' own types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..core.report import REPORT_VERSION, Report

__all__ = ["report_schema"]

_DOMAINS = ("checks", "packet", "cgroup", "gpu", "net")
_PLAIN: Mapping[Any, Any] = {
    bool: "boolean",
    int: "integer",
    float: ["number", "null"],  # JSON has no infinity
    str: "string",
    type(None): "null",
}

_Json = dict[str, Any]


def report_schema() -> _Json:
    """The schema of every report of the project; a report of somebody else's kind need only have the common part."""
    reports = sorted(_reports(), key=lambda report: report.kind)
    definitions: _Json = {}
    for report in reports:
        _define(report, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"pytest-infra report, version {REPORT_VERSION}",
        "type": "object",
        "required": ["kind", "version", "ok"],
        "properties": {
            "kind": {"type": "string"},
            "version": {"const": REPORT_VERSION},
            "ok": {"type": ["boolean", "null"]},
        },
        "allOf": [_rule(report) for report in reports],
        "$defs": dict(sorted(definitions.items())),
    }


def _rule(report: type[Report]) -> _Json:
    return {
        "if": {"properties": {"kind": {"const": report.kind}}},
        "then": {"$ref": f"#/$defs/{report.__name__}"},
    }


def _reports() -> Iterator[type[Report]]:
    """The kinds of reports of the project: the classes that name a kind of their own."""
    from importlib import import_module
    from pkgutil import walk_packages

    for domain in _DOMAINS:
        package = import_module(f"pytest_infra.{domain}")
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(import_module(module.name)).values():
                if (
                    isinstance(value, type)
                    and issubclass(value, Report)
                    and value.__module__ == module.name
                    and value.kind != Report.kind
                ):
                    yield value


def _define(kind: type, definitions: _Json) -> _Json:
    """A dataclass as an object; its definition is made once."""
    if kind.__name__ not in definitions:
        definition = definitions[kind.__name__] = {"type": "object"}
        hints = get_type_hints(kind)
        shown = [item.name for item in fields(kind) if item.repr]
        definition["properties"] = {name: _schema(hints[name], definitions) for name in shown}
        definition["required"] = shown
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _schema(kind: Any, definitions: _Json) -> _Json:
    """What `to_json` makes of a value of this type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is not None:
        return _generic(origin, arguments, definitions)
    if isinstance(kind, type) and is_dataclass(kind):
        return _define(kind, definitions)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [item.value for item in kind]}
    return {"type": _PLAIN.get(kind, "string")}


def _generic(origin: Any, arguments: tuple[Any, ...], definitions: _Json) -> _Json:
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (tuple, list, set, frozenset):
        return _array(arguments, definitions)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    return {"anyOf": [_schema(item, definitions) for item in arguments]}


def _array(items: tuple[Any, ...], definitions: _Json) -> _Json:
    """Items of one type, or, of a tuple such as ``tuple[str, float]``, one type each."""
    if len(items) == 1 or items[-1] is Ellipsis:
        return {"type": "array", "items": _schema(items[0], definitions)}
    each = [_schema(item, definitions) for item in items]
    return {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}
