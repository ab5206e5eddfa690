"""Tab completion, and what is said of names that do not fit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_infra.cli import completion
from pytest_infra.cli.labs import LabUp, find_lab, find_node
from pytest_infra.core.errors import BadInput
from pytest_infra.core.sweep import LeaseState


def lab(name: str, *nodes: str, pid: int = 1, kept: Mapping[str, Any] | None = None) -> LabUp:
    session = {"pid": pid, **({"kept": kept} if kept else {})}
    return LabUp(name, {node: {} for node in nodes}, LeaseState("/nowhere", True, session, {}))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], ["clean", "completion", "doctor", "init", "kernel", "list", "schema", "shell", "version"]),
        (["c"], ["clean", "completion"]),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["shell", ""], ["test_mail", "test_web"]),
        (["shell", "test_w"], ["test_web"]),
        (["shell", "test_web", ""], ["alice", "bob"]),
        (["shell", "test_web", "b"], ["bob"]),
        (["shell", "test_web", "bob", ""], []),
        (["shell", "nobody", ""], []),
        (["clean", ""], ["test_mail"]),
        (["doctor", "privi"], ["privilege"]),
        (["list", ""], []),
        (["nothing", ""], []),
    ],
)
def test_the_words_that_fit(monkeypatch: pytest.MonkeyPatch, words: list[str], found: list[str]) -> None:
    labs = [lab("test_web", "alice", "bob"), lab("test_mail", "mx", kept={"test": "x"})]
    monkeypatch.setattr(completion, "labs_up", lambda: labs)
    assert completion.candidates(words) == found


def test_the_nodes_of_the_only_lab_need_no_surname(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "labs_up", lambda: [lab("test_web", "alice", "bob")])
    assert completion.candidates(["shell", ""]) == ["alice", "bob", "test_web"]


def test_bash_completes_for_real(tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    argv = [sys.executable, "-m", "pytest_infra", "completion", "bash"]
    script.write_bytes(subprocess.run(argv, capture_output=True, check=True).stdout)
    ask = f"""
        source {script}
        pytest-infra() {{ {sys.executable} -m pytest_infra "$@"; }}
        COMP_WORDS=(pytest-infra completion f) COMP_CWORD=2
        _pytest_infra
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout == "fish\n", done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    text = completion.script(shell)
    assert "pytest-infra complete -- " in text
    if shutil.which(shell):
        (tmp_path / "it").write_text(text)
        subprocess.run([shell, "-n", str(tmp_path / "it")], check=True)


LABS = [lab("test_web", "alice", "bob"), lab("test_mail", "mx", pid=7), lab("test_mail", "mx", pid=8)]


@pytest.mark.parametrize(
    ("labs", "name", "pid", "text"),
    [
        (LABS, "test_weg", None, "no lab 'test_weg' is up; did you mean test_web? There are test_web, test_mail"),
        (LABS, "zzz", None, "no lab 'zzz' is up; there are test_web, test_mail"),
        (LABS, None, None, "which lab? There are test_web, test_mail"),
        (LABS, "test_mail", None, "2 labs are called 'test_mail', of the sessions 7, 8: choose with --session PID"),
        (LABS, "test_mail", 9, "the session 9 has no lab 'test_mail', of the sessions 7, 8: choose with --session PID"),
        ([], "x", None, "no lab 'x' is up; there are none"),
        ([], None, None, "no lab is up"),
    ],
)
def test_labs_that_cannot_be_chosen(labs: list[LabUp], name: str | None, pid: int | None, text: str) -> None:
    with pytest.raises(BadInput) as error:
        find_lab(labs, name, pid)
    assert str(error.value) == text


def test_labs_and_nodes_that_can() -> None:
    assert find_lab(LABS, "test_web").name == "test_web"
    assert find_lab(LABS, "test_mail", 8).pid == 8
    assert find_lab(LABS[:1], None).name == "test_web"
    assert find_node(LABS[1], None) == "mx"
    assert find_node(LABS[0], "bob") == "bob"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (None, "which node of the lab test_web? There are alice, bob"),
        ("alcie", "no node 'alcie' in the lab test_web; did you mean alice? There are alice, bob"),
        ("x", "no node 'x' in the lab test_web; there are alice, bob"),
    ],
)
def test_nodes_that_cannot_be_chosen(name: str | None, text: str) -> None:
    with pytest.raises(BadInput) as error:
        find_node(LABS[0], name)
    assert str(error.value) == text
