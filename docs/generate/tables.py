"""Tables that are read from the code: options, markers, fixtures, the command, capabilities."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import griffe
from surface import Surface

from pytest_infra.cli import _parser
from pytest_infra.core.programs import PROGRAMS
from pytest_infra.core.requirement import KernelFeature, PythonModule, Requirement
from pytest_infra.doctor import requirements
from pytest_infra.dpdk.requirement import Bypass
from pytest_infra.plugin import pytest_addoption

__all__ = ["capabilities", "command", "plugin"]

_MANAGERS = ("apt", "dnf", "pacman", "apk")


def plugin(surface: Surface) -> str:
    """The page of the plugin's options, ini values, markers and fixtures."""
    seen = _Seen()
    pytest_addoption(seen)  # type: ignore[arg-type]
    fixtures = [(f"`{item.name}`", _scope(item), _first(item)) for item in surface.fixtures]
    return "\n".join(
        [
            "# Options, markers, fixtures\n",
            "What `pytest --help`, `--markers` and `--fixtures` say. The command line goes before the environment",
            "variable, and that before the ini value.\n",
            "## Options\n",
            *_table(("option", "does"), seen.options),
            "## Ini values\n",
            *_table(("name", "says"), seen.inis),
            "## Markers\n",
            *_table(("marker", "says"), _markers()),
            "## Fixtures\n",
            *_table(("fixture", "scope", "gives"), fixtures),
        ]
    )


def command() -> str:
    """The page of the command ``pytest-infra``: the help of each of its commands."""
    return "\n".join(["# The command pytest-infra\n", *_helps(_parser())])


def capabilities() -> str:
    """The page of all capabilities: what each is for, and what brings it."""
    known = requirements()
    own = [_capability(name, known[name]) for name in sorted(known)]
    pip = [name for name, item in PROGRAMS.items() if not item.packages]
    others = [
        (f"`{name}`", *(_code(item.packages[key]) for key in _MANAGERS))
        for name, item in PROGRAMS.items()
        if item.packages
    ]
    return "\n".join(
        [
            "# Capabilities\n",
            "What a machine may have or lack, by the names that `pytest-infra doctor`, `--infra-require` and",
            "the marker `infra_requires` know. What is lacking is a skip with its remedy. Packages are Debian's.\n",
            *_table(("name", "for", "needs"), own),
            "## Programs of other people\n",
            "Nothing of this project needs them; tests that do can name them.\n",
            *_table(("name", "Debian", "Fedora", "Arch", "Alpine"), others),
            f"From PyPI, by pip: {', '.join(f'`{name}`' for name in pip)}.",
        ]
    )


class _Seen:
    """Takes the options as pytest's parser would."""

    def __init__(self) -> None:
        self.options: list[tuple[str, str]] = []
        self.inis: list[tuple[str, str]] = []

    def getgroup(self, *_: str) -> _Seen:
        return self

    def addoption(self, name: str, **how: Any) -> None:
        first, *others = (how.get("metavar") or "|".join(how.get("choices", ()))).split("|")
        forms = [f"{name}={first}" if first else name, *others]
        self.options.append((", ".join(f"`{form}`" for form in forms), how["help"]))

    def addini(self, name: str, text: str, **_: Any) -> None:
        self.inis.append((f"`{name}`", text))


def _markers() -> Iterator[tuple[str, str]]:
    argv = [sys.executable, "-m", "pytest", "--markers", "-p", "infra"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    for line in text.splitlines():
        if found := re.match(r"@pytest\.mark\.(infra.*?): (.*)", line):
            yield f"`{found[1]}`", found[2]


def _scope(fixture: griffe.Function) -> str:
    found = re.search(r"scope=['\"](\w+)", " ".join(str(item.value) for item in fixture.decorators))
    return found[1] if found else "function"


def _first(item: griffe.Object) -> str:
    return item.docstring.value.replace("\n\n", " ").replace("\n", " ") if item.docstring else ""


def _helps(parser: argparse.ArgumentParser, level: int = 2) -> Iterator[str]:
    yield f"```text\n{parser.format_help()}```\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield f"{'#' * level} pytest-infra {' '.join(action.choices[choice.dest].prog.split()[1:])}\n"
                yield from _helps(action.choices[choice.dest], level + 1)


def _capability(name: str, items: tuple[Requirement, ...]) -> tuple[str, ...]:
    purposes = dict.fromkeys(item.purpose for item in items if item.purpose)
    return f"`{name}`", "; ".join(purposes), "; ".join(dict.fromkeys(map(_need, items)))


def _need(item: Requirement) -> str:
    """What brings it or, where nothing can be installed, what it is."""
    if isinstance(item, PythonModule):
        return f"`pip install 'pytest-infra[{item.extra}]'`" if item.extra else f"`pip install {item.name}`"
    if package := item.packages.get("apt"):
        return _code(package)
    if isinstance(item, KernelFeature):
        return item.remedy
    if isinstance(item, Bypass):
        return item.needs
    return (type(item).__doc__ or "").partition("\n")[0].rstrip(".")


def _code(words: str) -> str:
    return " ".join(f"`{word}`" for word in words.split())


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""
