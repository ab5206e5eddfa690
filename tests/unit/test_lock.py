"""Machine-wide counted locks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pytest_infra.core import lock
from pytest_infra.core.errors import BadInput, WaitTimeout
from pytest_infra.core.lock import exclusive

HOLD = """
    import sys
    from pytest_infra.core import lock
    lock.lock_directory = lambda: sys.argv[1]
    with lock.exclusive(sys.argv[2], count=int(sys.argv[3]), of=int(sys.argv[4]), timeout_s=20) as numbers:
        print(*numbers, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lock, "lock_directory", lambda: str(tmp_path))
    return tmp_path


def holder(folder: Path, name: str, count: int, of: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", textwrap.dedent(HOLD), str(folder), name, str(count), str(of)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def numbers(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


def test_one_at_a_time_and_the_message_names_the_holder(folder: Path) -> None:
    process = holder(folder, "gpu", 1, 1)
    assert numbers(process) == [0]
    text = rf"1 of 1 gpu on this machine: not within 0.1 s; held by process {process.pid} \(.*python"
    with pytest.raises(WaitTimeout, match=text), exclusive("gpu", timeout_s=0.1):
        pass
    process.communicate()
    with exclusive("gpu", timeout_s=5) as mine:
        assert mine == (0,)


def test_the_lock_of_a_killed_holder_is_free_at_once(folder: Path) -> None:
    process = holder(folder, "gpu", 2, 2)
    assert numbers(process) == [0, 1]
    process.kill()
    process.wait()
    with exclusive("gpu", count=2, of=2, timeout_s=1) as mine:
        assert mine == (0, 1)
    process.communicate()


def test_count_of_several(folder: Path) -> None:
    with exclusive("cpu", count=2, of=3) as mine:
        assert mine == (0, 1)
        process = holder(folder, "cpu", 1, 3)
        assert numbers(process) == [2]
        process.communicate()


def test_a_large_request_is_not_overtaken(folder: Path) -> None:
    with exclusive("cpu", count=1, of=2):
        large = holder(folder, "cpu", 2, 2)
        deadline = time.monotonic() + 10
        while not (folder / "cpu.queue.lock").exists() or _is_free(folder / "cpu.queue.lock"):
            assert time.monotonic() < deadline, "the large request never queued"
        with pytest.raises(WaitTimeout, match="others wait for it too"), exclusive("cpu", count=1, of=2, timeout_s=0.2):
            pass
    assert numbers(large) == [0, 1]
    large.communicate()


def _is_free(path: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False


def test_different_names_do_not_meet() -> None:
    with exclusive("gpu") as one, exclusive("hugepages", timeout_s=0.1) as other:
        assert (one, other) == ((0,), (0,))


def test_released_when_the_body_fails() -> None:
    with pytest.raises(ZeroDivisionError), exclusive("gpu"):
        raise ZeroDivisionError
    with exclusive("gpu", timeout_s=0.1):
        pass


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b"])
def test_bad_names(name: str) -> None:
    with pytest.raises(BadInput, match="a lock's name is made of"), exclusive(name):
        pass


@pytest.mark.parametrize(("count", "of"), [(0, 1), (2, 1), (-1, None)])
def test_bad_counts(count: int, of: int | None) -> None:
    with pytest.raises(BadInput, match="cannot hold"), exclusive("gpu", count=count, of=of):
        pass


def test_files_are_kept_and_everybody_may_use_them(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        with exclusive("gpu"):
            pass
    finally:
        os.umask(before)
    for path in folder.glob("*.lock"):
        assert path.stat().st_mode & 0o777 == 0o666
    assert {path.name for path in folder.glob("*.lock")} == {"gpu.0.lock", "gpu.queue.lock"}
