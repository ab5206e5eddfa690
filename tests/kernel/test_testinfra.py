"""pytest-testinfra on nodes: a host, an isolated host, a container; and from outside, by name."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from pytest_infra import BadInput, CommandFailed, ready

pytestmark = pytest.mark.infra_requires("testinfra")


@pytest.fixture
def pair(lab: Any) -> Any:
    a, b = lab.host("a"), lab.host("b", isolate=["mount", "pid", "uts"])
    lab.link(a, b, ip="192.168.1.10/24", peer_ip="192.168.1.20/24")
    lab.up()
    return a, b


def test_the_network_is_the_hosts(pair: Any, infra_host: Any) -> None:
    for node, address in zip(pair, ("192.168.1.10", "192.168.1.20"), strict=True):
        host = infra_host(node)
        assert host.interface("eth0").exists
        assert address in host.interface("eth0").addresses
        assert not host.interface("docker0").exists
        assert sorted(host.file("/sys/class/net").listdir()) == ["eth0", "lo"]
        assert host.addr("192.168.1.20").is_reachable
        assert host.file("/sys/fs/cgroup").is_directory


def test_sockets_and_processes(pair: Any, infra_host: Any) -> None:
    a, b = pair
    b.spawn([sys.executable, "-m", "http.server", "8000", "--bind", "192.168.1.20"])
    a_host, b_host = infra_host(a), infra_host(b)
    from pytest_infra import assert_reachable

    assert_reachable(a, b, protocol="tcp", port=8000, within="5 s")
    assert a_host.addr("192.168.1.20").port(8000).is_reachable
    assert not a_host.addr("192.168.1.20").port(8001).is_reachable
    assert b_host.socket("tcp://192.168.1.20:8000").is_listening
    assert not a_host.socket("tcp://192.168.1.20:8000").is_listening
    assert any("http.server" in item.args for item in b_host.process.filter(user="root"))
    assert len(b_host.process.filter()) < 10, "only its own"


def test_files_users_commands(pair: Any, infra_host: Any, tmp_path: Any) -> None:
    host = infra_host(pair[0])
    (tmp_path / "a b").write_text("words\n")
    assert host.file(str(tmp_path / "a b")).content_string == "words\n"
    assert host.user("root").uid == 0
    assert host.check_output("printf %s", "it's") == "it's"
    assert host.run("echo no >&2; exit 3").rc == 3
    assert host.mount_point("/proc").exists
    with pytest.raises(CommandFailed, match=r"killed after 0\.3 s"):
        host.run("sleep 60", timeout=0.3)
    with pytest.raises(BadInput, match=r"'a' is no node of a lab"):
        infra_host("a")


@pytest.mark.infra_requires("docker")
def test_a_container(infra_container: Any, infra_image: Any, infra_host: Any) -> None:
    files = {"/etc/passwd": "www:x:7:7::/:/bin/sh\n", "/www/index.html": "hello"}
    image = infra_image.scratch(["busybox"], files=files)
    node = infra_container(image, ["httpd", "-f", "-p", "80"], wait=ready.port(80))
    host = infra_host(node)
    assert host.file("/www/index.html").content == b"hello"
    assert host.user("www").uid == 7
    assert host.exists("busybox")
    assert not host.file(os.path.dirname(__file__)).exists
    assert "httpd -f -p 80" in host.check_output("ps")
    assert host.interface("lo").exists


def test_by_name_from_outside(lab: Any, pair: Any) -> None:
    import testinfra

    host = testinfra.get_host(f"infra://b@{lab.name}")
    assert "192.168.1.20" in host.interface("eth0").addresses
    assert host.file("/sys/class/net/eth0").exists
    assert testinfra.get_host(f"{lab.name}/b", connection="infra").interface("eth0").exists
    with pytest.raises(BadInput, match=r"write infra://NODE@LAB"):
        testinfra.get_host(f"infra://{lab.name}/b")


def test_by_name_on_the_command_line(lab: Any, pair: Any, tmp_path: Any) -> None:
    suite = "def test_address(host): assert '192.168.1.20' in host.interface('eth0').addresses\n"
    (tmp_path / "test_suite.py").write_text(suite)
    argv = [sys.executable, "-m", "pytest", "--infra", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*argv, f"--hosts=infra://{lab.name}/b", "test_suite.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
