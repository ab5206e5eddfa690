"""Processes outside any lab: what is said of those that have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pytest_infra.core.errors import WaitTimeout
from pytest_infra.core.process import Process, await_end

_IN_PIECES = "import time; print('listening on port 80', end=''); time.sleep(0.03); print(80); time.sleep(60)"


def test_a_child_that_was_reaped_has_ended_even_while_its_group_lives_on() -> None:
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & exit 0"], start_new_session=True)
    try:
        assert leader.wait() == 0
        assert await_end(leader.pid, within_s=0)
    finally:
        os.killpg(leader.pid, signal.SIGKILL)


def test_wait_for_gives_the_whole_line_that_comes_in_pieces() -> None:
    process = Process([sys.executable, "-uc", _IN_PIECES])
    try:
        assert process.wait_for("port 80") == "listening on port 8080"
    finally:
        process.close()


@pytest.mark.parametrize("within_s", [0.0, 0.02, 5.0])
def test_wait_for_takes_a_prompt(within_s: float) -> None:
    process = Process(["sh", "-c", "printf 'login: '; exec sleep 60"])
    try:
        process.wait_for("log")
        assert process.wait_for("login:", within_s=within_s) == "login: "
    finally:
        process.close()


def test_wait_for_says_what_was_written_instead() -> None:
    process = Process(["sh", "-c", "echo starting; exec sleep 60"])
    try:
        process.wait_for("starting")
        with pytest.raises(WaitTimeout, match=r"'ready' in the output of .*: not within 0.05 s; it wrote\n  starting$"):
            process.wait_for("ready", within_s=0.05)
    finally:
        process.close()
