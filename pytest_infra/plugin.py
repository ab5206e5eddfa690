"""The pytest plugin: options, markers, the skip policy, hooks.

It is loaded by every pytest run of whoever has it installed, so it imports next to nothing until ``--infra`` is given.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from .core.errors import CheckFailed, InfraError, Unavailable
from .evidence import LACKS, add_options, keep_evidence
from .fixtures import (
    demand_run,
    infra,
    infra_cgroup,
    infra_container,
    infra_host,
    infra_image,
    lab,
    lab_factory,
    netns,
    ovs_bridge,
)

__all__ = [
    "infra",
    "infra_cgroup",
    "infra_container",
    "infra_host",
    "infra_image",
    "lab",
    "lab_factory",
    "netns",
    "ovs_bridge",
]

_FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class _Settings:
    """What the command line, the environment (PYTEST_INFRA_…) and the ini file (infra_…) say, in this order of rank."""

    enabled: bool
    require: frozenset[str]
    pause: bool
    doctor: bool

    def demands(self, what: str) -> bool:
        """Whether the lack of `what` is an error, and not a skip."""
        return self.enabled and ("all" in self.require or what in self.require)


_SETTINGS = pytest.StashKey[_Settings]()
_TERMINAL = pytest.StashKey[bool]()
_LOCKS = pytest.StashKey[ExitStack]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options and ini values."""
    group = parser.getgroup("infra", "infrastructure (pytest-infra)")
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
    group.addoption(
        "--infra-doctor",
        dest="infra_doctor",
        action="store_true",
        help="say what this machine has and lacks, and end (with status 1 where it lacks something)",
    )
    add_options(parser, group)
    parser.addini("infra", "run the tests that need real infrastructure", type="bool", default=False)
    parser.addini("infra_require", "what must be there for --infra", type="args", default=[])


def _settings(config: pytest.Config, options: Any) -> _Settings:
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
    return _Settings(bool(enabled), names, options.infra_pause, options.infra_doctor)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    """Without root, move into a user namespace: before any conftest, and before output is captured."""
    early_config.stash[_TERMINAL] = os.isatty(0)
    settings = _settings(early_config, early_config.known_args_namespace)
    if (settings.enabled or settings.doctor) and "PYTEST_XDIST_WORKER" not in os.environ:
        _become_privileged(early_config)
    return (yield)


def _become_privileged(config: pytest.Config) -> None:
    from .core import userns

    if not userns.needed():
        return
    try:
        userns.enter()
    except Unavailable as error:
        userns.refuse(error)
    except RuntimeError as error:
        if list(config.invocation_params.args) == sys.argv[1:]:
            userns.exec_inside(sys.orig_argv)
        userns.refuse(Unavailable("privilege", str(error), "run pytest as root, or as a program of its own"))


def pytest_configure(config: pytest.Config) -> None:
    """Markers, settings, signals; with ``--infra-require``, what is demanded must be there."""
    for line in (
        "infra: needs real infrastructure; skipped without --infra",
        "infra_requires(name, ...): needs these capabilities of the machine, as 'pytest-infra doctor' lists them",
        "infra_exclusive(name, count=1, of=count, timeout_s=600): holds that many of the machine's things of this name "
        "meanwhile, against all other tests on the machine",
    ):
        config.addinivalue_line("markers", line)
    settings = config.stash[_SETTINGS] = _settings(config, config.option)
    config.option.infra_enabled = settings.enabled
    config.pluginmanager.register(_Skips(), "infra-skips")
    if settings.pause:
        _check_pause(config)
    if settings.enabled:
        keep_evidence(config)
        config.add_cleanup(_end_in_order())
        if "testinfra" in sys.modules:
            from .testinfra import register

            register()
        if not hasattr(config, "workerinput"):
            _check_required(settings)
        elif sys.platform == "linux":
            _end_with_controller()


def _check_pause(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) or config.getoption("tx", None):
        raise pytest.UsageError("--infra-pause cannot be used with -n: the workers have no terminal")
    if not config.stash.get(_TERMINAL, False):
        raise pytest.UsageError("--infra-pause needs a terminal to wait at, and standard input is none")


def _check_required(settings: _Settings) -> None:
    from .doctor import capabilities, demand

    known = capabilities()
    names = sorted(settings.require - {"all"})
    if unknown := [name for name in names if name not in known]:
        raise pytest.UsageError(f"--infra-require: unknown {', '.join(unknown)}; there are all, {', '.join(known)}")
    missing = []
    for name in names:
        try:
            demand(name, known)
        except Unavailable as error:
            missing.append(str(error))
    if missing:
        raise pytest.UsageError("--infra-require: this machine lacks " + ", ".join(missing))


def _end_in_order() -> Any:
    """Let SIGTERM and SIGHUP end the run as Ctrl-C does, where nobody else handles them; returns the undoing."""
    import signal
    import threading

    def end(number: int, _frame: object) -> None:
        pytest.exit(signal.Signals(number).name, returncode=128 + number)

    before = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before.append((number, signal.signal(number, end)))
    return lambda: [signal.signal(number, handler) for number, handler in before]


def _end_with_controller() -> None:
    """A worker of pytest-xdist whose controller was killed would go on for as long as its test takes."""
    import signal

    from .core.linux import die_with_parent

    die_with_parent(signal.SIGTERM)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """``--infra-doctor`` prints its table and ends."""
    if not config.option.infra_doctor:
        return None
    from .doctor import doctor

    return doctor(sys.stdout.write)


def pytest_report_header(config: pytest.Config) -> str | None:
    """One line: privilege, kernel, switch, and what is missing."""
    if not config.stash[_SETTINGS].enabled:
        return None
    from .doctor import summary

    return summary()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A capability that nobody knows, in a marker, is a mistake and not a skip."""
    if not config.stash[_SETTINGS].enabled or not any(item.get_closest_marker("infra_requires") for item in items):
        return
    from .doctor import capabilities

    known = capabilities()
    for item in items:
        if unknown := [name for name in _required(item) if name not in known]:
            raise pytest.UsageError(
                f"{item.nodeid}: infra_requires: unknown {', '.join(unknown)}; there are {', '.join(known)}"
            )


def _required(item: pytest.Item) -> list[str]:
    return [name for mark in item.iter_markers("infra_requires") for name in mark.args]


def _uses_plugin(item: pytest.Item) -> bool:
    """Whether a test has one of our markers or uses our `infra` fixture, and not somebody else's of that name."""
    if any(item.get_closest_marker(name) for name in ("infra", "infra_requires", "infra_exclusive")):
        return True
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).get("infra", ())
    for definition in reversed(definitions):
        if definition.func.__module__ == infra.__module__:
            return True
        if "infra" not in definition.argnames:
            return False
    return False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of a test: is it asked for, is what it needs there, is what it must hold alone free?"""
    if not _uses_plugin(item):
        return
    demand_run(item.config)
    if names := _required(item):
        from .doctor import capabilities, demand

        known = capabilities()
        for name in names:
            demand(name, known)
    if marks := _exclusive_marks(item):
        locks = item.stash[_LOCKS] = ExitStack()
        for name in sorted(marks):
            _hold(marks[name], locks)


def _exclusive_marks(item: pytest.Item) -> dict[str, pytest.Mark]:
    """By name, as all tests must take several in the same order; of two for one name the closer to the test counts."""
    marks = reversed(list(item.iter_markers("infra_exclusive")))
    return {str(mark.args[0] if mark.args else mark.kwargs.get("name")): mark for mark in marks}


def _hold(mark: pytest.Mark, locks: ExitStack) -> None:
    """Take what an `infra_exclusive` marker names; it is given back with `locks`."""
    from .core.lock import exclusive

    try:
        lock = exclusive(*mark.args, **mark.kwargs)
    except TypeError as error:
        pytest.fail(f"infra_exclusive: {str(error).replace('exclusive()', 'the marker')}", pytrace=False)
    locks.enter_context(lock)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """What a test held alone is given back after its fixtures have ended."""
    try:
        return (yield)
    finally:
        if (locks := item.stash.get(_LOCKS, None)) is not None:
            locks.close()


def _lack(call: pytest.CallInfo[None]) -> Unavailable | None:
    error = call.excinfo.value if call.excinfo is not None and call.when != "teardown" else None
    return error if isinstance(error, Unavailable) else None


def _end_at_caller(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """The traceback of one of our errors ends at the user's line; a lack that becomes a skip has none to show."""
    error = call.excinfo.value if call.excinfo is not None else None
    if not isinstance(error, (InfraError, CheckFailed)) or item.config.getoption("fulltrace"):
        return
    if (lacking := _lack(call)) is None or item.config.stash[_SETTINGS].demands(lacking.what):
        from .core.caller import end_at_caller

        end_at_caller(error)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The one place where `Unavailable` becomes a skip; where it is an error, an xfail marker does not excuse it."""
    _end_at_caller(item, call)
    report = yield
    lacking = _lack(call)  # only now: of a unittest.TestCase, the error is known since the report was made
    if lacking is None:
        return report
    vars(report).pop("wasxfail", None)
    if item.config.stash[_SETTINGS].demands(lacking.what):
        report.outcome = "failed"
        return report
    skip = pytest.skip.Exception(str(lacking)).with_traceback(lacking.__traceback__)
    call.excinfo = pytest.ExceptionInfo.from_exception(skip)
    path, line, _ = item.reportinfo()
    report.outcome = "skipped"
    report.longrepr = (os.fspath(path), (line or 0) + 1, f"Skipped: {lacking}")
    vars(report)[LACKS] = [lacking.what, lacking.why, lacking.remedy]  # JSON types: xdist sends it to the controller
    return report


class _Skips:
    """Counts, where the terminal is, the tests that were skipped for each lack."""

    def __init__(self) -> None:
        self.lacks: Counter[tuple[str, ...]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if lacks := vars(report).get(LACKS):
            self.lacks[tuple(lacks)] += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for lacks, count in self.lacks.items():
            tests = "1 test" if count == 1 else f"{count} tests"
            terminalreporter.write_line(f"infra: {tests} skipped: {Unavailable(*lacks)}")


def pytest_exception_interact(node: pytest.Item | pytest.Collector, report: Any) -> None:
    """With ``--infra-pause``, say why the test failed, and wait while its lab is still up."""
    config = node.config
    if not config.stash[_SETTINGS].pause:
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend(in_=True)
    try:
        sys.stdout.write("\n" + "\n".join([report.longreprtext, "", *_pause_text(node.nodeid)]))
        sys.stdout.flush()
        sys.stdin.readline()
    finally:
        if capture is not None:
            capture.resume()


def _pause_text(nodeid: str) -> Iterator[str]:
    from .core.sweep import leases

    yield f"{nodeid} has failed; its lab is still up. From another terminal:"
    for lease in leases():
        if lease.session.get("pid") == os.getpid():
            for name, facts in lease.labs.items():
                for node in facts.get("nodes", {}):
                    yield f"  pytest-infra shell {name} {node}"
    yield "Enter goes on: "
