"""``--infra-kernel``: tests in guests, and ``pytest-infra kernel``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_infra.vm.kernel import KERNEL, find_kernel

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
        (["--infra-kernel=6", "-p", "no:xdist", "-p", "no:xdist.looponfail"], "needs pytest-xdist: pip install"),
    ],
)
def test_what_cannot_be_used_is_a_usage_error(pytester: pytest.Pytester, arguments: list[str], words: str) -> None:
    pytester.makepyfile(test_suite=SUITE)
    done = run(pytester, "--infra", *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert words in done.stderr
    assert not Path(pytester.path, "infra-artifacts").exists()


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
