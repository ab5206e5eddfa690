"""``--infra-kernel``: tests in guests, and ``pytest-infra kernel``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from pytest_infra.core.wait import until
from pytest_infra.vm.kernel import KERNEL, Kernel, find_kernel
from pytest_infra.vm.package import available, fetch

CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")

SUITE = """
    import os
    import platform
    import pytest

    @pytest.mark.infra
    def test_it_runs_there():
        assert platform.release() == os.environ["PYTEST_INFRA_GUEST"]

    @pytest.mark.parametrize("kind", ["vrf"])
    def test_the_kernel_loads_what_it_has(lab, kind):
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b)
        a.run(["ip", "link", "add", "x0", "type", kind, "table", "10"])
        assert b.name == "nobody"
"""


@pytest.fixture(autouse=True)
def _real_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)


def run(pytester: pytest.Pytester, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(argv, cwd=pytester.path, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.timeout(900)
def test_results_evidence_and_reports_come_as_from_anywhere(pytester: pytest.Pytester) -> None:
    KERNEL.demand()
    pytester.makepyfile(test_suite=SUITE)
    done = run(pytester, "--infra", f"--infra-kernel={find_kernel().name}", "--junit-xml=junit.xml", "-v")
    name = find_kernel().name
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"the tests run in guests with the kernel {name}" in done.stdout
    assert f"PASSED test_suite.py::test_it_runs_there[{name}]" in done.stdout
    assert f"FAILED test_suite.py::test_the_kernel_loads_what_it_has[vrf-{name}]" in done.stdout
    cases = [case.get("name") for case in ElementTree.parse(pytester.path / "junit.xml").iter("testcase")]
    assert sorted(map(str, cases)) == [f"test_it_runs_there[{name}]", f"test_the_kernel_loads_what_it_has[vrf-{name}]"]
    (folder,) = Path(pytester.path, "infra-artifacts").iterdir()
    assert (folder / "call" / "reproduce.md").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--infra-kernel=6.99"], "no kernel '6.99' is here"),
        (["--infra-kernel=/etc/hostname"], "is no Linux kernel"),
        (["--infra-kernel=6", "--pdb"], "cannot be used with --pdb"),
        (["--infra-kernel=6", "-p", "no:xdist", "-p", "no:xdist.looponfail"], "needs pytest-xdist: pip install"),
    ],
)
def test_what_cannot_be_used_is_a_usage_error(pytester: pytest.Pytester, arguments: list[str], words: str) -> None:
    pytester.makepyfile(test_suite=SUITE)
    done = run(pytester, "--infra", *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert words in done.stderr
    assert not Path(pytester.path, "infra-artifacts").exists()


def test_two_kernels_of_one_name_cannot_be_told_apart(pytester: pytest.Pytester) -> None:
    KERNEL.demand()
    kernel = find_kernel()
    for folder, place in (("one", os.symlink), ("two", shutil.copy)):
        (pytester.path / folder / "boot").mkdir(parents=True)
        place(kernel.image, pytester.path / folder / "boot" / f"vmlinuz-{kernel.name}")
        (pytester.path / folder / "lib").mkdir()
        os.symlink(os.path.dirname(kernel.modules_folder), pytester.path / folder / "lib" / "modules")
    pytester.makepyfile(test_suite="def test_it(): pass")
    done = run(pytester, "--infra", f"--infra-kernel={kernel.name}", "--infra-kernel=./two")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert f"are both {kernel.name}: results would not tell which" in done.stderr
    same = run(pytester, "--infra", f"--infra-kernel={kernel.name}", "--infra-kernel=./one", "--collect-only")
    assert same.returncode == 0, same.stderr


def test_the_commands_about_kernels(pytester: pytest.Pytester) -> None:
    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "pytest_infra", "kernel", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)

    KERNEL.demand()
    assert f"{find_kernel().name}  here  " in ask("list").stdout
    assert ask("run", "6.99", "--", "true").stderr.startswith("pytest-infra: no kernel '6.99' is here")
    unknown = ask("fetch", "no-such-kernel")
    assert unknown.returncode == 2
    assert "no package linux-image-no-such-kernel in the package lists" in unknown.stderr or "apt" in unknown.stderr


# -- one run, two kernels; -n, -x, --dist, JUnit, coverage -------------------------------------------------------------


@pytest.fixture
def second_kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Another kernel of the distribution, outside the folder in which the newest one is everybody's default."""
    KERNEL.demand()
    first = find_kernel().name
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(CACHE, "pytest-infra", "second"))
    usable = [name for name in available() if name != first and not re.search("cloud|rt", name)]
    return fetch(usable[-1])


@pytest.mark.guests
@pytest.mark.timeout(1800)
def test_two_kernels_in_one_run(
    pytester: pytest.Pytester, second_kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)
    names = [find_kernel().name, second_kernel.name]
    pytester.makepyfile(
        test_suite=f"""
        import os, platform, pytest
        pytestmark = pytest.mark.infra

        def test_release():
            assert platform.release() == os.environ["PYTEST_INFRA_GUEST"]

        def test_fails_on_one():
            assert platform.release() != {names[1]!r}
        """
    )
    reports = ["--junit-xml=junit.xml", "--cov=test_suite", "--cov-report=xml", "-v"]
    done = run(pytester, "--infra", f"--infra-kernel={names[0]}", f"--infra-kernel={second_kernel.image}", *reports)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert f"the tests run in guests with the kernel {names[0]}, {names[1]}" in done.stdout
    failed = {
        str(case.get("name")): case.find("failure") is not None
        for case in ElementTree.parse(pytester.path / "junit.xml").iter("testcase")
    }
    assert failed == {
        f"test_release[{names[0]}]": False,
        f"test_release[{names[1]}]": False,
        f"test_fails_on_one[{names[0]}]": False,
        f"test_fails_on_one[{names[1]}]": True,
    }
    assert all(f"the guests with the kernel {name} ran " in done.stdout for name in names)
    (module,) = ElementTree.parse(pytester.path / "coverage.xml").iter("class")
    assert module.get("filename") == "test_suite.py"
    assert module.get("line-rate") == "1"


@pytest.mark.guests
@pytest.mark.timeout(900)
def test_several_guests_share_the_files_of_a_suite(pytester: pytest.Pytester) -> None:
    KERNEL.demand()
    text = """
        import os, pytest
        pytestmark = pytest.mark.infra

        @pytest.mark.parametrize("number", range(3))
        def test_it(number, record_property):
            with open("/workers-of-this-guest", "a+") as file:  # in the guest's layer in memory
                file.write(os.environ["PYTEST_XDIST_WORKER"] + " ")
                file.seek(0)
                record_property("workers", " ".join(sorted(set(file.read().split()))))
        """
    pytester.makepyfile(test_one=text, test_two=text)
    kernel = find_kernel().name
    done = run(pytester, "--infra", f"--infra-kernel={kernel}", "-n2", "--dist=loadfile", "--junit-xml=junit.xml")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, set[str]] = {}
    for case in ElementTree.parse(pytester.path / "junit.xml").iter("testcase"):
        (workers,) = [str(item.get("value")) for item in case.iter("property") if item.get("name") == "workers"]
        found.setdefault(str(case.get("classname")), set()).add(workers)
    assert sorted(map(sorted, found.values())) == [["gw0"], ["gw1"]], done.stdout


@pytest.mark.guests
@pytest.mark.timeout(900)
def test_the_first_failure_ends_the_run(pytester: pytest.Pytester) -> None:
    KERNEL.demand()
    pytester.makepyfile(
        """
        import pytest
        pytestmark = pytest.mark.infra

        @pytest.mark.parametrize("number", range(200))
        def test_it(number):
            assert number != 1
        """
    )
    done = run(pytester, "--infra", f"--infra-kernel={find_kernel().name}", "-x")
    assert "stopping after 1 failures" in done.stdout, done.stdout + done.stderr
    outcomes = re.search(r"1 failed(?:, (\d+) passed)?", done.stdout)
    assert outcomes
    assert int(outcomes[1] or 0) < 100


# -- guests that go away -----------------------------------------------------------------------------------------------


@pytest.mark.guests
@pytest.mark.timeout(900)
def test_a_kernel_that_panics_under_a_test_is_that_tests_failure(pytester: pytest.Pytester) -> None:
    KERNEL.demand()
    pytester.makepyfile(
        """
        import pytest
        pytestmark = pytest.mark.infra

        def test_before():
            pass

        def test_panics():
            with open("/proc/sysrq-trigger", "w") as file:
                file.write("c")

        def test_after():
            pass
        """
    )
    done = run(pytester, "--infra", f"--infra-kernel={find_kernel().name}")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "1 failed, 2 passed" in done.stdout
    crash = r"worker 'gw0' crashed while running '\S+::test_panics\[.*\]'\nthe guest \S+ does not answer any more: "
    assert re.search(crash + "its kernel panicked: sysrq triggered crash", done.stdout), done.stdout


WAITS = """
    import os, time, pytest
    pytestmark = pytest.mark.infra

    @pytest.mark.parametrize("number", range(2))
    def test_waits(number):
        open(f"infra-artifacts/waits-{number}", "w").close()  # the folder that a guest shares with the machine
        time.sleep(600)
"""


@pytest.mark.guests
@pytest.mark.timeout(900)
def test_qemu_that_is_killed_is_told_and_pytest_that_is_killed_leaves_nothing(pytester: pytest.Pytester) -> None:
    KERNEL.demand()
    pytester.makepyfile(test_suite=WAITS)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--infra", f"--infra-kernel={find_kernel().name}"]
    with open(pytester.path / "output", "w") as output:
        suite = psutil.Popen(argv, cwd=pytester.path, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def said() -> str:
        return (pytester.path / "output").read_text()

    try:
        folder = pytester.path / "infra-artifacts"
        until((folder / "waits-0").exists, within_s=400, what="the first test runs", last_words=said)
        (qemu,) = [process for process in suite.children(recursive=True) if "qemu" in process.name()]
        qemu.kill()
        until((folder / "waits-1").exists, within_s=400, what="the second test runs", last_words=said)
        assert "QEMU has ended, killed by signal 9" in said()
        started = [suite, *suite.children(recursive=True)]
        assert any("qemu" in process.name() for process in started)
    finally:
        suite.kill()
        suite.wait()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive


def test_a_guest_that_does_not_come_up_is_one_error(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KERNEL.demand()
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'no machine today' >&2\nexit 1\n")
    program.chmod(0o755)
    (tmp_path / "cache" / "pytest-infra").mkdir(parents=True)
    (tmp_path / "cache" / "pytest-infra" / "kernels").symlink_to(os.path.join(CACHE, "pytest-infra", "kernels"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    pytester.makepyfile(test_suite=SUITE)
    done = run(pytester, "--infra", f"--infra-kernel={find_kernel().name}")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "ERROR: --infra-kernel: QEMU could not be started: no machine today" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
