"""The lease: what is written down before it is made is undone, by the session or after it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from pytest_infra.core.errors import BadInput, CleanupFailed, InfraError
from pytest_infra.core.lease import Lease
from pytest_infra.core.sweep import LEDGER, clear, leases, outstanding, sweep
from pytest_infra.core.wait import until


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "run"


def in_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python of its own that runs `code`, with pipes to and from it."""
    argv = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_folder_ledger_and_reaper_go_with_an_orderly_end(base: Path) -> None:
    with Lease(str(base)) as lease:
        folder = Path(lease.folder)
        assert folder.parent == base
        assert (folder / LEDGER).exists()
        (folder / "any file").write_text("goes with the folder")
    assert not base.exists()


def test_what_was_not_undone_is_undone_at_the_end(base: Path, tmp_path: Path) -> None:
    with Lease(str(base)) as lease:
        lease.add("file", path=str(tmp_path / "file"))
        (tmp_path / "file").touch()
        lease.add("directory", path=str(tmp_path / "never made"))
        lease.add("directory", path=str(tmp_path / "folder"))
        (tmp_path / "folder" / "sub").mkdir(parents=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_done_is_left_alone(base: Path, tmp_path: Path) -> None:
    with Lease(str(base)) as lease:
        entry = lease.add("file", path=str(tmp_path / "file"))
        lease.add("file", path=str(tmp_path / "other"))
        lease.done(entry)
        (tmp_path / "file").write_text("somebody else's by now")
    assert (tmp_path / "file").exists()


def test_ledger_holds_what_is_outstanding_latest_first_and_does_not_grow(base: Path) -> None:
    with Lease(str(base)) as lease:
        first, second = lease.add("file", path="/nowhere/1"), lease.add("file", path="/nowhere/2")
        assert [item["facts"]["path"] for item in outstanding(lease.folder)] == ["/nowhere/2", "/nowhere/1"]
        lease.done(first)
        assert [item["facts"]["path"] for item in outstanding(lease.folder)] == ["/nowhere/2"]
        lease.done(second)
        assert os.path.getsize(os.path.join(lease.folder, LEDGER)) == 0


def test_unknown_kind_is_refused(base: Path) -> None:
    with (
        Lease(str(base)) as lease,
        pytest.raises(BadInput, match=r"knows no 'moon'; it knows cgroup, "),
    ):
        lease.add("moon")


def test_end_says_what_cannot_be_undone(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_infra.core.lease.clear", lambda folder: clear(folder, within_s=0.0))
    lease = Lease(str(base)).start()
    lease.add("file", path=str(tmp_path))  # a folder cannot be unlinked
    with pytest.raises(CleanupFailed, match=r"Is a directory|Operation not permitted"):
        lease.stop()
    assert tmp_path.exists()
    (dead,) = leases([str(base)])
    assert not dead.alive


@pytest.mark.parametrize("how", ["kill", "kill with a forked child", "exit without clean-up"])
def test_everything_goes_when_the_session_dies(base: Path, tmp_path: Path, how: str) -> None:
    code = """
        import os, signal, sys, time
        from pytest_infra.core.lease import Lease
        base, folder, how = sys.argv[1:]
        lease = Lease(base).start()
        lease.add("directory", path=folder)
        os.mkdir(folder)
        print("up", flush=True)
        if how == "kill with a forked child" and os.fork() == 0:
            sys.stdin.read()
            os._exit(0)
        if how == "exit without clean-up":
            os._exit(1)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    folder = tmp_path / "made"
    process = in_python(code, base, folder, how)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.wait(10)
    until(lambda: not folder.exists() and not base.exists(), within_s=5, what="clean-up after the session's death")
    process.stdin.close()
    process.stdout.close()


def test_reaper_holds_no_output_open_and_ignores_the_terminals_signals(base: Path) -> None:
    code = """
        import os, sys
        from pytest_infra.core.lease import Lease
        lease = Lease(sys.argv[1]).start()
        print(lease.folder, flush=True)
        sys.stdin.read()
        os._exit(0)
    """
    process = in_python(code, base)
    assert process.stdin is not None
    assert process.stdout is not None
    folder = process.stdout.readline().strip()
    (reaper,) = [child.pid for child in psutil.Process(process.pid).children()]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(reaper, number)
    assert os.getsid(reaper) == reaper
    assert all(os.readlink(f"/proc/{reaper}/fd/{fd}") == "/dev/null" for fd in (1, 2))
    process.stdin.close()
    assert process.stdout.read() == ""  # end of file: nobody else has it open
    process.wait(10)
    until(lambda: not os.path.exists(folder), within_s=5, what="clean-up by the reaper that was sent signals")
    process.stdout.close()


def dead_lease(base: Path, *paths: Path) -> Path:
    """What a session leaves whose reaper was killed too."""
    code = """
        import os, signal, sys
        import psutil
        from pytest_infra.core.lease import Lease
        lease = Lease(sys.argv[1]).start()
        for path in sys.argv[2:]:
            lease.add("file", path=path)
        print(lease.folder)
        sys.stdout.flush()
        for child in psutil.Process().children():
            child.kill()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = in_python(code, base, *paths)
    output, _ = process.communicate(timeout=10)
    return Path(output.strip())


def test_next_session_sweeps_what_a_dead_one_left(base: Path, tmp_path: Path) -> None:
    left = tmp_path / "left"
    folder = dead_lease(base, left)
    left.touch()
    assert folder.exists()
    with Lease(str(base)) as lease:
        assert [swept.folder for swept in lease.swept] == [str(folder)]
        assert not folder.exists()
        assert not left.exists()


def test_a_line_cut_off_by_death_is_ignored(base: Path, tmp_path: Path) -> None:
    left = tmp_path / "left"
    folder = dead_lease(base, left)
    left.touch()
    with (folder / LEDGER).open("a") as ledger:
        ledger.write('{"entry": 9, "kind": "file", "facts": {"pa')
    (swept,) = sweep([str(base)])
    assert swept.errors == []
    assert not left.exists()


def test_an_unknown_kind_is_kept_and_reported(base: Path) -> None:
    folder = dead_lease(base)
    (folder / LEDGER).write_text('{"entry": 1, "kind": "moon", "facts": {}}\n')
    (swept,) = sweep([str(base)], within_s=0.0)
    assert swept.errors == ["unknown kind 'moon': a newer version of pytest-infra made it"]
    assert folder.exists()


def test_a_sweep_never_touches_a_live_lease(base: Path, tmp_path: Path) -> None:
    with Lease(str(base)) as lease:
        lease.add("file", path=str(tmp_path / "file"))
        (tmp_path / "file").touch()
        assert sweep([str(base)]) == []
        (state,) = leases([str(base)])
        assert state.alive
        assert state.session["pid"] == os.getpid()
        assert (tmp_path / "file").exists()


def test_sweeps_at_the_same_time_clear_each_dead_lease_once(base: Path) -> None:
    folder = dead_lease(base)
    for number in range(3):
        shutil.copytree(folder, base / f"dead-{number}")
    code = """
        import sys
        from pytest_infra.core.sweep import sweep
        sys.stdin.readline()
        print(sum(len(swept.errors) * 100 + 1 for swept in sweep([sys.argv[1]])))
    """
    sweepers = [in_python(code, base) for _ in range(3)]
    for sweeper in sweepers:
        assert sweeper.stdin is not None
        sweeper.stdin.write("go\n")
        sweeper.stdin.flush()
    cleared = sum(int(sweeper.communicate(timeout=20)[0]) for sweeper in sweepers)
    cleared += len(sweep([str(base)]))  # each sweep passes over what another one is at
    assert cleared == 4
    assert not base.exists()


def test_leases_are_made_while_others_sweep(base: Path) -> None:
    code = """
        import os, sys
        from pytest_infra.core.lease import Lease
        from pytest_infra.core.sweep import sweep
        for _ in range(25):
            sweep([sys.argv[1]]) if os.path.isdir(sys.argv[1]) else None
            with Lease(sys.argv[1]) as lease:
                assert os.path.isdir(lease.folder), lease.folder
                sweep([sys.argv[1]])
                assert os.path.isdir(lease.folder), lease.folder
    """
    processes = [in_python(code, base) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert not base.exists()


def test_published_labs_are_listed_until_they_are_withdrawn(base: Path) -> None:
    with Lease(str(base)) as lease:
        facts = {"nodes": {"a": {"namespaces": {"net": "/proc/1/ns/net"}}}}
        entry = lease.publish("demo", {})
        other = lease.publish("other", {})
        assert lease.publish("demo", facts, entry) == entry
        assert leases([str(base)])[0].labs == {"demo": facts, "other": {}}
        lease.withdraw(entry)
        assert leases([str(base)])[0].labs == {"other": {}}
        lease.withdraw(other)
        lease.withdraw(other)
        assert leases([str(base)])[0].labs == {}


def test_a_forked_child_that_ends_like_its_parent_takes_nothing_with_it(base: Path) -> None:
    with Lease(str(base)) as lease:
        child = os.fork()
        if child == 0:
            lease.stop()
            os._exit(0)
        os.waitpid(child, 0)
        assert os.path.isdir(lease.folder)
        (state,) = leases([str(base)])
        assert state.alive


def test_what_does_not_fit_on_the_disk_is_not_taken_for_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(str(tmp_path)) as lease:
        lease.add("directory", path="/no/such/one")
        write = os.write
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
            with pytest.raises(InfraError, match="its disk is full"):
                lease.add("directory", path="/no/such/two")
        lease.add("directory", path="/no/such/three")
        paths = [item["facts"]["path"] for item in outstanding(lease.folder)]
        assert paths == ["/no/such/three", "/no/such/one"]
