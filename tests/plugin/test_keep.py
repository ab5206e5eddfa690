"""Labs that stay after their test: entered from another process, ended by ``clean``, and none without being asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pytest_infra.cli.labs import LabUp, labs_up
from pytest_infra.core.wait import until

pytestmark = pytest.mark.timeout(300)

SUITE = """
    import os, sys
    import pytest
    from pytest_infra import assert_reachable
    from pytest_infra.cgroup.requirement import CGROUP

    @pytest.fixture
    def more(lab):
        yield lab
        raise ValueError("later")

    def test_fails_{mark}(lab):
        a, b, sw1 = lab.host("a"), lab.host("b", isolate=["uts", "pid"]), lab.{switch}("sw1")
        lab.link(a, sw1, ip="10.0.0.1/24")
        lab.link(b, sw1, ip="10.0.0.2/24")
        a.spawn([sys.executable, "-m", "http.server", "8000"])
        if CGROUP.probe():
            lab.cgroup("g", a, pids_max=50)
            a.spawn(["sleep", "3600"])
        assert_reachable(b, a, protocol="tcp", port=8000, within="10 s")
        raise AssertionError("wanted")

    def test_passes_{mark}(lab):
        lab.host("a").run(["true"])

    def test_teardown_{mark}(more):
        more.host("late").run(["true"])

    def test_own_{mark}(infra):
        with infra.lab("own-{mark}") as lab:
            lab.host("mine").run(["true"])
            assert lab.name == "yours"

    def test_nothing_{mark}(lab):
        lab.host("a")
        raise AssertionError("before anything was made")
"""


@pytest.fixture
def mark() -> Iterator[str]:
    """A name of this test's own: kept labs of others are none of its business."""
    mark = os.urandom(3).hex()
    yield mark
    command("clean", *(lab.name for lab in kept(mark))) if kept(mark) else None


def kept(mark: str) -> list[LabUp]:
    return [lab for lab in labs_up() if mark in lab.name and lab.kept is not None]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest_infra", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def processes(mark: str) -> list[int]:
    """Everything that lives in the namespaces of the kept labs, and those who hold them."""
    found = []
    spaces = {
        os.stat(path).st_ino
        for lab in kept(mark)
        for node in lab.nodes.values()
        for path in [node["namespaces"]["net"]]
    }
    for process in psutil.process_iter():
        try:
            if os.stat(f"/proc/{process.pid}/ns/net").st_ino in spaces:
                found.append(process.pid)
        except OSError:
            continue
    return found + [lab.pid for lab in kept(mark)]


def groups() -> list[str]:
    return [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith("-g")]


@pytest.mark.parametrize(("workers", "switch"), [((), "ovs"), (("-n2",), "bridge")])
def test_a_failed_tests_lab_stays_until_clean(
    pytester: pytest.Pytester, mark: str, workers: tuple[str, ...], switch: str
) -> None:
    before = set(groups())
    pytester.makepyfile(test_it=SUITE.format(mark=mark, switch=switch))
    result = pytester.runpytest_subprocess("--infra", "--infra-keep=on-failure", *workers)
    result.assert_outcomes(failed=3, passed=2, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            f"infra: kept the lab test_fails_{mark}: pytest-infra shell test_fails_{mark} a|b|sw1",
            f"infra: kept the lab test_teardown_{mark}: pytest-infra shell *",
            f"infra: kept the lab own-{mark}: pytest-infra shell own-{mark} mine",
            f"infra: the lab test_nothing_{mark} was not kept: nothing of it had been made",
            "infra: kept labs stay until: pytest-infra clean",
        ]
    )
    names = {lab.name for lab in kept(mark)}
    assert names == {f"test_fails_{mark}", f"test_teardown_{mark}", f"own-{mark}"}
    listed = command("list").stdout
    assert f"test_it.py::test_fails_{mark} failed\n  lab test_fails_{mark}: a, b, sw1\n" in listed
    page = command("shell", f"test_fails_{mark}", "b", "--", sys.executable, "-c", FETCH)
    assert page.stdout == "200\n", page.stderr
    if switch == "ovs":
        shown = command("shell", f"test_fails_{mark}", "sw1", "--", "ovs-vsctl", "show")
        assert "Port sw1-p1" in shown.stdout, shown.stderr
    alive = processes(mark)
    assert len(alive) > len(names)
    done = command("clean", *names)
    assert sorted(done.stdout.splitlines()) == sorted(f"ended the kept lab {name}" for name in names)
    assert kept(mark) == []
    until(lambda: not any(map(psutil.pid_exists, alive)), within_s=10, what="the end of what was kept")
    assert set(groups()) <= before


FETCH = "import urllib.request as r; print(r.urlopen('http://10.0.0.1:8000/').status)"


def test_always_and_a_name_that_is_taken(pytester: pytest.Pytester, mark: str) -> None:
    pytester.makepyfile(f"""
    def test_passes_{mark}(lab):
        lab.host("a").run(["true"])
    """)
    for number in (1, 2):
        result = pytester.runpytest_subprocess("--infra", "--infra-keep=always")
        name = f"test_passes_{mark}" + (f".{number}" if number > 1 else "")
        result.stdout.fnmatch_lines([f"infra: kept the lab {name}: pytest-infra shell {name} a"])
    assert "passed\n" in command("list").stdout
    assert len(kept(mark)) == 2


def test_never_is_the_default(pytester: pytest.Pytester, mark: str) -> None:
    pytester.makepyfile(test_it=SUITE.format(mark=mark, switch="bridge"))
    result = pytester.runpytest_subprocess("--infra")
    result.stdout.no_fnmatch_line("*kept*")
    assert kept(mark) == []


def test_whatever_ends_the_holder_nothing_is_left(pytester: pytest.Pytester, mark: str) -> None:
    before = set(groups())
    pytester.makepyfile(test_it=SUITE.format(mark=mark, switch="bridge"))
    pytester.runpytest_subprocess("--infra", "--infra-keep=on-failure", "-k", "fails")
    (lab,) = kept(mark)
    alive = processes(mark)
    os.kill(lab.pid, signal.SIGKILL)
    until(lambda: not any(map(psutil.pid_exists, alive)), within_s=10, what="the end of what was kept")
    until(lambda: not Path(lab.lease.folder).exists(), within_s=10, what="the reaper's work")
    assert set(groups()) <= before


def test_a_lab_that_could_not_be_made(pytester: pytest.Pytester, mark: str) -> None:
    pytester.makepyfile(f"""
    from pytest_infra.net.host import Host

    class Broken(Host):
        def _start(self, undo):
            super()._start(undo)
            raise OSError(5, "no power")

    def test_broken_{mark}(lab):
        a = lab.host("a")
        a.__class__ = Broken
        a.run(["true"])
    """)
    result = pytester.runpytest_subprocess("--infra", "--infra-keep=on-failure")
    result.stdout.fnmatch_lines([f"infra: the lab test_broken_{mark} was not kept: it could not be made: *no power*"])
    assert kept(mark) == []


def test_what_cannot_outlive_the_session_is_named(infra) -> None:
    from pytest_infra.core.keep import CannotKeep
    from pytest_infra.core.resource import Resource

    class Engine(Resource):
        kind, name = "container", "web"

    with infra.lab("refused") as lab:
        a = lab.host("a")
        a.run(["true"])
        lab._stack.enter_context(Engine())
        with pytest.raises(CannotKeep, match=r"^container web cannot outlive the process that made it$"):
            lab.keep()
        assert a.run(["true"]).ok, "the lab goes on as before"
    assert all(lab.name != "refused" for lab in labs_up())


def test_the_holder_that_does_not_come_up(infra, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_infra.core import holder
    from pytest_infra.core.keep import CannotKeep

    monkeypatch.setattr(holder, "module_argv", lambda *_: [sys.executable, "-c", "raise SystemExit('out of paper')"])
    with infra.lab("refused") as lab:
        a = lab.host("a")
        a.run(["true"])
        with pytest.raises(CannotKeep, match=r"did not come up: out of paper$"):
            lab.keep()
        assert a.run(["true"]).ok
        monkeypatch.setattr(holder, "module_argv", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"])
        monkeypatch.setattr(holder, "_START_S", 0.5)
        with pytest.raises(CannotKeep, match=r"did not come up within 0.5 s$"):
            lab.keep()
        assert a.run(["true"]).ok
