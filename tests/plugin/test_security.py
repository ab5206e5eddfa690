"""Who may read what a run writes, whose it is under sudo, and names that a shell would read as commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

UID, GID = 54321, 54322
SUITE = """
import pytest
from pytest_infra import assert_reachable

def test_fail(lab):
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    capture = lab.capture(a.ports[0])
    lab.up()
    capture.write("mine.pcapng")
    link.down()
    assert_reachable(a, b)
"""


def run(pytester: pytest.Pytester, *arguments: str) -> None:
    """Run a suite that has been written."""
    options = ("--infra-pcap=on-failure", "--infra-report=report.html", "--junitxml=junit.xml", "--cov=.")
    pytester.runpytest_subprocess("--infra", *options, *arguments).assert_outcomes(failed=1)


def test_captures_evidence_and_reports_are_their_owners_only(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(test_suite=SUITE)
    before = os.umask(0)
    try:
        (pytester.path / "report.html").touch(0o666)
        run(pytester)
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in (pytester.path / "infra-artifacts").rglob("*")}
    files = [path for path in modes if path.is_file()]
    assert [path for path in files if path.suffix == ".pcapng"]
    assert {modes[path] for path in files} == {0o600}
    for name, mode in (("infra-artifacts", 0o700), ("mine.pcapng", 0o600), ("report.html", 0o600)):
        assert (pytester.path / name).stat().st_mode & 0o777 == mode, name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's files can be somebody else's (run it as root)")
@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_under_sudo_nothing_of_roots_is_left_in_the_users_tree(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    os.chown(pytester.path, UID, GID)
    os.chown(pytester.makepyfile(test_suite=SUITE), UID, GID)
    outside = pytester.path.parent / "outside"
    outside.touch()
    (pytester.path / "link").symlink_to(outside)
    os.chown(pytester.path / "link", UID, GID, follow_symlinks=False)
    os.link(outside, pytester.path / "second-name")
    monkeypatch.setenv("SUDO_UID", str(UID))
    monkeypatch.setenv("SUDO_GID", str(GID))
    run(pytester, *workers)
    owners = {path.name: path.lstat().st_uid for path in pytester.path.rglob("*")}
    assert {"junit.xml", "nodeids", "mine.pcapng", "report.html", "reproduce.md"} <= owners.keys()
    pytesters = {"stdout", "stderr", "runpytest-0"}  # it made them before the run began
    kept = {name for name, owner in owners.items() if owner == 0} - pytesters
    assert kept == {"second-name"}  # it has another name elsewhere
    assert outside.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's files can be somebody else's (run it as root)")
@pytest.mark.parametrize("identity", [{}, {"SUDO_UID": "0", "SUDO_GID": "0"}, {"SUDO_UID": "$(id)", "SUDO_GID": "1"}])
def test_without_sudo_files_stay_roots(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, identity: dict[str, str]
) -> None:
    for name in ("SUDO_UID", "SUDO_GID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in identity.items():
        monkeypatch.setenv(name, value)
    pytester.makepyfile(test_suite=SUITE)
    os.chown(pytester.path, UID, GID)
    run(pytester)
    assert {path.lstat().st_uid for path in pytester.path.rglob("*")} == {0}
    assert (pytester.path / "infra-artifacts").is_dir()


NASTY = "x; touch by-a-shell `touch by-a-shell` $(touch by-a-shell) '\" | & \n../../by-a-shell"


def test_names_from_outside_never_reach_a_shell(pytester: pytest.Pytester) -> None:
    """Of tests, labs, nodes, files, commands: they are refused, or used as they are."""
    pytester.makepyfile(
        test_suite=f"""
        import pytest
        from pytest_infra import BadInput
        NASTY = {NASTY!r}

        @pytest.mark.parametrize("name", [NASTY])
        def test_it(infra, lab, tmp_path, name):
            for declare in (lab.host, lab.ovs, lab.bridge, lab.router, infra.lab):
                with pytest.raises(BadInput):
                    declare(name)
            a = lab.host("a", isolate=["uts"])
            lab.link(a, lab.host("b"))
            assert a.run(["printf", "%s", name]).stdout == name
            (tmp_path / "folder").mkdir()
            assert lab.host("c", files={{"/etc/hosts": name}}).run(["cat", "/etc/hosts"]).stdout == name
            with infra.lab(name.replace(chr(10), " ")) as other:
                other.host("x").run(["true"])
            raise AssertionError("wanted")
        """
    )
    result = pytester.runpytest_subprocess("--infra", "--infra-report=r.html")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*AssertionError: wanted"])
    found = [path for path in pytester.path.parent.rglob("*by-a-shell*") if path.name == "by-a-shell"]
    assert not found
    assert not Path("/by-a-shell").exists()
