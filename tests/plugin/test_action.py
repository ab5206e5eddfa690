"""The GitHub action and the recipes for CI: valid by the schemas of those who read them, and their steps really run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from runner import Runner

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
READ_BY = {
    "action.yml": "github-actions",
    ".github/workflows/ci.yml": "github-workflows",
    ".github/workflows/labs.yml": "github-workflows",
    "examples/ci/gitlab-ci.yml": "gitlab-ci",
}
SUITE = """
def test_pass(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    lab.up()
"""
FAILING = """
from pytest_infra import assert_reachable

def test_fail(lab):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    link.down()
    assert_reachable(a, b)
"""


def check(kind: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """Hold files against a schema that check-jsonschema brings with it."""
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{kind}", *map(str, files)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", READ_BY)
def test_a_recipe_is_what_its_reader_takes(name: str) -> None:
    done = check(READ_BY[name], ROOT / name)
    assert done.returncode == 0, done.stdout


def test_an_action_with_a_mistake_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "action.yml"
    wrong.write_text(ACTION.read_text(encoding="utf-8").replace("shell: bash", "shel: bash", 1))
    assert "is not valid under any of the given schemas" in check("github-actions", wrong).stdout


def runner(tmp_path: Path, suite: str, **inputs: str) -> Runner:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "test_suite.py").write_text(suite, encoding="utf-8")
    ours = {"package": "", "python": sys.executable, "working-directory": "suite"}
    return Runner(tmp_path, ours | {name.replace("_", "-"): value for name, value in inputs.items()}).run(ACTION)


def test_a_suite_that_passes(tmp_path: Path) -> None:
    run = runner(tmp_path, SUITE, capabilities="ip linux", arguments="-p no:cacheprovider -k pass")
    assert not run.failed, run.log
    assert "1 passed" in run.log
    assert "linux  present" in run.log
    assert run.skipped == ["Install the plugin", "Fetch the kernel"]
    assert run.used["actions/cache@v4"]["key"].startswith("pytest-infra-")
    assert run.used["actions/upload-artifact@v4"]["path"] == run.outputs["folder"]
    assert (Path(run.outputs["folder"]) / "report.html").is_file()
    assert not run.summary


def test_a_suite_that_fails_leaves_its_evidence_and_a_summary(tmp_path: Path) -> None:
    run = runner(tmp_path, FAILING, cache="false")
    assert run.failed == "Run the tests"
    assert "cause      " in run.log
    assert "##[group]Remove what a cancelled run may have left" in run.log
    assert "## 1 failed" in run.summary
    assert list(Path(run.used["actions/upload-artifact@v4"]["path"]).glob("test_suite.py-test_fail/call/*.svg"))
    assert "actions/cache@v4" not in run.used


@pytest.mark.parametrize(
    ("inputs", "step", "words"),
    [
        ({"capabilities": "ovvs"}, "Install what the tests need", "did you mean 'ovs'?"),
        ({"require": "everything"}, "Run the tests", "--infra-require: no capability 'everything'"),
        ({"kernel": "no-such"}, "Fetch the kernel", "no-such"),
        ({"arguments": "--no-such $(touch by-a-shell)"}, "Run the tests", "unrecognized arguments: --no-such"),
    ],
)
def test_a_wrong_input_fails_the_step_that_reads_it(
    tmp_path: Path, inputs: dict[str, str], step: str, words: str
) -> None:
    run = runner(tmp_path, SUITE, **inputs)
    assert run.failed == step, run.log
    assert words in run.log
    assert "Remove what a cancelled run may have left" in run.log
    assert not list(tmp_path.rglob("by-a-shell"))
