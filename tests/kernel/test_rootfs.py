"""Hosts with a root file system of layers, a clock of their own, or a socket handed to them."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_infra import BadInput, CommandFailed, assert_reachable


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with a file of the same name; the lower one has a busybox."""
    low, high = tmp_path / "low", tmp_path / "high"
    for folder, text in ((low, "low"), (high, "high")):
        (folder / "etc").mkdir(parents=True)
        (folder / "etc" / "both").write_text(text)
        (folder / "etc" / text).write_text(text)
    return low, high


def test_the_machines_root_can_be_written_to_and_stays_as_it_is(lab: Any, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    host = lab.host(rootfs="/")
    host.run(["sh", "-c", "echo new >new; echo changed >old; rm /etc/hostname"], cwd=tmp_path)
    assert host.run(["cat", "old"], cwd=tmp_path).stdout == "changed\n"
    assert (tmp_path / "old").read_text() == "old"
    assert not (tmp_path / "new").exists()
    assert Path("/etc/hostname").exists()
    changes = host.changes()
    assert changes["/etc/hostname"] == "deleted"
    assert changes[str(tmp_path / "new")] == changes[str(tmp_path / "old")] == "written"
    assert (host.root / str(tmp_path / "new").lstrip("/")).read_text() == "new\n"
    assert host.run(["pwd"]).stdout == "/\n"


def test_the_upper_layer_hides_the_lower_one(lab: Any, layers: tuple[Path, Path]) -> None:
    for order, first in ((layers, "high"), (layers[::-1], "low")):
        host = lab.host(rootfs="/", layers=order)
        assert host.run(["cat", "/etc/both"]).stdout == first
        assert host.run(["cat", "/etc/low", "/etc/high"]).stdout == "lowhigh"
        host.run(["sh", "-c", "echo more >>/etc/both"])
        assert host.changes() == {"/etc/both": "written"}
    assert [(folder / "etc" / "both").read_text() for folder in layers] == ["low", "high"]


def test_two_hosts_share_nothing_and_have_a_network(lab: Any) -> None:
    a, b = lab.host("a", rootfs="/", isolate=["pid"]), lab.host("b", rootfs="/")
    lab.link(a, b)
    a.run(["touch", "/only-in-a"])
    assert not b.run(["test", "-e", "/only-in-a"], check=False).ok
    assert_reachable(a, b)
    assert a.run(["ls", "/sys/class/net"]).stdout.split() == ["eth0", "lo"]
    assert a.run(["sh", "-c", "echo $$; ls -d /proc/[0-9]* | wc -l"]).stdout.split()[1] in ("3", "4", "5")


def test_shared_memory_is_gone_with_the_host(lab_factory: Any) -> None:
    name = f"/dev/shm/infra-test-{os.getpid()}"
    with lab_factory() as lab:
        lab.host(rootfs="/").run(["touch", name])
        assert not os.path.exists(name)
        assert not lab.host(rootfs="/").run(["test", "-e", name], check=False).ok


def test_a_root_without_the_machines_files(lab: Any, layers: tuple[Path, Path]) -> None:
    host = lab.host(layers=layers)
    assert host.call(_names) == ["dev", "etc", "proc", "sys"]
    with pytest.raises(CommandFailed, match="no program 'ls' there"):
        host.run(["ls"])


def _names() -> list[str]:
    return sorted(os.listdir("/"))


def test_a_clock_ahead(lab: Any) -> None:
    ahead = lab.host(clock_offset="2 h")
    code = "import time; print(time.clock_gettime(time.CLOCK_MONOTONIC), time.time())"
    monotonic_s, wall_s = map(float, ahead.run([sys.executable, "-I", "-c", code]).stdout.split())
    assert 7200 <= monotonic_s - time.clock_gettime(time.CLOCK_MONOTONIC) + 10 <= 7220
    assert abs(wall_s - time.time()) < 10, "a time namespace has no wall clock of its own"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rootfs": "/nosuch"}, "no folder '/nosuch' to make a root file system of"),
        ({"layers": "/etc"}, "layers is a list of folders, the last one on top; got '/etc'"),
        ({"clock_offset": "soon"}, "soon"),
    ],
)
def test_bad_roots_are_refused(lab: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        lab.host(**options)


def test_nothing_is_left(lab_factory: Any, nothing_left: Any) -> None:
    with lab_factory() as lab:
        lab.host(rootfs="/", isolate=["pid"]).run(["touch", "/x"])
    assert not nothing_left()
    assert not os.path.exists("/x")


SERVER = """
import os, socket
assert os.environ["LISTEN_PID"] == str(os.getpid())
listening = [socket.socket(fileno=3 + number) for number in range(int(os.environ["LISTEN_FDS"]))]
print(os.environ["LISTEN_FDNAMES"], os.listdir("/sys/class/net"), flush=True)
connection, _ = listening[0].accept()
connection.sendall(b"from nowhere")
"""


def test_a_socket_is_handed_to_a_host_without_an_interface(lab: Any) -> None:
    front, client, nowhere = lab.host("front"), lab.host("client"), lab.host("nowhere", isolate=["mount"])
    lab.link(front, client)
    lab.up()
    address = str(front.ports[0].addresses[0].ip)
    listening = front.call(socket.create_server, (address, 80))
    with listening:
        server = nowhere.activate([sys.executable, "-I", "-c", SERVER], {"web": listening})
    assert server.wait_for("web").strip() == "web ['lo']"

    def get() -> bytes:
        with socket.create_connection((address, 80), timeout=5) as channel:
            return channel.recv(100)

    assert client.call(get) == b"from nowhere"
    assert server.wait(5).returncode == 0
    with pytest.raises(BadInput, match=r"from 1 to 7 sockets can be handed on; got 0"):
        nowhere.activate(["true"], {})
