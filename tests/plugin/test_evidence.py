"""What is kept of a failed test: in every phase, while its lab is still up, on one process and on several."""

from __future__ import annotations

import html
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

LAB = """
    import pytest
    from pytest_infra import assert_reachable

    @pytest.fixture
    def two(lab):
        a, b, sw = lab.host("a"), lab.host("b"), lab.bridge("sw1")
        lab.link(a, sw, ip="10.0.0.1/24")
        lab.link(b, sw, ip="10.0.0.2/24")
        return lab
"""

CUT = (
    LAB
    + """
    def test_cut(two):
        two.node("b").spawn(["sh", "-c", "echo the daemon says no >&2; exit 4"]).wait()
        two.node("a").run(["true"])
        two.capture(two.node("a").ports[0])
        two.links[1].down()
        assert_reachable(two.node("a"), two.node("b"))
"""
)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def evidence(pytester: pytest.Pytester) -> set[str]:
    folder = pytester.path / "infra-artifacts"
    return {path.relative_to(folder).as_posix() for path in folder.glob("*/*")} if folder.exists() else set()


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_a_failed_check_names_the_folder_that_has_everything(pytester: pytest.Pytester, workers: tuple[str]) -> None:
    path = pytester.makepyfile(CUT)
    result = pytester.runpytest_subprocess("--infra", *workers)
    result.assert_outcomes(failed=1)
    folder = f"infra-artifacts/{path.name}-test_cut/call"
    result.stdout.fnmatch_lines(
        [
            "E*pytest_infra.CheckFailed: a cannot reach b*",
            f"E  *evidence   {folder}",
            "*- infra evidence -*",
            "lab test_cut: 2 nodes, 1 switches, 2 links",
            "  link      b:eth0 -- sw1:sw1-p2: b:eth0 NO CARRIER, sw1:sw1-p2 DOWN",
            "  process   b: 'sh -c echo the daemon says no >&2; exit 4' ended with 4",
            "            the daemon says no",
            f"* files in {folder}",
            f"begin with {folder}/reproduce.md",
        ]
    )
    found = names(pytester.path / folder)
    assert {"lab.json", "report.json", "reproduce.md", "topology.svg", "topology.mmd"} <= found
    wanted = ("addresses", "routes", "neighbours", "interfaces", "counters", "sysctl")
    assert {f"{node}/{what}.txt" for node in ("a", "b", "sw1") for what in wanted} <= found
    assert "sw1/sw1-show.txt" in found
    assert "captures/1-a-eth0.pcapng" in found
    assert any(name.startswith("b/process-") for name in found)
    report = json.loads((pytester.path / folder / "report.json").read_text())
    assert (report["kind"], report["ok"], report["source"]) == ("reach", False, "a")
    text = (pytester.path / folder / "reproduce.md").read_text()
    assert f"pytest --infra --infra-pause {path.name}::test_cut" in text
    assert "ip netns exec a true" in text
    assert "10.0.0.1/24" in (pytester.path / folder / "a/addresses.txt").read_text()


def test_a_test_that_passes_leaves_nothing_and_always_leaves_all(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(
        LAB
        + """
    def test_fine(two):
        two.up()
    """
    )
    pytester.runpytest_subprocess("--infra").assert_outcomes(passed=1)
    assert evidence(pytester) == set()
    pytester.runpytest_subprocess("--infra", "--infra-artifacts=always").assert_outcomes(passed=1)
    assert evidence(pytester) == {f"{path.name}-test_fine/call"}


def test_never_is_never_and_the_texts_say_nothing_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CUT)
    result = pytester.runpytest_subprocess("--infra", "--infra-artifacts=never")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*evidence*")
    assert evidence(pytester) == set()


def test_set_up_and_teardown_that_fail(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(
        LAB
        + """
    @pytest.fixture
    def broken(two):
        two.node("a").run(["false"])

    @pytest.fixture
    def breaks_later(two):
        two.up()
        yield
        two.node("a").run(["false"])

    @pytest.fixture
    def breaks_too(breaks_later):
        yield
        raise ValueError("at first")

    def test_set_up(broken): pass
    def test_teardown(breaks_later): pass
    def test_both(two, breaks_too): assert 0
    """
    )
    result = pytester.runpytest_subprocess("--infra")
    result.assert_outcomes(passed=1, failed=1, errors=3)
    expected = {"test_set_up/setup", "test_teardown/teardown", "test_both/call", "test_both/teardown"}
    assert evidence(pytester) == {f"{path.name}-{name}" for name in expected}
    for name in expected:
        folder = pytester.path / f"infra-artifacts/{path.name}-{name}"
        assert "eth0: up" in (folder / "a/interfaces.txt").read_text(), name


def test_a_teardown_in_order_is_no_failure(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        LAB
        + """
    @pytest.fixture
    def more(two):
        two.up()
        try:
            raise ValueError("caught")
        except ValueError as error:
            kept = [error]
        yield kept
    def test_it(more): pass
    """
    )
    pytester.runpytest_subprocess("--infra").assert_outcomes(passed=1)
    assert evidence(pytester) == set()


def test_a_lab_that_cannot_be_made_is_looked_at_before_it_is_undone(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile("""
    from pytest_infra.net.switch import Switch

    class Refuses(Switch):
        kind = "refuses"
        def __init__(self, lab):
            super().__init__("sw9", observe=lab.up, declared_at="here")
            self.namespace = lab.nodes["a"].namespace
        def attach(self, ports):
            raise OSError(5, "no room in the rack")

    def test_it(lab):
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, ip="10.0.0.1/24")
        sw = lab._add_switch(Refuses(lab))
        lab.link(b, sw)
        a.run(["true"])
    """)
    result = pytester.runpytest_subprocess("--infra")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*StartFailed*no room in the rack*", "lab test_it: 2 nodes, *, not all of it made"])
    folder = pytester.path / f"infra-artifacts/{path.name}-test_it/call"
    assert "eth0" in (folder / "a/interfaces.txt").read_text()
    assert "lab.json" in names(folder)


def test_a_lab_of_the_tests_own_with_statement(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile("""
    def test_it(infra):
        with infra.lab("mine") as lab:
            lab.link(lab.host("a"), lab.host("b"))
            lab.up()
            assert lab.name == "yours"
    """)
    result = pytester.runpytest_subprocess("--infra")
    result.stdout.fnmatch_lines(["lab mine: 2 nodes, 0 switches, 1 links"])
    assert "a/routes.txt" in names(pytester.path / f"infra-artifacts/{path.name}-test_it/call")


def test_two_labs_that_end_with_one_error_are_both_kept(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile("""
    def test_it(infra):
        with infra.lab("near") as one, infra.lab("far") as two:
            for lab, ip in ((one, "10.1.0.1/24"), (two, "10.2.0.1/24")):
                lab.link(lab.host("a"), lab.host("b"), ip=ip)
                lab.up()
            assert one is two
    """)
    result = pytester.runpytest_subprocess("--infra", "--infra-report=report.html")
    result.stdout.fnmatch_lines_random([f"lab {name}: 2 nodes, 0 switches, 1 links" for name in ("near", "far")])
    folder = pytester.path / f"infra-artifacts/{path.name}-test_it/call"
    assert "10.2.0.1/24" in (folder / "far-1/a/addresses.txt").read_text()
    assert "10.1.0.1/24" in (folder / "near-2/a/addresses.txt").read_text()
    page = (pytester.path / "report.html").read_text()
    assert "Lab near" in page
    assert "Lab far" in page


def test_expected_failures_skips_and_plain_tests_leave_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        LAB
        + """
    @pytest.mark.xfail(strict=True)
    def test_expected(two):
        two.links[1].down()
        assert_reachable(two.node("a"), two.node("b"))

    def test_skip(two):
        pytest.skip("no")

    def test_plain():
        assert 0
    """
    )
    result = pytester.runpytest_subprocess("--infra")
    result.assert_outcomes(xfailed=1, skipped=1, failed=1)
    result.stdout.no_fnmatch_line("*infra evidence*")
    assert evidence(pytester) == set()


def test_no_run_touches_what_another_one_has_left(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(CUT)
    for _ in range(2):
        pytester.runpytest_subprocess("--infra", "--infra-artifacts-dir", "kept/here").assert_outcomes(failed=1)
    found = {item.name for item in (pytester.path / "kept/here").iterdir()}
    assert found == {f"{path.name}-test_cut", f"{path.name}-test_cut.2"}


def test_a_lab_that_is_shared_shows_what_this_test_added(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile("""
    import pytest
    from pytest_infra import ping

    @pytest.fixture(scope="module")
    def shared(lab_factory):
        with lab_factory("shared") as lab:
            lab.link(lab.host("a"), lab.host("b"))
            yield lab

    def test_first(shared): ping(shared.node("a"), shared.node("b"), count=7)
    def test_second(shared):
        ping(shared.node("a"), shared.node("b"), count=2)
        assert 0
    """)
    pytester.runpytest_subprocess("--infra").assert_outcomes(passed=1, failed=1)
    folder = pytester.path / f"infra-artifacts/{path.name}-test_second/call/b"
    assert "Icmp InEchos  +2\n" in (folder / "counters-of-this-test.txt").read_text()
    assert "9" in next(line for line in (folder / "counters.txt").read_text().splitlines() if "Icmp InEchos" in line)


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_junit_has_the_folder_as_a_property(pytester: pytest.Pytester, workers: tuple[str]) -> None:
    path = pytester.makepyfile(CUT)
    pytester.runpytest_subprocess("--infra", "--junitxml=report.xml", *workers)
    tree = ElementTree.parse(pytester.path / "report.xml")
    properties = {item.get("name"): item.get("value") for item in tree.iter("property")}
    assert properties["infra_evidence"] == str(pytester.path / f"infra-artifacts/{path.name}-test_cut/call")


@pytest.mark.parametrize(
    ("ini", "variable", "option", "kept"),
    [
        ("", "", "", True),
        ("infra_artifacts = never", "", "", False),
        ("infra_artifacts = never", "on-failure", "", True),
        ("", "never", "--infra-artifacts=on-failure", True),
    ],
)
def test_who_decides(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ini: str, variable: str, option: str, kept: bool
) -> None:
    pytester.makeini(f"[pytest]\n{ini}\n")
    if variable:
        monkeypatch.setenv("PYTEST_INFRA_ARTIFACTS", variable)
    pytester.makepyfile("def test_it(lab):\n    lab.host('a').run(['false'])")
    pytester.runpytest_subprocess("--infra", *filter(None, [option])).assert_outcomes(failed=1)
    assert bool(evidence(pytester)) == kept


def test_a_value_that_nobody_knows(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ninfra_artifacts = sometimes\n")
    result = pytester.runpytest_subprocess("--infra")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*infra_artifacts*: 'sometimes' is none of never, on-failure, always"])


@pytest.mark.parametrize(
    ("options", "passed", "failed"),
    [
        ((), None, False),
        (("--infra-pcap=on-failure",), None, True),
        (("--infra-pcap=always",), True, True),
        (("--infra-pcap=on-failure", "--infra-artifacts=never"), None, True),
        (("--infra-pcap=always", "-n2"), True, True),
    ],
)
def test_frames_are_added_when_asked_for(
    pytester: pytest.Pytester, options: tuple[str, ...], passed: bool | None, failed: bool
) -> None:
    path = pytester.makepyfile(
        LAB
        + """
    def test_fine(two):
        assert_reachable(two.node("a"), two.node("b"))

    def test_cut(two):
        assert_reachable(two.node("a"), two.node("b"))
        two.links[1].down()
        assert_reachable(two.node("a"), two.node("b"))
    """
    )
    pytester.runpytest_subprocess("--infra", *options).assert_outcomes(passed=1, failed=1)
    for name, wanted in (("test_fine", passed), ("test_cut", failed)):
        folder = pytester.path / f"infra-artifacts/{path.name}-{name}/call"
        assert folder.exists() == (wanted is not None)
        if wanted is not None:
            assert (folder / "captures/all.pcapng").exists() == wanted
        if wanted and name == "test_cut":
            content = (folder / "captures/all.pcapng").read_bytes()
            assert f"{path.name}::test_cut (call) failed: a cannot reach b".encode() in content
            assert b"sw1:sw1-p1" in content
            assert b"\x88\xb5" not in content, "the frames of the check's own"
            assert b"sentinels that checks sent are left out" in content
    if "--infra-artifacts=never" in options:
        assert names(folder) == {"captures/all.pcapng", "reproduce.md"}


@pytest.mark.parametrize("options", [(), ("-n2",), ("--infra-github=off",)])
def test_a_job_summary_on_github(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    summary = pytester.path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    path = pytester.makepyfile(
        CUT
        + """
    def test_lacking(lab):
        from pytest_infra import Unavailable
        raise Unavailable("docker", "no engine | answers", "start it")

    def test_no_lab(infra):
        assert 1 == 2, "no lab, no folder"

    def test_plain():
        assert 0, "not ours"
    """
    )
    pytester.runpytest_subprocess("--infra", *options).assert_outcomes(failed=3, skipped=1)
    if "--infra-github=off" in options:
        assert summary.read_text() == "before\n"
        return
    lines = summary.read_text().splitlines()
    assert lines[0] == "before"
    assert f"<details><summary><code>{path.name}::test_cut (call)</code></summary>" in lines
    assert f"Evidence: <code>infra-artifacts/{path.name}-test_cut/call</code>" in lines
    assert "## 2 failed" in lines
    rows = [html.unescape(line) for line in lines if line.startswith("| test")]
    assert f"| {path.name}::test_no_lab (call) | no lab, no folder |" in rows
    (row,) = (row for row in rows if "::test_cut" in row)
    assert row.startswith(f"| {path.name}::test_cut (call) | a cannot reach b")
    assert "sw1:sw1-p2" in row, "the cause"
    assert "graph LR" in lines
    assert any("DOWN" in line for line in lines)
    assert "| 1 | docker | no engine &#124; answers | start it |" in lines


def test_elsewhere_there_is_no_job_summary(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = pytester.path / "summary.md"
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    pytester.makepyfile(CUT)
    pytester.runpytest_subprocess("--infra").assert_outcomes(failed=1)
    assert not summary.exists()


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_an_annotation_on_github_is_at_the_users_line(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    pytest.importorskip("pytest_github_actions_annotate_failures")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    path = pytester.makepyfile(CUT)
    lines = path.read_text().splitlines()
    here = next(number for number, line in enumerate(lines, 1) if "assert_reachable(two" in line)
    result = pytester.runpytest_subprocess("--infra", *workers)
    shown = result.stdout.str() + result.stderr.str()
    (annotation,) = [line for line in shown.splitlines() if "::error file=" in line]
    assert f"file={path.name},line={here}" in annotation
    for words in ("a cannot reach b", "measured   0 of 1", "cause      ", "next       "):
        assert words in annotation


def test_a_folder_that_cannot_be_is_refused_at_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_never(): raise AssertionError")
    (pytester.path / "file").touch()
    for given in ("file", "file/in/it"):
        result = pytester.runpytest_subprocess("--infra", f"--infra-artifacts-dir={given}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"*--infra-artifacts-dir: *{given} cannot be made: *file is no folder"])
    result = pytester.runpytest_subprocess("--infra", "--infra-artifacts-dir=file", "--infra-artifacts=never")
    result.assert_outcomes(failed=1)


def test_a_folder_that_cannot_be_written_to_costs_the_evidence_and_not_the_run(pytester: pytest.Pytester) -> None:
    taken = "\n    def test_first():\n        open('infra-artifacts', 'w').close()\n"
    pytester.makepyfile(LAB + taken + CUT.removeprefix(LAB) + "\n    def test_last(): pass\n")
    result = pytester.runpytest_subprocess("--infra")
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(["*CheckFailed: a cannot reach b*", "it could not be kept: *infra-artifacts'"])


def test_a_fixture_of_a_module_that_fails_names_the_folder_of_each_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from pytest_infra import assert_reachable

        @pytest.fixture(scope="module")
        def apart(lab_factory):
            lab = lab_factory.make()
            a, b = lab.host("a"), lab.host("b")
            lab.link(a, b)
            lab.up()
            b.ports[0].down()
            assert_reachable(a, b)

        def test_one(apart): pass
        def test_two(apart): pass
        """
    )
    output = pytester.runpytest_subprocess("--infra").stdout.str()
    rows = [line for line in output.splitlines() if line.startswith("E") and "evidence" in line]
    assert ["one" in row for row in rows] == [True, False], output
    assert ["two" in row for row in rows] == [False, True], output
