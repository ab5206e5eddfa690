"""A suite of labs runs with the plugins that its users have as well, all at once; `./try zoo` installs them."""

from __future__ import annotations

import pytest

SUITE = """
import asyncio
import pytest
from pytest_infra import assert_reachable

@pytest.fixture
def pair(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    return a, b

def test_pass(pair):
    assert_reachable(*pair)

@pytest.mark.asyncio
async def test_in_an_event_loop(pair):
    assert_reachable(*pair)

@pytest.mark.asyncio
async def test_beside_an_event_loop(pair):
    await asyncio.to_thread(assert_reachable, *pair)

@pytest.mark.repeat(3)
def test_three_times(pair):
    assert_reachable(*pair)

@pytest.mark.flaky(reruns=2)
def test_the_second_time(pair, pytestconfig):
    mark = pytestconfig.rootpath / "seen"
    if not mark.exists():
        mark.touch()
        pair[0].ports[0].link.down()
    assert_reachable(*pair)

def test_testinfra(pair, infra_host):
    assert infra_host(pair[0]).interface("eth0").exists

def test_fail(pair):
    pair[0].ports[0].link.down()
    assert_reachable(*pair)

@pytest.mark.timeout(3)
def test_hangs(pair):
    pair[0].run(["sleep", "60"])
"""
NEIGHBOURS = (
    "ansible",
    "asyncio",
    "cov",
    "html",
    "hypothesis",
    "randomly",
    "repeat",
    "rerunfailures",
    "timeout",
    "xdist",
)
# These two refuse each other: both have an option --ansible-inventory. `infra_host` needs testinfra's library only.
EITHER = {"testinfra": "no:pytest-ansible", "ansible": "no:pytest11.testinfra"}


@pytest.mark.parametrize(("either", "workers"), [("ansible", "-n0"), ("testinfra", "-n2")])
def test_a_suite_with_all_of_them(pytester: pytest.Pytester, either: str, workers: str) -> None:
    pytester.makepyfile(test_suite=SUITE)
    reports = ("--html=theirs.html", "--self-contained-html", "--infra-report=ours.html", "--junitxml=junit.xml")
    options = ("--infra", "--infra-require=all", "-p", EITHER[either], "--cov=.", "--cov-report=term", *reports)
    result = pytester.runpytest_subprocess(*options, workers)
    outcomes = result.parseoutcomes()
    assert outcomes.pop("rerun") == 1
    assert outcomes == {"passed": 8, "failed": 2}
    text = result.stdout.str()
    names = set(NEIGHBOURS) - {"ansible", "testinfra"} | {either}
    (plugins,) = [line for line in result.outlines if line.startswith("plugins: ")]
    assert not [name for name in names if f"{name}-" not in plugins]
    assert "Using --randomly-seed=" in text
    assert "cause      a:eth0 is down" in text
    assert "Failed: Timeout (>3.0s) from pytest-timeout" in text
    assert "TOTAL" in text
    assert "a cannot reach b" in (pytester.path / "theirs.html").read_text(encoding="utf-8")
    assert "a cannot reach b" in (pytester.path / "ours.html").read_text(encoding="utf-8")
    evidence = {path.name.split(".")[1] for path in (pytester.path / "infra-artifacts").iterdir()}
    assert {"py-test_fail", "py-test_hangs"} <= evidence
