"""``--infra-inconclusive``: what a test becomes whose measurement could not decide."""

from __future__ import annotations

import pytest

TESTS = """
    from pytest_infra import CheckFailed, Inconclusive

    def test_unsure(infra):
        raise Inconclusive("a to b: it cannot be told")

    def test_wrong(infra):
        raise CheckFailed("a to b: too little")

    def test_fine(infra):
        pass
"""


@pytest.mark.parametrize(
    ("arguments", "outcomes", "words"),
    [
        ((), {"failed": 2, "passed": 1}, "1 test was inconclusive, and failed (--infra-inconclusive=fail)"),
        (("--infra-inconclusive=fail",), {"failed": 2, "passed": 1}, "1 test was inconclusive, and failed *"),
        (
            ("--infra-inconclusive=skip",),
            {"failed": 1, "skipped": 1, "passed": 1},
            "1 test was inconclusive, and skip*",
        ),
        (("--infra-inconclusive=pass",), {"failed": 1, "passed": 2}, "1 test was inconclusive, and passed *"),
        (("-n1", "--infra-inconclusive=pass"), {"failed": 1, "passed": 2}, "1 test was inconclusive, and passed *"),
    ],
)
def test_what_becomes_of_it(pytester: pytest.Pytester, arguments, outcomes, words) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("--infra", "--infra-artifacts=never", *arguments)
    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines([f"infra: {words}"])


def test_by_variable_and_with_a_wrong_value(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(TESTS)
    monkeypatch.setenv("PYTEST_INFRA_INCONCLUSIVE", "skip")
    result = pytester.runpytest_subprocess("--infra", "--infra-artifacts=never", "-rs")
    result.assert_outcomes(failed=1, skipped=1, passed=1)
    result.stdout.fnmatch_lines(["SKIPPED * inconclusive: a to b: it cannot be told"])
    monkeypatch.setenv("PYTEST_INFRA_INCONCLUSIVE", "maybe")
    result = pytester.runpytest_subprocess("--infra")
    result.stderr.fnmatch_lines(["*infra_inconclusive*'maybe' is none of fail, skip, pass"])


@pytest.mark.parametrize(("choice", "stops"), [("fail", 2), ("skip", 1), ("pass", 1)])
def test_nobody_is_asked_to_look_at_one_that_is_no_failure(pytester: pytest.Pytester, choice: str, stops: int) -> None:
    """``--pdb`` and ``--infra-pause`` stop where pytest calls `pytest_exception_interact`."""
    pytester.makeconftest("def pytest_exception_interact(node): print(f'stops at {node.name}')")
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("--infra", "--infra-artifacts=never", "-s", f"--infra-inconclusive={choice}")
    assert result.stdout.str().count("stops at ") == stops
    result.stdout.fnmatch_lines(["*stops at test_wrong*"])


@pytest.mark.parametrize("choice", ["skip", "pass"])
def test_an_assertion_that_failed_before_stays_a_failure(pytester: pytest.Pytester, choice: str) -> None:
    pytester.makepyfile("""
        from pytest_infra import Inconclusive

        def test_wrong(infra):
            try:
                assert 1 == 2
            finally:
                raise Inconclusive("a to b: it cannot be told")

        def test_tried_otherwise(infra):
            try:
                raise ValueError("no such tool")
            except ValueError:
                raise Inconclusive("a to b: it cannot be told")
    """)
    result = pytester.runpytest_subprocess("--infra", "--infra-artifacts=never", f"--infra-inconclusive={choice}")
    outcomes = {"failed": 1, "skipped" if choice == "skip" else "passed": 1}
    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines(["*assert 1 == 2*", "infra: 1 test was inconclusive, *"])
