"""A test's time limit ends a test that waits in a host for ever, and what comes after it goes on at once."""

from __future__ import annotations

import time

import pytest


@pytest.mark.parametrize("waits", ["a.call(time.sleep, 300)", 'a.run(["sleep", "300"], timeout_s=300)'])
def test_a_call_that_never_ends(pytester: pytest.Pytester, waits: str) -> None:
    pytester.makepyfile(
        f"""
        import time
        import pytest
        from pytest_infra import assert_reachable

        @pytest.fixture(scope="module")
        def office(lab_factory):
            with lab_factory("office") as lab:
                lab.link(lab.host("a"), lab.host("b"))
                yield lab

        @pytest.mark.timeout(1, method="signal")
        def test_waits(office):
            a = office.nodes["a"]
            {waits}

        def test_goes_on(office):
            assert_reachable(office.nodes["a"], office.nodes["b"])
            assert office.nodes["a"].call(int) == 0
        """
    )
    began = time.monotonic()
    result = pytester.runpytest_subprocess("--infra", timeout=100)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Timeout*", "*infra evidence*"])
    assert time.monotonic() - began < 60


def test_sigterm_ends_the_run_also_where_errors_are_caught(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, signal
        import pytest

        def test_is_told_to_end(lab, monkeypatch):
            def diagnose():
                os.kill(os.getpid(), signal.SIGTERM)
                yield from ()

            lab.host("a")
            lab.up()
            monkeypatch.setattr(lab, "diagnose", diagnose)
            assert False

        def test_is_not_run(lab):
            open("ran", "w").close()
        """
    )
    result = pytester.runpytest_subprocess("--infra", timeout=60)
    assert result.ret == 128 + 15
    assert not (pytester.path / "ran").exists()
