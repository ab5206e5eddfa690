"""When a test is run, skipped, or an error; and what is said of it."""

from __future__ import annotations

import pytest

LAB_TESTS = """
    import pytest

    def test_plain():
        pass

    def test_lab(lab):
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b)
        assert "eth0" in a.interfaces

    def test_netns(netns):
        assert list(netns.interfaces) == ["lo"]

    @pytest.mark.infra
    def test_marked():
        pass
"""

LACKING = """
    import pytest
    from pytest_infra.core.errors import Unavailable

    LACK = Unavailable("netem", "kernel lacks CONFIG_NET_SCH_NETEM", "use a stock kernel")

    @pytest.fixture
    def impaired(infra):
        raise LACK

    def test_in_fixture(impaired):
        raise AssertionError("never reached")

    def test_in_body(infra):
        raise LACK

    @pytest.mark.xfail(strict=True, reason="a lack is no failure")
    def test_expected_to_fail(infra):
        raise LACK

    def test_other(infra):
        raise Unavailable("docker", "no engine answers")

    def test_fine(infra):
        pass
"""


def test_without_infra_what_uses_the_plugin_is_skipped(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LAB_TESTS)
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(
        [
            "infra: 3 tests skipped: opt-in (--infra is not given; pytest --infra)",
            "SKIPPED [[]1] test_without_*.py:*: opt-in (--infra is not given; pytest --infra)",
        ]
    )
    assert "infra: root" not in result.stdout.str()


def test_with_infra_they_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LAB_TESTS)
    result = pytester.runpytest_subprocess("--infra")
    result.assert_outcomes(passed=4)
    assert "skipped" not in result.stdout.str()


def test_a_fixture_of_the_same_name_that_is_the_users_own_is_none_of_ours(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def infra():
            return "mine"

        @pytest.fixture
        def lab(infra):
            return infra + " too"

        def test_mine(lab):
            assert lab == "mine too"
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_users_extension_of_our_fixture_is_ours(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def infra(infra):
            return infra
        """
    )
    pytester.makepyfile("def test_extended(infra): pass")
    pytester.runpytest_subprocess().assert_outcomes(skipped=1)


def test_asked_for_in_the_test_body(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_late(request): assert request.getfixturevalue('lab').name == 'test_late'")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["infra: 1 test skipped: opt-in (--infra is not given; pytest --infra)"])
    pytester.runpytest_subprocess("--infra").assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", [(), ("-n2",), ("-n2", "--dist=loadscope"), ("-n2", "--dist=worksteal")])
def test_a_lack_is_a_skip_with_one_line_for_each(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    pytester.makepyfile(LACKING)
    result = pytester.runpytest_subprocess("--infra", *workers)
    result.assert_outcomes(passed=1, skipped=4)
    lines = [line for line in result.stdout.lines if line.startswith("infra: ") and "skipped" in line]
    assert sorted(lines) == [
        "infra: 1 test skipped: docker (no engine answers)",
        "infra: 3 tests skipped: netem (kernel lacks CONFIG_NET_SCH_NETEM; use a stock kernel)",
    ]


def test_require_all_makes_every_lack_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LACKING)
    result = pytester.runpytest_subprocess("--infra", "--infra-require=all", "--runxfail")
    result.assert_outcomes(passed=1, failed=3, errors=1)
    result.stdout.fnmatch_lines(["*Unavailable: docker (no engine answers)"])


def test_a_lack_in_teardown_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from pytest_infra.core.errors import Unavailable

        @pytest.fixture
        def late():
            yield
            raise Unavailable("x", "too late")

        def test_late(late):
            pass
        """
    )
    pytester.runpytest_subprocess("--infra").assert_outcomes(passed=1, errors=1)


def test_require_fails_at_the_start(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from pytest_infra.core.requirement import Command
        from pytest_infra.core.resource import Resource

        class Moon(Resource):
            requires = (Command("moon", program="no-such-program", packages={"apt": "moon-tools"}),)
        """
    )
    pytester.makepyfile("def test_never_run(): raise AssertionError")
    result = pytester.runpytest_subprocess("--infra", "--infra-require=moon,linux")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: --infra-require: this machine lacks moon (no-such-program is not installed; "
            "pytest-infra doctor --install, or: apt-get install moon-tools)"
        ]
    )
    assert pytester.runpytest_subprocess("--infra", "--infra-require=linux").ret == pytest.ExitCode.TESTS_FAILED


def test_require_of_an_unknown_name_lists_what_there_is(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--infra", "--infra-require=linux,nonsense")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --infra-require: no capability 'nonsense'; there are all, linux, privilege,*"])


def test_require_without_infra_is_an_error(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--infra-require=all")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --infra-require needs --infra*"])


def test_marker_requires(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from pytest_infra.core.requirement import Command
        from pytest_infra.core.resource import Resource

        class Moon(Resource):
            requires = (Command("moon", program="no-such-program"),)
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.infra_requires("linux", "moon")
        def test_on_the_moon():
            raise AssertionError

        @pytest.mark.infra_requires("linux")
        def test_here():
            pass
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(skipped=2)
    result = pytester.runpytest_subprocess("--infra")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["infra: 1 test skipped: moon (no-such-program is not installed;*"])


def test_marker_with_an_unknown_name_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.infra_requires("nonsense")
        def test_x():
            pass
        """
    )
    result = pytester.runpytest_subprocess("--infra")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: *::test_x: infra_requires: no capability 'nonsense'; there are linux, privilege*"]
    )


@pytest.mark.parametrize(
    ("variables", "ini", "arguments", "ran"),
    [
        ({}, "", [], False),
        ({"PYTEST_INFRA": "1"}, "", [], True),
        ({"PYTEST_INFRA": "0"}, "infra = true", [], False),
        ({}, "infra = true", [], True),
        ({"PYTEST_INFRA": "0"}, "", ["--infra"], True),
    ],
)
def test_command_line_then_environment_then_ini(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    ini: str,
    arguments: list[str],
    ran: bool,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.makepyfile("def test_x(infra): pass")
    outcome = {"passed": 1} if ran else {"skipped": 1}
    pytester.runpytest_subprocess(*arguments).assert_outcomes(**outcome)


def test_require_from_the_environment_counts_only_with_infra(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_INFRA_REQUIRE", "nonsense")
    pytester.makepyfile("def test_x(): pass")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    assert pytester.runpytest_subprocess("--infra").ret == pytest.ExitCode.USAGE_ERROR


def test_header_says_privilege_and_kernel(pytester: pytest.Pytester) -> None:
    import os

    result = pytester.runpytest_subprocess("--infra", "--co")
    privilege = "root" if os.geteuid() == 0 else "user namespace"
    result.stdout.fnmatch_lines([f"infra: {privilege}, kernel {os.uname().release}*"])
    result = pytester.runpytest_subprocess("--infra", "--co", "-n2")
    assert sum(line.startswith("infra: ") for line in result.stdout.lines) == 1


def test_markers_and_options_are_documented(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--markers")
    result.stdout.fnmatch_lines(
        ["@pytest.mark.infra: *", "@pytest.mark.infra_requires(*", "@pytest.mark.infra_exclusive(*"]
    )
    result = pytester.runpytest_subprocess("--help")
    result.stdout.fnmatch_lines(["*--infra *", "*--infra-require=*", "*--infra-pause*", "*--infra-doctor*"])


def test_doctor_option_prints_the_table_and_ends(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("raise AssertionError('never collected')")
    result = pytester.runpytest_subprocess("--infra-doctor")
    assert result.ret in (0, 1)
    result.stdout.fnmatch_lines(["linux *present*", "privilege *present*"])


def test_pause_needs_a_terminal_and_no_workers(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--infra", "--infra-pause", "-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --infra-pause cannot be used with -n: the workers have no terminal"])
    result = pytester.run(*pytester._getpytestargs(), "--infra", "--infra-pause", stdin=b"")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --infra-pause needs a terminal to wait at, and standard input is none"])


EXCLUSIVE = """
    import os, pathlib, pytest

    @pytest.mark.infra_exclusive("pytest-infra-own-test")
    @pytest.mark.parametrize("number", range(6))
    def test_alone(number):
        with open(pathlib.Path(__file__).with_name("held"), "x"):
            pass
        for _ in range(20000):
            pass
        pathlib.Path(__file__).with_name("held").unlink()
"""


@pytest.mark.parametrize("how", ["load", "loadscope", "worksteal"])
def test_exclusive_tests_never_run_side_by_side(pytester: pytest.Pytester, how: str) -> None:
    pytester.makepyfile(EXCLUSIVE)
    pytester.runpytest_subprocess("--infra", "-n3", f"--dist={how}").assert_outcomes(passed=6)


def test_exclusive_with_bad_arguments_is_an_error_of_that_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.infra_exclusive("gpu", count=2, of=1)
        def test_two_of_one():
            pass

        @pytest.mark.infra_exclusive("gpu", cuont=2)
        def test_typing_error():
            pass

        @pytest.mark.infra_exclusive("pytest-infra-own-test-2")
        def test_fine():
            pass
        """
    )
    result = pytester.runpytest_subprocess("--infra")
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines(["infra_exclusive: the marker got an unexpected keyword argument 'cuont'"])
    result.stdout.fnmatch_lines(["*BadInput: cannot hold 2 of 1 gpu: from 1 to 1 can be asked for"])


def test_skips_keep_junit_and_last_failed_working(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LACKING + "\n    def test_bad(infra): raise AssertionError\n")
    result = pytester.runpytest_subprocess("--infra", "--junitxml=out.xml")
    result.assert_outcomes(passed=1, skipped=4, failed=1)
    xml = (pytester.path / "out.xml").read_text()
    assert 'failures="1" skipped="4" tests="6"' in xml
    assert "netem (kernel lacks CONFIG_NET_SCH_NETEM; use a stock kernel)" in xml
    pytester.runpytest_subprocess("--infra", "--lf").assert_outcomes(failed=1)


def test_exclusive_of_class_and_test_is_one_lock(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.infra_exclusive("pytest-infra-own-test-3", timeout_s=600)
        class TestBoth:
            @pytest.mark.infra_exclusive("pytest-infra-own-test-3", timeout_s=0.1)
            @pytest.mark.infra_exclusive(name="pytest-infra-own-test-4", timeout_s=0.1)
            def test_once(self):
                pass
        """
    )
    pytester.runpytest_subprocess("--infra").assert_outcomes(passed=1)


UNITTEST_AND_XFAIL = """
    import unittest
    import pytest
    from pytest_infra import Unavailable

    class TestCase(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def _use(self, infra):
            pass

        def test_lacks(self):
            raise Unavailable("netem", "kernel lacks CONFIG_NET_SCH_NETEM", "use a stock kernel")

    @pytest.mark.xfail(reason="known")
    def test_lacks_too(infra):
        raise Unavailable("netem", "kernel lacks CONFIG_NET_SCH_NETEM", "use a stock kernel")
"""


def test_a_lack_is_a_skip_in_unittest_and_under_xfail_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(UNITTEST_AND_XFAIL)
    result = pytester.runpytest_subprocess("--infra")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["infra: 2 tests skipped: netem (kernel lacks CONFIG_NET_SCH_NETEM; use a stock*"])


def test_xfail_does_not_excuse_what_was_required(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(UNITTEST_AND_XFAIL)
    pytester.runpytest_subprocess("--infra", "--infra-require=all").assert_outcomes(failed=2)


BAD_USE = """
    from pytest_infra.core.wait import until

    def helper(lab):
        return lab.host("much-too-long-a-name")

    def test_command(lab):
        lab.host("a").run(["no-such-program"])

    def test_in_helper(lab):
        helper(lab)

    def test_called_back(lab):
        until(lambda: helper(lab), within_s=1, what="a host")
"""


def test_a_traceback_ends_at_the_users_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_bad=BAD_USE)
    result = pytester.runpytest_subprocess("--infra")
    result.assert_outcomes(failed=3)
    ends = [line for line in result.stdout.lines if line.endswith((": BadInput", ": CommandFailed"))]
    assert ends == ["test_bad.py:7: CommandFailed", "test_bad.py:4: BadInput", "test_bad.py:4: BadInput"]
    result.stdout.no_fnmatch_line("*direct cause*")


def test_the_full_trace_has_all_lines(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BAD_USE)
    result = pytester.runpytest_subprocess("--infra", "--full-trace", "-k", "test_in_helper")
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(["*naming.py:*: BadInput"])


def test_a_lack_does_not_hide_a_failure(pytester: pytest.Pytester) -> None:
    """An assertion that has failed before, or a check, is what the test says, and no skip."""
    pytester.makepyfile(
        """
        from pytest_infra import CheckFailed, Unavailable

        def test_assertion(infra):
            try:
                assert 1 == 2
            finally:
                raise Unavailable("netem", "the kernel has none")

        def test_check(infra):
            try:
                raise CheckFailed("a cannot reach b")
            except CheckFailed:
                try:
                    raise KeyError("x")
                except KeyError:
                    raise Unavailable("netem", "the kernel has none") from None

        def test_another_error(infra):
            try:
                raise KeyError("x")
            except KeyError as error:
                raise Unavailable("netem", "the kernel has none") from error
        """
    )
    result = pytester.runpytest_subprocess("--infra", "--infra-artifacts=never")
    result.assert_outcomes(failed=2, skipped=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*", "infra: 1 test skipped: netem (the kernel has none*"])


def test_infra_requires_without_names_is_a_mistake(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.infra_requires\ndef test_x(): pass")
    result = pytester.runpytest_subprocess("--infra")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *::test_x: infra_requires needs the names of capabilities, such as 'ovs'"])
