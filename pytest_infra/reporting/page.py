"""The HTML report: one file that needs no other, made from what the tests sent, in JSON types."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import Unavailable
from ..core.units import format_duration
from .plots import figures, plots
from .timeline import timeline
from .topology import drawing
from .view import wires_of

__all__ = ["check_jinja", "fragment", "page"]

_TEMPLATE = "page.html"
_ORDER = {"failed": 0, "error": 1, "xpassed": 2, "skipped": 3, "xfailed": 4, "passed": 5}
_MOST_OPEN = 20  # of the failed tests, that are unfolded from the beginning
_MOST_COMMANDS = 100


def check_jinja() -> None:
    """Raise `Unavailable` unless Jinja2 is there.

    Raises:
        Unavailable: it is not.
    """
    from importlib.util import find_spec

    if find_spec("jinja2") is None:
        raise Unavailable("jinja2", "the HTML report is written with Jinja2", "pip install 'pytest-infra[report]'")


def page(
    tests: Sequence[Mapping[str, Any]], about: Mapping[str, Any], lacks: Sequence[tuple[Sequence[str], int]]
) -> str:
    """The report.

    Args:
        tests: of each test ``nodeid``, ``outcome``, ``phases``, ``labs`` (see `view`), ``commands``, ``checks``,
            ``text``, ``folder``, ``skip``.
        about: ``title``, ``machine`` (a line), ``began`` (text), ``took_s``, ``command``.
        lacks: of each thing that was lacking ``(what, why, remedy)``, and for how many tests.
    """
    shown = sorted(map(_test, tests), key=lambda test: _ORDER.get(test["outcome"], 9))
    failed = 0
    for test in shown:
        failed += test["outcome"] in ("failed", "error")
        test["open"] = test["outcome"] in ("failed", "error") and failed <= _MOST_OPEN
    counts = {name: sum(test["outcome"] == name for test in shown) for name in _ORDER}
    return _render(
        tests=shown,
        about={**about, "took": format_duration(about["took_s"])},
        counts={name: count for name, count in counts.items() if count},
        lacks=[(*lack, count) for lack, count in lacks],
        whole=True,
    )


def fragment(test: Mapping[str, Any]) -> str:
    """One test's labs, timeline and measurements, for a report that somebody else writes."""
    return _render(tests=[_test(test)], about={}, counts={}, lacks=[], whole=False)


def _render(**values: Any) -> str:
    check_jinja()
    import jinja2

    loader = jinja2.FileSystemLoader(os.path.dirname(__file__))
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(_TEMPLATE).render(**values)


def _test(test: Mapping[str, Any]) -> dict[str, Any]:
    took_s = sum(phase["took_s"] for phase in test["phases"])
    began_s = min((phase["began_s"] for phase in test["phases"]), default=0.0)
    commands = sorted(test["commands"], key=lambda item: item["began_s"])
    verdict, rest = _failure(test.get("text", ""))
    path, _, name = test["nodeid"].partition("::")
    return {
        **test,
        "path": path,
        "name": name or path,
        "took": format_duration(took_s),
        "verdict": verdict,
        "rest": rest,
        "labs": [_lab(view) for view in test["labs"]],
        "timeline": _markup(timeline(test["phases"], commands, test["checks"])),
        "commands": [_command(item, began_s) for item in commands[:_MOST_COMMANDS]],
        "more_commands": max(len(commands) - _MOST_COMMANDS, 0),
        "checks": [_check(check) for check in test["checks"]],
    }


def _markup(text: str) -> Any:
    """Text that is markup already: the pictures, which escape what they show."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704


def _failure(text: str) -> tuple[str, str]:
    """What pytest marks as the error (its lines that begin with E), and the whole."""
    marked = [line[1:] for line in text.splitlines() if line.startswith(("E  ", "E\t")) or line == "E"]
    margin = min((len(line) - len(line.lstrip()) for line in marked if line.strip()), default=0)
    return "\n".join(line[margin:] for line in marked), text


def _lab(view: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {node["name"]: node["kind"] for node in view["nodes"]}
    picture = drawing(view["name"], kinds, wires_of(view), view.get("faults", ())) if kinds else ""
    return {**view, "picture": _markup(picture)}


def _command(item: Mapping[str, Any], began_s: float) -> dict[str, Any]:
    took = "running" if item["took_s"] is None else format_duration(item["took_s"])
    return {**item, "at": format_duration(max(item["began_s"] - began_s, 0.0)), "took": took}


def _check(check: Mapping[str, Any]) -> dict[str, Any]:
    data = check.get("data") or {}
    first, _, rest = check["text"].partition("\n")
    shown = {
        "title": first,
        "rest": textwrap.dedent(rest),
        "figures": list(figures(data)),
        "plots": list(map(_markup, plots(data))),
    }
    return {**check, **shown}
