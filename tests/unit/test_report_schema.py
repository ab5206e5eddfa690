"""The versioned JSON Schema of reports: it is what the package ships, and what reports are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from importlib.resources import files
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import pytest
from jsonschema import Draft202012Validator, ValidationError

from pytest_infra.checks.answer import Answer
from pytest_infra.checks.ping import PingReport
from pytest_infra.core.report import REPORT_VERSION, Report, as_json, to_json
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.rule import Rule
from pytest_infra.reporting.schema import _reports, report_schema

SHIPPED = files("pytest_infra").joinpath("report.schema.json").read_text(encoding="utf-8")
VALIDATOR = Draft202012Validator(json.loads(SHIPPED))


def test_the_file_in_the_package_is_the_schema() -> None:
    cure = "pytest-infra schema >pytest_infra/report.schema.json; a field that means something else: REPORT_VERSION"
    assert as_json(report_schema()) == SHIPPED, cure
    Draft202012Validator.check_schema(report_schema())


def test_each_kind_of_report_has_a_name_of_its_own() -> None:
    kinds = sorted(report.kind for report in _reports())
    assert len(kinds) == len(set(kinds)) >= 35
    assert not [kind for kind in kinds if "_" in kind]


PLAIN: Mapping[Any, Any] = {str: "text", int: 3, float: float("inf"), bool: True}


def sample(kind: Any, full: bool) -> Any:
    """A value of a type: with everything there, or with all that may be missing missing."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if kind in (Packet, Rule):  # they know what a packet can be
        return Packet(src="192.0.2.1", proto="udp", dport=53) if kind is Packet else Rule("permit", dport=53, proto=17)
    if origin is Literal:
        return arguments[0]
    if origin is tuple:
        each = [item for item in arguments if item is not Ellipsis]
        return tuple(sample(item, full) for item in each) if full or len(arguments) == len(each) else ()
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"key": sample(arguments[1], full)} if full else {}
    if type(None) in arguments:
        return sample(arguments[0], full) if full else None
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{item.name: sample(hints[item.name], full) for item in fields(kind) if item.init})
    return "something else, as text"


@pytest.mark.parametrize("full", [True, False], ids=["full", "empty"])
@pytest.mark.parametrize("kind", list(_reports()), ids=lambda kind: kind.__name__)
def test_what_a_report_gives_is_what_the_schema_says(kind: type[Report], full: bool) -> None:
    """The text is JSON, with infinite figures too; each field that the type has is in the schema, and no other."""
    content = {"kind": kind.kind, "version": REPORT_VERSION, "ok": True, **to_json(sample(kind, full))}
    VALIDATOR.validate(json.loads(json.dumps(content, allow_nan=False)))
    for name in set(content) - {"kind", "version", "ok"}:
        with pytest.raises(ValidationError, match=f"'{name}' is a required property"):
            VALIDATOR.validate({key: value for key, value in content.items() if key != name})


def ping_report() -> dict[str, Any]:
    return PingReport("a", "b", "192.0.2.1", 56, (Answer("reply", "192.0.2.1", 0.002),), 0, 0.1).to_dict()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "1 was expected"),
        ({"destination": None}, "None is not of type 'string'"),
        ({"answers": [{"kind": "reply"}]}, "is a required property"),
    ],
)
def test_a_report_that_is_none_is_refused(change: dict[str, Any], words: str) -> None:
    VALIDATOR.validate(ping_report())
    with pytest.raises(ValidationError, match=words):
        VALIDATOR.validate(ping_report() | change)


@dataclass(frozen=True)
class Ours(Report):
    kind: ClassVar[str] = "somebody-elses"
    value: float


def test_a_report_of_somebody_elses_kind_needs_the_common_part_only() -> None:
    VALIDATOR.validate(json.loads(json.dumps(Ours(float("inf")).to_dict(), allow_nan=False)))
    with pytest.raises(ValidationError, match="'version' is a required property"):
        VALIDATOR.validate({"kind": Ours.kind, "ok": True})
