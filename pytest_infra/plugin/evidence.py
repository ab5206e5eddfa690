"""Keeps the evidence of tests: ``--infra-artifacts`` and what belongs to it, as a plugin beside the main one.

It is registered with ``--infra`` only. A failing phase of a test is looked at in `pytest_runtest_makereport`, while its
labs are still up.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..core.errors import CheckFailed, InfraError
from ..core.evidence import NOT_TAKEN, Artifact
from ..fixtures import BEFORE_END, RECORD, SESSION
from .options import Choice, check_place
from .skips import LACKS
from .teardown import teardown_has_failed

if TYPE_CHECKING:
    from ..lab import Lab
    from ..reporting.artifacts import EvidenceFolder
    from ..reporting.github import Failure

__all__ = [
    "CAUSE",
    "KEPT",
    "Evidence",
    "EvidenceSettings",
    "GitHubSummary",
    "add_options",
    "keep_evidence",
    "read_settings",
]

KEPT = "infra_kept"
"""The attribute of a report with the folder of its evidence and the topology as Mermaid."""
CAUSE = "infra_cause"
"""The attribute of the report of a failed test of infrastructure: a line that says what is wrong, and why."""

_SECTION = "infra evidence"
_SAID = "infra_said"
_FOLDER = pytest.StashKey["EvidenceFolder"]()
_BEFORE = pytest.StashKey[dict["Lab", "dict[str, dict[str, int]]"]]()
_ENDED = pytest.StashKey["list[list[Artifact]]"]()


_WHEN = ("never", "on-failure", "always")
_ARTIFACTS = Choice("artifacts", _WHEN, "on-failure", "when to write a folder of evidence for a test")
_PCAP = Choice("pcap", ("off", *_WHEN[1:]), "off", "when to add the latest frames of every interface to that folder")
_GITHUB = Choice("github", ("auto", "off"), "auto", "a job summary where GitHub Actions runs the tests")
_CAPTURES = "captures/"


@dataclass(frozen=True)
class EvidenceSettings:
    """What is kept of a test."""

    artifacts: str
    pcap: str
    github: str
    folder: Path

    def covers(self, failed: bool) -> tuple[bool, bool]:
        """Whether everything, and whether the frames, are kept of a test that has failed, or passed."""
        wanted = ("on-failure", "always") if failed else ("always",)
        return self.artifacts in wanted, self.pcap in wanted


def add_options(parser: pytest.Parser, group: Any) -> None:
    """The options about evidence."""
    for choice in (_ARTIFACTS, _PCAP, _GITHUB):
        choice.add(parser, group)
    group.addoption(
        "--infra-artifacts-dir",
        dest="infra_artifacts_dir",
        metavar="DIR",
        help="where these folders are; never wiped; default: infra-artifacts in the root folder "
        "(PYTEST_INFRA_ARTIFACTS_DIR, ini: infra_artifacts_dir)",
    )
    parser.addini("infra_artifacts_dir", "where folders of evidence are", default="")


def read_settings(config: pytest.Config) -> EvidenceSettings:
    """What the options say; workers of pytest-xdist get the folder as the controller understands it."""
    here, root = config.invocation_params.dir, config.rootpath
    if given := config.getoption("infra_artifacts_dir") or os.environ.get("PYTEST_INFRA_ARTIFACTS_DIR"):
        folder = here / given
    else:
        folder = root / (config.getini("infra_artifacts_dir") or "infra-artifacts")
    config.option.infra_artifacts_dir = str(folder)
    return EvidenceSettings(_ARTIFACTS.value(config), _PCAP.value(config), _GITHUB.value(config), folder)


def keep_evidence(config: pytest.Config) -> None:
    """Register the hooks, and where GitHub Actions runs the tests the one for its job summary.

    Raises:
        pytest.UsageError: the folder of evidence, where one is wanted, cannot be a folder.
    """
    from ..reporting.github import summary_file

    settings = read_settings(config)
    if any(settings.covers(failed=True)):
        check_place("--infra-artifacts-dir", settings.folder, folder=True)
    config.pluginmanager.register(Evidence(config, settings), "infra-evidence")
    if settings.github == "auto" and not hasattr(config, "workerinput") and (path := summary_file()):
        config.pluginmanager.register(GitHubSummary(path), "infra-github")


class Evidence:
    """The hooks."""

    def __init__(self, config: pytest.Config, settings: EvidenceSettings) -> None:
        self._config = config
        self._settings = settings
        self._item: pytest.Item | None = None
        config.stash[BEFORE_END].append(self._before_end)
        config.stash[RECORD] = settings.pcap != "off"

    def _labs(self) -> tuple[Lab, ...]:
        session = self._config.stash.get(SESSION, None)
        return session.labs if session is not None else ()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """What a lab that is older than the test has counted so far."""
        self._item = item
        if self._settings.artifacts != "never" and (labs := self._labs()):
            item.stash[_BEFORE] = {lab: _counters(lab) for lab in labs}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Take the evidence of a phase that has failed, and say in the report where it is."""
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, CheckFailed) and any(self._settings.covers(failed=True)):
            with suppress(OSError):  # said when it is written
                _add_row(error, self._folder(item).path / call.when)
        report = yield
        error = call.excinfo.value if call.excinfo is not None else None  # of a unittest.TestCase it comes only now
        if report.failed and _is_of_infra(item, error):
            from ..reporting.github import cause_line

            vars(report)[CAUSE] = cause_line(error, report.longreprtext)
        everything, frames = self._settings.covers(report.failed)
        if (everything or frames) and (report.failed or (report.passed and report.when == "call")):
            self._take(item, report, error if report.failed else None, everything)
        elif _FOLDER in item.stash:
            item.stash[_FOLDER].discard()  # an expected failure
        return report

    def _folder(self, item: pytest.Item) -> EvidenceFolder:
        from ..reporting.artifacts import EvidenceFolder

        return item.stash.setdefault(_FOLDER, EvidenceFolder(self._settings.folder, item.nodeid))

    def _take(
        self, item: pytest.Item, report: pytest.TestReport, error: BaseException | None, everything: bool
    ) -> None:
        from ..reporting.facts import labs_and_rest

        note = f"{item.nodeid} ({report.when}) {report.outcome}" + (f": {_first_line(error)}" if error else "")
        labs: list[Sequence[Artifact]] = [
            _of_lab(lab, item.stash.get(_BEFORE, {}).get(lab), note) for lab in self._labs()
        ]
        ended = item.stash.setdefault(_ENDED, [])
        labs += ended
        ended_with_it, loose = labs_and_rest(error)
        labs += ended_with_it
        if everything:
            loose += _report_of(error)
        else:
            labs, loose = [_captures(lab) for lab in labs], _captures(loose)
        if any(labs) or loose:
            try:
                folder, text = self._folder(item).write(report.when or "call", labs, loose)
            except OSError as unwritten:  # no reason to lose the run
                report.sections.append((_SECTION, f"it could not be kept: {unwritten}"))
                return
            report.sections.append((_SECTION, text))
            topology = [str(part.content) for lab in labs for part in _pictures(lab)]
            vars(report)[KEPT] = [str(folder), "\n".join(topology[:1])]  # JSON types: xdist sends it to the controller
            for properties in (item.user_properties, report.user_properties):
                properties.append(("infra_evidence", str(folder)))

    def _before_end(self, lab: Lab, _error: BaseException | None) -> None:
        """A lab is about to end; where something before it has failed in the teardown, look at it now."""
        item = self._item
        if item is not None and lab.started and any(self._settings.covers(failed=True)) and teardown_has_failed():
            item.stash.setdefault(_ENDED, []).append(_of_lab(lab, None, f"{item.nodeid} (teardown) failed"))


def _add_row(error: CheckFailed, folder: Path) -> None:
    """Say where the evidence is. A fixture of a module raises one error in many tests: each names its own folder."""
    from ..core.report import explain

    said = vars(error).setdefault(_SAID, str(error))
    error.args = (f"{said}{explain('', [('evidence', os.path.relpath(folder))])}",)


def _is_of_infra(item: pytest.Item, error: BaseException | None) -> bool:
    """Whether a test uses what this plugin gives, or has failed with an error of ours."""
    return isinstance(error, (CheckFailed, InfraError)) or "infra" in getattr(item, "fixturenames", ())


def _report_of(error: BaseException | None) -> Iterator[Artifact]:
    if isinstance(error, CheckFailed) and error.report is not None:
        from ..core.report import as_json

        yield Artifact("report.json", as_json(error.report))


class GitHubSummary:
    """Where the terminal is, and GitHub Actions runs the tests: writes the job summary at the end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._failed: list[Failure] = []
        self._lacks: Counter[tuple[str, ...]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the cause of a failure, what was kept of it, and what was lacking."""
        from ..reporting.github import Failure

        extra = vars(report)
        if report.failed and (KEPT in extra or CAUSE in extra):
            folder, topology = extra.get(KEPT, ("", ""))
            name = f"{report.nodeid} ({report.when})"
            self._failed.append(
                Failure(name, extra.get(CAUSE, ""), os.path.relpath(folder) if folder else "", topology)
            )
        if lacks := vars(report).get(LACKS):
            self._lacks[tuple(lacks)] += 1

    def pytest_sessionfinish(self) -> None:
        """Write it, if there is anything to say."""
        from ..reporting.github import append, job_summary

        if text := job_summary(self._failed, self._lacks.items()):
            append(self._path, text)


def _captures(artifacts: Sequence[Artifact]) -> list[Artifact]:
    return [part for part in artifacts if part.name.startswith(_CAPTURES)]


def _pictures(lab: Sequence[Artifact]) -> Iterator[Artifact]:
    from ..reporting.facts import read_facts
    from ..reporting.topology import mermaid

    if (facts := read_facts(lab)) is not None:
        yield Artifact("topology.mmd", mermaid(facts))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _of_lab(lab: Lab, before: dict[str, dict[str, int]] | None, note: str) -> list[Artifact]:
    """A lab's diagnosis; what cannot be taken must not hide the failure that it is about."""
    found: list[Artifact] = []
    lab.journal.note = note
    try:
        found.extend(lab.diagnose())
        if before is not None:
            found.extend(_grown(before, _counters(lab)))
    except Exception as error:  # noqa: BLE001
        found.append(Artifact(NOT_TAKEN, f"{type(error).__name__}: {error}\n"))
    return found


def _counters(lab: Lab) -> dict[str, dict[str, int]]:
    from ..net.diagnosis import count_all

    return count_all((*lab.nodes.values(), *lab.switches.values()))


def _grown(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> Iterator[Artifact]:
    from ..net.counters import changed

    for name, counters in after.items():
        lines = [f"{what}  +{value}\n" for what, value in changed(before.get(name, {}), counters).items()]
        yield Artifact(f"{name}/counters-of-this-test.txt", "".join(lines))
