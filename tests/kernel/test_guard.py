"""A guard's processes end with this process, however it ends, and are told apart from the machine's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_infra.core import linux
from pytest_infra.core.errors import StartFailed
from pytest_infra.core.guard import Guard
from pytest_infra.core.process import Process, run
from pytest_infra.core.wait import until

PARENT = """
import os, signal, sys, time, warnings
warnings.simplefilter("ignore")
from pytest_infra.core.guard import Guard
from pytest_infra.session import Infra
MARK, END = sys.argv[1:]
with Infra() as infra, infra.lab() as lab:
    a, b = lab.host("a"), lab.host("b", isolate=["pid", "mount"])
    for host in (a, b):
        host.spawn(["sleep", MARK])
        host.run(["sh", "-c", f"(setsid sh -c 'setsid sleep {MARK} & exec sleep {MARK}' &)"])
    child = os.fork() if "fork" in END else 0
    if "fork" in END and not child:
        os.write(1, f"child {os.getpid()}\\n".encode())
        while True:
            signal.pause()
    os.write(1, b"ready\\n")
    if "exit" in END:
        os._exit(0)
    if "kill" in END:
        os.kill(os.getpid(), signal.SIGKILL)
    if "raise" in END:
        raise SystemExit(0)
"""


def sleepers(mark: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if Path(f"/proc/{name}/cmdline").read_bytes() == b"sleep\0" + mark.encode() + b"\0":
                    found.append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


@pytest.mark.parametrize(
    "end", ["return", "raise", "exit", "kill", "fork and kill", "fork and exit", "fork and return"]
)
def test_nothing_outlives_the_process(infra, end):
    """Also where a process that was forked from it, as multiprocessing does, lives on."""
    mark = f"98{os.getpid()}.{len(end)}"
    with subprocess.Popen([sys.executable, "-c", PARENT, mark, end], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = 0
        awaited = {"ready", "child"} if "fork" in end else {"ready"}
        while awaited:
            word, *number = parent.stdout.readline().split()
            awaited.remove(word)
            child = int(number[0]) if number else child
        try:
            assert parent.wait(20) == (-signal.SIGKILL if "kill" in end else 0)
            until(lambda: not sleepers(mark), within_s=5, what="all are gone", last_words=lambda: str(sleepers(mark)))
        finally:
            if child:
                os.kill(child, signal.SIGKILL)


def test_it_has_processes_of_its_own_only(infra):
    with Guard("test") as guard:
        seen = run(["sh", "-c", "ls /proc | grep '^[0-9]'"], popen=guard.popen).stdout.split()
        assert "1" in seen
        assert len(seen) <= 5, "its first process and what that waits for, sh, ls, grep"
        assert os.readlink(f"/proc/{guard.pid}/ns/pid") != os.readlink("/proc/self/ns/pid")


def test_private_folders(infra, tmp_path):
    (tmp_path / "file").touch()
    with Guard("test", private=(str(tmp_path),)) as guard:
        assert run(["ls", str(tmp_path)], popen=guard.popen).stdout == ""
        run(["touch", str(tmp_path / "inside")], popen=guard.popen)
        assert os.listdir(guard.root + str(tmp_path)) == ["inside"]
    assert os.listdir(tmp_path) == ["file"]
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_what_cannot_be_mounted_is_an_error_and_leaves_nothing(infra, nothing_left):
    with pytest.raises(
        StartFailed, match=r"Guard could not be started: .*mount tmpfs on /no/such/folder: No such file"
    ):
        Guard("test", private=("/no/such/folder",)).start()


def test_a_shell_that_does_not_come_up_is_an_error_and_leaves_nothing(infra, nothing_left, monkeypatch):
    from pytest_infra.core import guard

    monkeypatch.setattr(guard, "_INIT", "exit 3")
    with pytest.raises(StartFailed, match=r"test: the first process of a PID namespace did not come up"):
        Guard("test").start()


def test_it_does_not_see_mounts_that_are_made_by_it(infra):
    before = Path("/proc/self/mountinfo").read_text()
    with Guard("test"):
        assert Path("/proc/self/mountinfo").read_text() == before


def test_the_end_of_its_first_process_ends_all(infra):
    with Guard("test") as guard:
        process = Process(["sleep", "60"], popen=guard.popen)
        os.kill(guard.pid, signal.SIGKILL)
        assert process.wait(5).returncode == -signal.SIGKILL
        process.close()


def test_orphans_are_reaped(infra, tmp_path):
    with Guard("test") as guard:
        run(["sh", "-c", f"for n in 1 2 3 4 5; do (setsid touch {tmp_path}/$n &) ; done"], popen=guard.popen)
        until(lambda: len(os.listdir(tmp_path)) == 5, within_s=5, what="the orphans did their work")
        count = ["sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"]
        until(lambda: run(count, popen=guard.popen).stdout.strip() == "0", within_s=5, what="no zombies")
        assert run(["echo", "still here"], popen=guard.popen).stdout == "still here\n"


def test_a_command_enters_the_namespaces_it_is_given(infra, lab):
    a = lab.host("a")
    lab.up()
    with Guard("test") as guard:
        said = guard.popen(["readlink", "/proc/self/ns/net"], (a.namespace.fd,), stdout=subprocess.PIPE)
        assert said.communicate()[0].decode().strip() == os.readlink(f"/proc/self/fd/{a.namespace.fd}")
    assert linux.has_capability("sys_admin")


def test_many_guards_leave_nothing(infra, nothing_left):
    for _ in range(20):
        with Guard("test"):
            pass
    assert not nothing_left()


def test_a_process_that_kills_all_it_sees_does_not_end_the_others_guard(infra) -> None:
    with infra.lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        a.run(["true"])
        for _ in range(3):
            a.run(["pkill", "-KILL", "cat"], check=False)
            assert a.run(["echo", "x"]).stdout == "x\n"
        a.run(["sh", "-c", "kill -TERM -1; sleep 0.2"], check=False)
        assert b.run(["echo", "y"]).stdout == "y\n"
        sleeper = b.spawn(["sleep", "1000"])
        assert sleeper.running
    assert not sleeper.running


def test_a_generator_of_arguments_is_read_once(infra) -> None:
    with infra.lab() as lab:
        assert lab.host("a").run(word for word in ["echo", "hi"]).stdout == "hi\n"
