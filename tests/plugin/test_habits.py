"""What people expect of any tool: hints for names that are not there, a first test, answers for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest_infra", *words]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--infra-requir=ovs", "no option --infra-requir; did you mean '--infra-require'?"),
        ("--infra-artefacts", "no option --infra-artefacts; did you mean '--infra-artifacts'?"),
        ("--infrq", "unrecognized arguments: --infrq"),
        ("--infra-zzzzzzzzzzzzzzzzz", "no option --infra-zzzzzzzzzzzzzzzzz"),
    ],
)
def test_an_option_that_is_not_there(pytester: pytest.Pytester, option: str, hint: str) -> None:
    result = pytester.runpytest_subprocess(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"{hint}\n" in result.stderr.str() + "\n"


def test_an_option_of_somebody_elses_conftest_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("def pytest_addoption(parser): parser.addoption('--infra-theirs')")
    pytester.makepyfile("def test_it(pytestconfig): assert pytestconfig.getoption('--infra-theirs') == 'x'")
    pytester.runpytest_subprocess("--infra-theirs=x", "--", ".").assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_a_fixture_that_is_not_there(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    pytester.makepyfile("def test_a(ovs_brige): pass\ndef test_b(something): pass")
    result = pytester.runpytest_subprocess(*workers)
    result.assert_outcomes(errors=2)
    assert result.stdout.str().count("did you mean") == 1
    result.stdout.fnmatch_lines(["*there is no fixture 'ovs_brige'; did you mean 'ovs_bridge'?"])


def test_the_doctor_speaks_json(pytester: pytest.Pytester) -> None:
    done = command("doctor", "--json", "linux", "netmap", cwd=pytester.path)
    answer = json.loads(done.stdout)
    assert answer["capabilities"]["linux"]["state"] == "present"
    assert answer["capabilities"]["netmap"]["state"] == "absent"
    assert answer["capabilities"]["netmap"]["why"]
    assert (done.returncode, answer["missing"]) == (0, [])
    result = pytester.runpytest_subprocess("--infra-doctor-json", "-q")
    whole = json.loads(result.stdout.str())
    assert result.ret == (1 if whole["missing"] else 0)
    assert whole["capabilities"]["privilege"]["state"] == "present"
    assert "did you mean 'linux'?" in command("doctor", "--json", "linx", cwd=pytester.path).stderr


def test_init_writes_a_first_test_and_a_workflow(pytester: pytest.Pytester) -> None:
    done = command("init", cwd=pytester.path)
    assert done.stdout.splitlines() == [
        "wrote tests/test_first_lab.py",
        "wrote .github/workflows/labs.yml",
        "next: pytest --infra",
    ]
    pytester.runpytest_subprocess("--infra", "--infra-require=all").assert_outcomes(passed=1)
    first = pytester.path / "tests" / "test_first_lab.py"
    first.write_text(first.read_text(encoding="utf-8").replace("    # sw1", "    sw1"), encoding="utf-8")
    result = pytester.runpytest_subprocess("--infra")
    result.stdout.fnmatch_lines(["E *cause *sw1:sw1-p2 is down*"])
    workflow = pytester.path / ".github" / "workflows" / "labs.yml"
    assert yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].keys() == {"labs"}
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow)]
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 0


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    workflow = tmp_path / ".github" / "workflows" / "labs.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text("mine")
    done = command("init", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"pytest-infra: nothing is overwritten: there is {workflow} already\n"
    assert workflow.read_text() == "mine"
    assert not (tmp_path / "tests").exists()
    blocked = tmp_path / "other"
    blocked.mkdir()
    (blocked / ".github").write_text("a file")
    done = command("init", str(blocked), cwd=tmp_path)
    assert (done.returncode, "cannot be written" in done.stderr) == (2, True)
    assert sorted(path.name for path in blocked.rglob("*") if path.is_file()) == [".github"]
