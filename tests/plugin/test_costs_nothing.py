"""What pytest pays for an installed plugin that it does not use; and a system that is not Linux."""

from __future__ import annotations

import sys

import pytest

HEAVY = {"pyroute2", "scapy", "docker", "testinfra", "filelock"}

SHOW_MODULES = """
    import sys

    def pytest_unconfigure():
        print("loaded:", *sorted(name for name in sys.modules if "." not in name or name.startswith("pytest_infra")))
"""


def loaded_modules(pytester: pytest.Pytester, *arguments: str) -> set[str]:
    """What a run without ``--infra`` has imported by its end."""
    result = pytester.runpytest_subprocess("-p", "no:syrupy", *arguments)
    result.assert_outcomes(skipped=1)
    (line,) = [line for line in result.stdout.lines if line.startswith("loaded:")]
    return set(line.split()[1:])


def test_without_infra_nothing_heavy_is_imported(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(SHOW_MODULES)
    pytester.makepyfile(
        test_with="import pytest\n@pytest.mark.infra\ndef test_x(lab, ovs_bridge): pass",
        test_without="import pytest\n@pytest.mark.skip\ndef test_x(): pass",
    )
    others = loaded_modules(pytester, "-p", "no:infra", "test_without.py")  # other plugins of this environment
    loaded = loaded_modules(pytester, "test_with.py")
    assert "pytest_infra.plugin" in loaded - others
    assert not (loaded - others) & HEAVY
    assert {name for name in loaded if name.startswith("pytest_infra.")} <= {
        "pytest_infra.core",
        "pytest_infra.core.emulation",
        "pytest_infra.core.errors",
        "pytest_infra.core.evidence",
        "pytest_infra.core.units",
        "pytest_infra.fixtures",
        "pytest_infra.plugin",
        "pytest_infra.plugin.evidence",
        "pytest_infra.plugin.exclusive",
        "pytest_infra.plugin.inconclusive",
        "pytest_infra.plugin.keep",
        "pytest_infra.plugin.kernels",
        "pytest_infra.plugin.options",
        "pytest_infra.plugin.ownership",
        "pytest_infra.plugin.pause",
        "pytest_infra.plugin.signals",
        "pytest_infra.plugin.skips",
        "pytest_infra.plugin.spelling",
        "pytest_infra.plugin.teardown",
        "pytest_infra.version",
    }


def test_on_another_system_the_plugin_loads_and_everything_is_unavailable(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        import pytest

        def test_lab(lab): raise AssertionError
        def test_bridge(ovs_bridge): raise AssertionError
        @pytest.mark.infra_requires("ovs")
        def test_marked(): raise AssertionError
        def test_plain(): pass
        """
    )
    pytester.path.joinpath("elsewhere.py").write_text("import sys\nsys.platform = 'darwin'\n")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins may look for files of that system
    arguments = ("-p", "elsewhere", "-p", "pytest_infra.plugin")
    code = "import sys; sys.path.insert(0, '.'); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    result = pytester.run(sys.executable, "-c", code, "--infra", *arguments)
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(
        [
            "infra: nothing is available: this is darwin, not Linux",
            "infra: 3 tests skipped: linux (this is darwin, not Linux; run it on a Linux machine, *)",
        ]
    )
    pytester.run(sys.executable, "-c", code, *arguments).assert_outcomes(passed=1, skipped=3)
    required = pytester.run(sys.executable, "-c", code, "--infra", "--infra-require=ovs", *arguments)
    assert required.ret == pytest.ExitCode.USAGE_ERROR
