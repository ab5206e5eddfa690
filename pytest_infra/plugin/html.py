"""``--infra-report``: collects where the tests run what the HTML report shows, and writes it where the terminal is."""

from __future__ import annotations

import os
import shlex
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from ..core.errors import Unavailable
from ..core.private import write_private
from ..fixtures import BEFORE_END, SESSION
from ..reporting.timeline import FAULTS
from .evidence import KEPT
from .measured import CHECKS
from .options import check_place
from .skips import LACKS

if TYPE_CHECKING:
    from ..lab import Lab

__all__ = ["VIEW", "HtmlReport", "Views", "register"]

VIEW = "infra_view"
"""The attribute of a report with the labs and commands of its phase, in JSON types and bounded."""
_MOST_COMMANDS, _MOST_LABS, _LONGEST_LINE, _LONGEST_TEXT = 200, 8, 300, 20_000


def register(config: pytest.Config) -> None:
    """Collect where the report, or pytest-html's, is wanted; write it where the terminal is.

    Raises:
        pytest.UsageError: Jinja2 is not there, or the report's path cannot be a file.
    """
    given = config.getoption("infra_report") or os.environ.get("PYTEST_INFRA_REPORT") or config.getini("infra_report")
    others = bool(config.getoption("htmlpath", None)) and config.pluginmanager.hasplugin("html")
    if not given and not others:
        return
    from ..reporting.page import check_jinja

    try:
        check_jinja()
    except Unavailable as error:
        if not given:
            return
        raise pytest.UsageError(f"--infra-report: {error}") from None
    config.pluginmanager.register(Views(config, others), "infra-views")
    if given and not hasattr(config, "workerinput"):
        path = config.invocation_params.dir / given
        check_place("--infra-report", path)
        config.pluginmanager.register(HtmlReport(config, path), "infra-html")


class Views:
    """Where the tests run: looks at the labs while they are up."""

    def __init__(self, config: pytest.Config, for_pytest_html: bool) -> None:
        self._config = config
        self._for_pytest_html = for_pytest_html
        self._labs: dict[str, dict[str, Any]] = {}
        self._commands: list[dict[str, Any]] = []
        self._phase_began_s = time.time()
        config.stash[BEFORE_END].append(lambda lab, _error: self._look(lab))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put what was seen into the phase's report."""
        report = yield
        self._phase_began_s = call.start
        if (session := self._config.stash.get(SESSION, None)) is not None:
            for lab in session.labs:
                self._look(lab, picture=report.when == "call" or report.failed)
        if report.failed and call.excinfo is not None:
            self._of_error(call.excinfo.value)
        if self._labs or self._commands:
            view = {"labs": list(self._labs.values())[:_MOST_LABS], "commands": self._commands[-_MOST_COMMANDS:]}
            vars(report)[VIEW] = view
        self._labs, self._commands = {}, []
        if self._for_pytest_html and (report.when == "call" or report.failed):
            _feed_pytest_html(report)
        return report

    def _look(self, lab: Lab, picture: bool = True) -> None:
        """Take a lab's picture and the commands of this phase; a lab that cannot be looked at is left out."""
        try:
            self._take(lab, picture)
        except Exception as error:  # noqa: BLE001 - a report is no reason to lose the run
            name = f"{lab.name} (it could not be looked at: {error})"
            self._labs[lab.name] = {"name": name, "count": 0, "nodes": [], "wires": [], "counters": {}}

    def _take(self, lab: Lab, picture: bool) -> None:
        from ..net.diagnosis import quick_state
        from ..reporting.facts import LabFacts
        from ..reporting.view import MOST_NODES, lab_view

        for facts in _happened(lab):
            ended_s = facts["began_s"] + (facts["took_s"] or 0.0)
            if facts["took_s"] is None or ended_s >= self._phase_began_s:
                self._commands.append({**facts, "line": facts["line"][:_LONGEST_LINE]})
        if picture:
            owners = [*lab.nodes.values(), *lab.switches.values()]
            state = quick_state(owners) if len(owners) <= MOST_NODES and lab.started else {}
            self._labs[lab.name] = lab_view(LabFacts(lab.describe(), state))

    def _of_error(self, error: BaseException) -> None:
        """Labs that have ended with the error left their pictures in it."""
        from ..reporting.facts import labs_and_rest, read_facts
        from ..reporting.view import lab_view

        for facts in filter(None, map(read_facts, labs_and_rest(error)[0])):
            if facts.name in self._labs:
                continue
            self._labs[facts.name] = lab_view(facts)
            self._commands += [{**item, "line": item["line"][:_LONGEST_LINE]} for item in facts.lab["commands"]]
            self._commands += [_as_command(fault) for fault in facts.lab.get("faults", ())]


def _happened(lab: Lab) -> Iterator[dict[str, Any]]:
    """The commands that were run in a lab, and the faults that were put into it, as a timeline takes them."""
    yield from (ran.facts() for ran in lab.journal.commands)
    yield from (_as_command(fault.facts()) for fault in lab.journal.faults)


def _as_command(fault: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: fault[name] for name in ("began_s", "took_s")}
    return {"where": FAULTS, "line": fault["what"], "status": None if fault["took_s"] is None else 0, **times}


def _feed_pytest_html(report: pytest.TestReport) -> None:
    """Give pytest-html the same as a piece of HTML, in the form of its `extras.html`.

    It shows what all phases of a test have given at each of its rows, so each piece says of which phase it is.
    """
    from ..reporting.page import fragment

    test = _Test(report.nodeid)
    test.add(report)
    if test.facts["labs"] or test.facts["checks"]:
        heading = f"<p><b>{report.when}: {report.outcome}</b></p>"
        content = heading + fragment({**test.facts, "text": ""})
        extra = {"name": None, "format_type": "html", "content": content}
        vars(report)["extras"] = [*vars(report).get("extras", ()), {**extra, "mime_type": None, "extension": None}]


class _Test:
    """What is known of one run of one test."""

    def __init__(self, nodeid: str) -> None:
        self.facts: dict[str, Any] = {"nodeid": nodeid, "outcome": "passed", "phases": [], "labs": [], "commands": []}
        self.facts |= {"checks": [], "more_checks": 0, "text": "", "folder": "", "skip": ""}

    def add(self, report: pytest.TestReport) -> None:
        """Add what a phase tells."""
        facts, extra = self.facts, vars(report)
        began_s = getattr(report, "start", time.time() - report.duration)
        phase = {"when": report.when, "outcome": report.outcome, "began_s": began_s, "took_s": report.duration}
        facts["phases"].append(phase)
        self._judge(report)
        view = extra.get(VIEW, {"labs": [], "commands": []})
        known = {lab["name"] for lab in facts["labs"]}
        facts["labs"] += [lab for lab in view["labs"] if lab["name"] not in known]
        self._add_commands(view["commands"])
        measured = extra.get(CHECKS, {"checks": [], "more": 0})
        facts["checks"] += measured["checks"]
        facts["more_checks"] += measured["more"]
        if kept := extra.get(KEPT):
            facts["folder"] = kept[0]

    def _add_commands(self, commands: list[dict[str, Any]]) -> None:
        """One that went on from one phase to the next is told by both: the later one knows more."""
        by_start = {(item["where"], item["line"], item["began_s"]): item for item in self.facts["commands"]}
        by_start |= {(item["where"], item["line"], item["began_s"]): item for item in commands}
        self.facts["commands"] = list(by_start.values())

    def _judge(self, report: pytest.TestReport) -> None:
        facts, expected = self.facts, hasattr(report, "wasxfail")
        if report.failed:
            facts["outcome"] = "failed" if report.when == "call" and facts["outcome"] != "error" else "error"
            facts["text"] = (facts["text"] + "\n\n" + report.longreprtext).strip()[-_LONGEST_TEXT:]
        elif report.skipped:
            facts["outcome"] = "xfailed" if expected else "skipped"
            facts["skip"] = getattr(report, "wasxfail", "") if expected else _skip_reason(report)
        elif expected and report.when == "call":
            facts["outcome"] = "xpassed"


def _skip_reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr or "")


class HtmlReport:
    """Where the terminal is: collects and writes."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config = config
        self._path = path
        self._began_s = time.time()
        self._tests: list[_Test] = []
        self._running: dict[str, _Test] = {}
        self._lacks: Counter[tuple[str, ...]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase; a test that is run again is another one."""
        if report.when == "setup" or report.nodeid not in self._running:
            self._running[report.nodeid] = _Test(report.nodeid)
            self._tests.append(self._running[report.nodeid])
        self._running[report.nodeid].add(report)
        if lacks := vars(report).get(LACKS):
            self._lacks[tuple(lacks)] += 1

    def pytest_sessionfinish(self) -> None:
        """Write it."""
        from ..doctor import summary
        from ..reporting.page import page

        folder = self._path.parent
        tests = [test.facts for test in self._tests]
        for test in tests:
            test["folder_link"] = (
                quote(Path(os.path.relpath(test["folder"], folder)).as_posix()) if test["folder"] else ""
            )
            test["folder"] = os.path.relpath(test["folder"]) if test["folder"] else ""
        about = {
            "title": f"{self._config.rootpath.name}: infrastructure tests",
            "machine": summary().removeprefix("infra: "),
            "began": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._began_s)),
            "took_s": time.time() - self._began_s,
            "command": shlex.join(["pytest", *self._config.invocation_params.args]),
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_private(self._path, page(tests, about, list(self._lacks.items())).encode(errors="replace"))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say where it is."""
        terminalreporter.write_line(f"infra: report of {len(self._tests)} tests: {os.path.relpath(self._path)}")
