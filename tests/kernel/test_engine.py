"""The engine: shared, private, the machine's own, absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_infra import Unavailable
from pytest_infra.container.dockerd import Dockerd
from pytest_infra.container.engine import Engine, EngineError
from pytest_infra.container.requirement import DOCKER
from pytest_infra.core.wait import until

pytestmark = pytest.mark.infra_requires("docker")


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_INFRA_ENGINE", "private")


def test_two_users_share_one_and_the_last_one_ends_it(private: None) -> None:
    key = os.urandom(4).hex()
    with Engine(key, "one") as one:
        with Engine(key, "two") as two:
            assert one.address == two.address
            folder = two.ask("info")["DockerRootDir"]
            assert Path(folder).is_dir()
        one.ask("ping")
    assert not Path(folder).exists()
    assert not os.path.exists(one.address.removeprefix("unix://"))


def test_it_goes_with_its_last_user_however_that_ends(private: None, script: Any) -> None:
    text = """
import os, signal, sys
from pytest_infra.container.engine import Engine
engine = Engine(sys.argv[1], "s").start()
print(engine.ask("info")["DockerRootDir"], engine.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    argv = [sys.executable, "-c", text, os.urandom(4).hex()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    folder, pid = done.stdout.split()
    gone = lambda: not os.path.exists(folder) and not os.path.exists(f"/proc/{pid}")  # noqa: E731
    until(gone, within_s=20, what="the end of the engine")


def test_an_engine_that_was_killed_says_so(private: None) -> None:
    with Engine(os.urandom(4).hex(), "one") as engine:
        os.kill(engine.pid, signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{engine.pid}"), within_s=20, what="its end")
        with pytest.raises(EngineError, match="the session's private engine has ended"):
            engine.ask("ping")


def test_what_the_machines_engine_runs_can_be_linked(tmp_path: Path) -> None:
    """A daemon that this session has not started; the tests run where its processes have the numbers it gives them."""
    suite = """
        from pytest_infra import assert_reachable, ready

        def test_link(lab, infra_image, infra):
            image = infra_image.scratch(["busybox"])
            web, a = lab.container(image, ["httpd", "-f", "-p", "80"], wait=ready.port(80), within="60 s"), lab.host()
            lab.link(web, a, ip=["10.9.8.7/24", "fd00:9::7/64"], peer_ip=["10.9.8.8/24", "fd00:9::8/64"])
            assert_reachable(a, web, protocol="tcp", port=80)
            assert_reachable(a, web, family="ipv6")
            assert not infra.engine().private
            web.restart(grace_s=0)
            assert_reachable(a, web, protocol="tcp", port=80)
            assert web.run(["cat", f"/proc/{1}/comm"]).ok

        def test_nothing_was_left(infra):
            assert infra.engine().ask("containers", all=True) == []
    """
    (tmp_path / "test_suite.py").write_text("\n".join(line[8:] for line in suite.splitlines()))
    with Dockerd() as daemon:
        argv = ["nsenter", "--target", str(daemon.guard.pid), "--pid", "--mount", f"--wd={tmp_path}"]
        argv += [sys.executable, "-m", "pytest", "--infra", "-q", "-p", "no:cacheprovider", "test_suite.py"]
        env = {**os.environ, "DOCKER_HOST": "unix:///run/docker.sock"}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_address_at_which_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nosuch/docker.sock")
    with pytest.raises(Unavailable, match=r"docker \(no engine answers at DOCKER_HOST=unix:///nosuch/docker.sock"):
        Engine("k", "s").start()


def test_without_an_engine_and_a_daemon(private: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_infra.core.requirement.find_program", lambda *names: None)
    absent = DOCKER.probe()
    assert not absent
    assert str(absent.why) == "no engine answers and dockerd is not installed"  # type: ignore[union-attr]


def test_a_refusal_has_the_engines_words(infra: Any) -> None:
    with pytest.raises(EngineError, match=r"No such container: nosuch"):
        infra.engine().ask("inspect_container", "nosuch")
