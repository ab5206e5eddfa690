"""The command ``pytest-infra``, and the pause after a failure."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_infra.version import __version__

HELPER = """
    import os, subprocess, sys

    def command(*arguments, **options):
        argv = [sys.executable, "-m", "pytest_infra", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, **options)
"""


def run_inside(pytester: pytest.Pytester, suite: str) -> None:
    """Run a suite that calls the command while its lab is up."""
    pytester.makepyfile(helper=HELPER)
    pytester.makepyfile(suite)
    result = pytester.runpytest_subprocess("--infra", "-p", "no:cacheprovider", "--import-mode=prepend")
    assert result.ret == 0


def test_list_and_shell(pytester: pytest.Pytester) -> None:
    run_inside(
        pytester,
        """
        import os
        from helper import command

        def test_demo(lab):
            a, switch = lab.host("a"), lab.bridge("sw1")
            lab.link(a, switch)
            lab.up()
            listed = command("list").stdout
            assert f"session {os.getpid()}, up for " in listed
            assert "  lab test_demo: a, sw1\\n" in listed
            inside = command("shell", "test_demo", "a", "--", "cat", "/proc/net/dev").stdout
            assert [line.split(":")[0].strip() for line in inside.splitlines()[2:]] == ["lo", "eth0"]
            inside = command("shell", "test_demo", "sw1", "--", "cat", "/proc/net/dev").stdout
            assert "sw1-p1" in inside
            assert command("shell", "test_demo", "a", "--", "sh", "-c", "exit 7").returncode == 7

        def test_a_large_lab_is_one_short_line(lab):
            for _ in range(25):
                lab.host()
            lab.up()
            names = ", ".join(f"h{number}" for number in range(1, 21))
            assert f"  lab {lab.name}: {names} … (25 in all)\\n" in command("list").stdout

        def test_inside_is_what_commands_of_the_node_see(lab):
            a = lab.host("a")
            marker = a.spawn(["sleep", "1234"])
            assert command("shell", lab.name, "a", "--", "pwd").stdout == os.getcwd() + "\\n"
            found = command("shell", lab.name, "a", "--", "cat", *(f"/proc/{number}/cmdline" for number in range(2, 6)))
            assert "sleep\\x001234" in found.stdout, found

        def test_isolated(lab):
            kinds = ("uts", "ipc", "mount", "pid", "user", "cgroup", "time")
            a = lab.host("a", isolate=kinds)
            names = "cgroup ipc mnt net pid time user uts"
            look = ["sh", "-c", f"for name in {names}; do readlink /proc/self/ns/$name; done"]
            wanted = a.run(look, cwd="/").stdout
            found = command("shell", lab.name, "a", "--", *look)
            assert found.stdout == wanted, found
            assert len(wanted.split()) == 8

        def test_several_labs(lab_factory, lab):
            with lab_factory("other") as other:
                other.host("b")
                other.up()
                assert "  lab other: b\\n" in command("list").stdout
            assert "lab other" not in command("list").stdout
        """,
    )


def test_shell_says_what_there_is(pytester: pytest.Pytester) -> None:
    run_inside(
        pytester,
        """
        from helper import command

        def test_demo(lab):
            lab.host("a")
            lab.up()
            wrong = command("shell", lab.name, "b")
            assert wrong.returncode == 2
            assert wrong.stderr == "pytest-infra: no node 'b' in the lab test_demo; there are a\\n"
            wrong = command("shell", "no-such-lab", "b")
            assert wrong.returncode == 2
            assert "pytest-infra: no lab 'no-such-lab' is up; there are " in wrong.stderr
            assert "test_demo" in wrong.stderr
            wrong = command("shell", lab.name, "a", "--", "no-such-program")
            assert (wrong.returncode, wrong.stderr) == (2, "pytest-infra: no program 'no-such-program' there\\n")
        """,
    )


def test_an_interactive_shells_prompt_names_the_node(pytester: pytest.Pytester) -> None:
    run_inside(
        pytester,
        """
        import os, subprocess, sys
        import pytest

        @pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
        def test_demo(lab, shell):
            lab.host("alice")
            lab.up()
            mine, theirs = os.openpty()
            argv = [sys.executable, "-m", "pytest_infra", "shell", lab.name, "alice"]
            env = {**os.environ, "SHELL": shell, "TERM": "dumb"}
            ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
            with subprocess.Popen(argv, **ends, env=env, start_new_session=True) as process:
                os.close(theirs)
                seen = b""
                while b"[alice] " not in seen:
                    seen += os.read(mine, 1000)
                os.write(mine, b"exit 5\\n")
                assert process.wait(10) == 5
            os.close(mine)
        """,
    )


def test_version_and_usage(pytester: pytest.Pytester) -> None:
    done = pytester.run(sys.executable, "-m", "pytest_infra", "version")
    assert done.outlines == [f"pytest-infra {__version__}"]
    assert pytester.run(sys.executable, "-m", "pytest_infra").ret == 2
    script = Path(sys.executable).with_name("pytest-infra")
    assert pytester.run(script, "version").outlines == [f"pytest-infra {__version__}"]


def test_clean_removes_what_a_dead_session_left(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        import os, signal, sys
        import psutil
        from pytest_infra.core.lease import Lease
        lease = Lease().start()
        lease.add("directory", path=os.path.abspath("left"))
        os.mkdir("left")
        for child in psutil.Process().children():
            child.kill()
        print(lease.folder, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    # a temporary folder of the test's own, and no privilege that leads to /run
    monkeypatch.setenv("TMPDIR", str(pytester.path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(pytester.path))
    user = ["unshare", "--user", "--map-root-user"]
    script = pytester.makepyfile(dies=code)
    (folder,) = pytester.run(*user, sys.executable, script).outlines
    assert folder.startswith(str(pytester.path))
    assert (pytester.path / "left").is_dir()
    listed = pytester.run(*user, sys.executable, "-m", "pytest_infra", "list")
    listed.stdout.fnmatch_lines(["session *, dead; pytest-infra clean removes what it left: *"])
    done = pytester.run(*user, sys.executable, "-m", "pytest_infra", "clean")
    assert done.ret == 0
    done.stdout.fnmatch_lines([f"cleared {folder}", "  undone: directory {'path': '*left'}"])
    assert not (pytester.path / "left").exists()
    assert not Path(folder).exists()
    assert pytester.run(*user, sys.executable, "-m", "pytest_infra", "clean").outlines == []


def test_a_worker_of_xdist_is_listed_with_what_was_started(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        import os, subprocess, sys

        def test_listed(lab):
            lab.host("a")
            lab.up()
            done = subprocess.run([sys.executable, "-m", "pytest_infra", "list"], capture_output=True, text=True)
            (line,) = [line for line in done.stdout.splitlines() if f"session {os.getpid()}," in line]
            assert "--infra -n1" in line, line
            assert line.endswith("(worker gw0)"), line
        """
    )
    pytester.runpytest_subprocess("--infra", "-n1").assert_outcomes(passed=1)


def test_pause_waits_with_the_lab_up(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_fails(lab):
            a, b = lab.host("a"), lab.host("b")
            lab.link(a, b)
            lab.up()
            raise AssertionError("wanted")
        """
    )
    mine, theirs = os.openpty()
    argv = [sys.executable, "-m", "pytest", "--infra", "--infra-pause", "-p", "no:cacheprovider"]
    with subprocess.Popen(argv, stdin=theirs, stdout=subprocess.PIPE, text=True, cwd=pytester.path) as process:
        assert process.stdout is not None
        seen = ""
        while "Enter goes on" not in seen:
            character = process.stdout.read(1)
            assert character, seen
            seen += character
        assert "AssertionError: wanted" in seen
        commands = re.findall(r"^  (pytest-infra shell .*)$", seen, re.MULTILINE)
        assert commands == ["pytest-infra shell test_fails a", "pytest-infra shell test_fails b"]
        inside = [sys.executable, "-m", "pytest_infra", *shlex.split(commands[0])[1:], "--", "cat", "/proc/net/dev"]
        assert "eth0" in subprocess.run(inside, capture_output=True, text=True, check=True).stdout
        os.write(mine, b"\n")
        rest = process.stdout.read()
        assert process.wait(20) == pytest.ExitCode.TESTS_FAILED
    os.close(mine)
    os.close(theirs)
    assert "1 failed" in rest


def test_a_command_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    from pytest_infra.cli import main

    assert main(["doctr"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pytest-infra: no command 'doctr'; did you mean 'doctor'? There are doctor, init, list, ")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("pytest-infra 0.")
