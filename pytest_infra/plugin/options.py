"""The options: what the command line, the environment and the ini file say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..core.errors import BadInput
from ..core.units import duration_s

__all__ = ["SETTINGS", "Choice", "Settings", "add_options", "check_place", "read_settings"]

_FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """What the command line, the environment (PYTEST_INFRA_…) and the ini file (infra_…) say, in this order of rank."""

    enabled: bool
    require: frozenset[str]
    pause: bool
    doctor: bool
    lock_timeout_s: float

    def demands(self, what: str) -> bool:
        """Whether the lack of `what` is an error, and not a skip."""
        return self.enabled and ("all" in self.require or what in self.require)


SETTINGS = pytest.StashKey[Settings]()
"""Where a run keeps its settings."""


@dataclass(frozen=True)
class Choice:
    """An option with a few allowed values; command line > ``PYTEST_INFRA_…`` > ini ``infra_…`` > default."""

    name: str
    allowed: tuple[str, ...]
    default: str
    help: str

    @property
    def key(self) -> str:
        """``infra_artifacts`` for ``artifacts``: the option's place, and the ini value's name."""
        return f"infra_{self.name}"

    def add(self, parser: pytest.Parser, group: Any) -> None:
        """Add the option and the ini value."""
        group.addoption(
            f"--infra-{self.name}",
            dest=self.key,
            choices=self.allowed,
            default=None,
            help=f"{self.help}; default: {self.default} (PYTEST_{self.key.upper()}, ini: {self.key})",
        )
        parser.addini(self.key, self.help, default="")

    def value(self, config: pytest.Config) -> str:
        """The chosen value.

        Raises:
            pytest.UsageError: it is none of those allowed.
        """
        variable = f"PYTEST_{self.key.upper()}"
        value = config.getoption(self.key) or os.environ.get(variable) or config.getini(self.key) or self.default
        if value not in self.allowed:
            raise pytest.UsageError(f"{self.key} (or {variable}): {value!r} is none of {', '.join(self.allowed)}")
        return str(value)


def add_options(parser: pytest.Parser, group: Any) -> None:
    """The options and ini values of the plugin itself."""
    group.addoption(
        "--infra",
        dest="infra_enabled",
        action="store_true",
        default=None,
        help="run the tests that need real infrastructure; without it they are skipped (PYTEST_INFRA, ini: infra)",
    )
    group.addoption(
        "--infra-require",
        dest="infra_require",
        action="append",
        metavar="NAME,...|all",
        help="what must be there: its lack is an error at the start, and never a skip; with 'all' no test is skipped "
        "for a lack of anything (PYTEST_INFRA_REQUIRE, ini: infra_require)",
    )
    group.addoption(
        "--infra-pause",
        dest="infra_pause",
        action="store_true",
        help="after a failure, keep the lab up and wait for Enter, with the commands for a shell in each node",
    )
    _add_doctor(group)
    group.addoption(
        "--infra-lock-timeout",
        dest="infra_lock_timeout",
        metavar="DURATION",
        help="how long a test waits for what it must hold alone, a GPU for one; default: 10 min "
        "(PYTEST_INFRA_LOCK_TIMEOUT, ini: infra_lock_timeout)",
    )
    parser.addini("infra_lock_timeout", "how long a test waits for what it must hold alone", default="10 min")
    parser.addini("infra", "run the tests that need real infrastructure", type="bool", default=False)
    parser.addini("infra_require", "what must be there for --infra", type="args", default=[])
    _add_values(parser, group)


def _add_doctor(group: Any) -> None:
    group.addoption(
        "--infra-doctor",
        dest="infra_doctor",
        action="store_true",
        help="say what this machine has and lacks, and end (with status 1 where it lacks something)",
    )
    group.addoption(
        "--infra-doctor-json",
        dest="infra_doctor_json",
        action="store_true",
        help="the same as JSON, for programs",
    )


def _add_values(parser: pytest.Parser, group: Any) -> None:
    """The options that take a value: durations, files."""
    report = "write a report with each test's labs, timeline and measurements to this HTML file"
    group.addoption(
        "--infra-report",
        dest="infra_report",
        metavar="FILE.html",
        help=f"{report} (PYTEST_INFRA_REPORT, ini: infra_report)",
    )
    parser.addini("infra_report", report, default="")


def check_place(option: str, path: Path, *, folder: bool = False) -> None:
    """See to it, before any test runs, that a path can be a file, or a folder.

    Raises:
        pytest.UsageError: it is the other, or lies below a file.
    """
    if not folder and os.path.isdir(path):
        raise pytest.UsageError(f"{option}: {path} is a folder, and the name of a file is wanted")
    there = path if folder else path.parent
    while not os.path.lexists(there):
        there = there.parent
    if not os.path.isdir(there):
        raise pytest.UsageError(f"{option}: {path} cannot be made: {there} is no folder")


def read_settings(config: pytest.Config, options: Any) -> Settings:
    """The settings that count, of all that was given."""
    enabled = options.infra_enabled
    if enabled is None and (variable := os.environ.get("PYTEST_INFRA")) is not None:
        enabled = variable.lower() not in _FALSE
    if enabled is None:
        enabled = config.getini("infra")
    require = options.infra_require
    if require is None and (variable := os.environ.get("PYTEST_INFRA_REQUIRE")) is not None:
        require = [variable]
    if require is None:
        require = config.getini("infra_require")
    names = frozenset(name.strip() for item in require for name in item.split(",") if name.strip())
    if options.infra_require and not enabled:
        raise pytest.UsageError("--infra-require needs --infra: without it every test that it speaks of is skipped")
    doctor = options.infra_doctor or options.infra_doctor_json
    return Settings(bool(enabled), names, options.infra_pause, doctor, _lock_timeout_s(config, options))


def _lock_timeout_s(config: pytest.Config, options: Any) -> float:
    variable = os.environ.get("PYTEST_INFRA_LOCK_TIMEOUT")
    value = options.infra_lock_timeout or variable or config.getini("infra_lock_timeout")
    try:
        return duration_s(value)
    except BadInput as error:
        raise pytest.UsageError(f"--infra-lock-timeout: {error}") from None
