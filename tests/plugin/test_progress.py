"""What takes more than two seconds is told on the terminal, and disturbs nothing that pytest captures."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
import time

import pytest

from pytest_infra.core import progress
from pytest_infra.core.progress import taking_long
from pytest_infra.session import Infra

SUITE = """
import time
from pytest_infra.core.progress import taking_long

def test_slow():
    print("captured")
    with taking_long("making tea"):
        time.sleep(2.3)

def test_quick():
    with taking_long("making coffee"):
        pass
"""
TOLD, ENDED = "infra: making tea …", "infra: making tea took 2."


def output_at_a_terminal(folder: os.PathLike[str], *options: str) -> str:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--infra", *options]
    child = subprocess.Popen(argv, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert child.wait() == 0
    return said.decode()


def test_it_is_told_at_a_terminal(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    said = output_at_a_terminal(pytester.path)
    assert TOLD in said
    assert ENDED in said
    assert "coffee" not in said
    assert "captured" not in said
    assert TOLD not in output_at_a_terminal(pytester.path, "-q")


@pytest.mark.parametrize(("option", "told"), [("-v", True), ("-vv", True), ("--color=no", False)])
def test_elsewhere_it_is_told_where_one_asks(pytester: pytest.Pytester, option: str, told: bool) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("--infra", option)
    result.assert_outcomes(passed=2)
    assert (TOLD in result.stdout.str()) is told


def test_workers_say_nothing(pytester: pytest.Pytester) -> None:
    """The descriptor there is the channel to the controller."""
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("--infra", "-v", "-n1")
    result.assert_outcomes(passed=2)
    assert "making" not in result.stdout.str()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(progress, "_AFTER_S", 0.01)
    caplog.set_level(logging.INFO, progress.PROGRESS.name)
    return caplog


def test_a_large_lab_tells(infra: Infra, told: pytest.LogCaptureFixture) -> None:
    with infra.lab("large") as lab:
        for _ in range(200):
            lab.host()
        lab.up()
    assert told.messages[0] == "infra: making 200 nodes of the lab large …"
    assert told.messages[1].startswith("infra: making 200 nodes of the lab large took ")


def divide() -> None:
    with taking_long("dividing"):
        time.sleep(0.1)
        raise ZeroDivisionError


def test_an_error_passes_through(told: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError):
        divide()
    assert told.messages == ["infra: dividing …", "infra: dividing took 0.1 s"]
