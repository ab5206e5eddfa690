"""Processes outside any lab: what is said of those that have ended."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from pytest_infra.core.errors import WaitTimeout
from pytest_infra.core.process import Process, await_end


def test_a_child_that_was_reaped_has_ended_even_while_its_group_lives_on() -> None:
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & exit 0"], start_new_session=True)
    try:
        assert leader.wait() == 0
        assert await_end(leader.pid, within_s=0)
    finally:
        os.killpg(leader.pid, signal.SIGKILL)


def test_wait_for_says_what_was_written_instead() -> None:
    process = Process(["sh", "-c", "echo starting; exec sleep 60"])
    try:
        process.wait_for("starting")
        with pytest.raises(WaitTimeout, match=r"'ready' in the output of .*: not within 0.05 s; it wrote\n  starting$"):
            process.wait_for("ready", within_s=0.05)
    finally:
        process.close()
