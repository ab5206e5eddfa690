"""Where the session's files go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_infra.core import rundir
from pytest_infra.core.errors import InfraError


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if an ordinary user ran this, whose temporary folder is the test's."""
    monkeypatch.setattr(rundir, "in_child_user_namespace", lambda: True)
    monkeypatch.setattr(rundir.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(rundir, "outer_uid", lambda: 1234)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path


def test_roots_is_below_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "in_child_user_namespace", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert rundir._candidates()[0] == "/run/pytest-infra"


def test_a_users_is_in_the_runtime_folder(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (user / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(user / "runtime"))
    assert rundir.run_directory() == str(user / "runtime" / "pytest-infra")


def test_or_in_the_temporary_folder_by_the_user_id_outside(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rundir.run_directory() == str(user / "pytest-infra-1234")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(user / "not there"))
    assert rundir.run_directory() == str(user / "pytest-infra-1234")
    assert (user / "pytest-infra-1234").stat().st_mode & 0o777 == 0o700
    assert rundir.run_directories() == [str(user / "pytest-infra-1234")]


@pytest.mark.parametrize("trap", ["link", "file", "writable"])
def test_what_others_may_have_put_there_is_not_used(user: Path, trap: str) -> None:
    path = user / "pytest-infra-1234"
    if trap == "link":
        (user / "elsewhere").mkdir()
        path.symlink_to(user / "elsewhere")
    elif trap == "file":
        path.touch()
    else:
        path.mkdir()
        path.chmod(0o777)
    with pytest.raises(InfraError, match=f"{path} cannot be made or are not ours alone"):
        rundir.run_directory()
    assert rundir.run_directories() == []


def test_outer_uid_is_ours_outside_any_user_namespace() -> None:
    with open("/proc/self/uid_map") as uid_map:
        if uid_map.read().split() == ["0", "0", "4294967295"]:
            assert rundir.outer_uid() == os.geteuid()
