"""What containers are made of, one piece at a time and without any engine: namespaces, layers, mounts, sockets."""

import socket
import sys
import time

import pytest

from pytest_infra import assert_reachable

WAIT = 'until test -e "$0/go"; do sleep 0.02; done'
PYTHON = [sys.executable, "-I", "-c"]


def test_a_process_namespace_has_its_own_first_process(lab):
    alone = lab.host(isolate=["pid", "mount"])
    sleep = alone.spawn(["sleep", "60"])
    seen = alone.run(["sh", "-c", "cat /proc/[0-9]*/comm"]).stdout.split()
    assert "sleep" in seen
    assert len(seen) < 6
    inside = alone.run(["sh", "-c", "grep -l sleep /proc/[0-9]*/comm"]).stdout.split("/")[2]
    assert int(inside) != sleep.pid, "the same process has another number outside"


def test_a_host_name_of_ones_own(lab):
    named = lab.host(isolate=["uts"])
    named.run(["hostname", "somewhere"])
    assert named.run(["hostname"]).stdout == "somewhere\n"
    assert socket.gethostname() != "somewhere"


def test_message_queues_are_not_seen_from_outside(lab):
    inside, outside = lab.host(isolate=["ipc"]), lab.host()
    inside.run(["ipcmk", "-Q"])
    rows = [len(host.run(["ipcs", "-q"]).stdout.split("0x")) - 1 for host in (inside, outside)]
    assert rows[0] == 1
    assert rows[1] == len(outside.run(["ipcs", "-q"]).stdout.split("0x")) - 1


def test_a_monotonic_clock_that_is_ahead(lab):
    ahead = lab.host(clock_offset="1 h")
    clock = float(ahead.run([*PYTHON, "import time; print(time.monotonic())"]).stdout)
    assert 3500 < clock - time.monotonic() < 3700


def test_layers_of_a_root_file_system(lab, tmp_path):
    for name in ("base", "app"):
        (tmp_path / name / "etc").mkdir(parents=True)
        (tmp_path / name / "etc" / "motd").write_text(f"{name}\n")
    host = lab.host(rootfs="/", layers=[tmp_path / "base", tmp_path / "app"])
    assert host.run(["cat", "/etc/motd"]).stdout == "app\n", "the last layer is on top"
    host.run(["sh", "-c", "echo written >/etc/motd; rm /etc/hostname"])
    assert host.run(["cat", "/etc/motd"]).stdout == "written\n"
    assert host.changes() == {"/etc/hostname": "deleted", "/etc/motd": "written"}
    assert (tmp_path / "app" / "etc" / "motd").read_text() == "app\n", "a lower layer is never written to"


@pytest.mark.parametrize(
    ("propagation", "seen_outside", "seen_inside"),
    [("private", False, False), ("slave", False, True), ("shared", True, True)],
)
def test_mount_propagation(lab, tmp_path, propagation, seen_outside, seen_inside):
    """mount_namespaces(7): what is mounted in one namespace appears in another one, or does not."""
    host = lab.host(isolate=["mount"])
    top, probe = tmp_path / "top", 'test -e "$0/file"'
    (top / "mine").mkdir(parents=True)
    (top / "theirs").mkdir()
    host.run(["mount", "-t", "tmpfs", "tmpfs", top])
    host.run(["mount", "--make-shared", top])
    host.run(["mkdir", top / "outside", top / "inside"])
    script = f'mount -t tmpfs t "$0/inside"; touch "$0/inside/file"; echo up; {WAIT}; test -e "$0/outside/file"'
    other = host.spawn(["unshare", "--mount", "--propagation", propagation, "sh", "-c", script, top])
    other.wait_for("up")
    assert host.run(["sh", "-c", probe, top / "inside"], check=False).ok is seen_outside
    host.run(["mount", "-t", "tmpfs", "t", top / "outside"])
    host.run(["touch", top / "outside" / "file", top / "go"])
    assert other.wait(10).ok is seen_inside


def test_a_mount_that_can_only_be_read(lab, tmp_path):
    host = lab.host(isolate=["mount"])
    host.run(["mount", "--bind", tmp_path, tmp_path])
    host.run(["mount", "-o", "remount,bind,ro", tmp_path])
    assert not host.run(["touch", tmp_path / "x"], check=False).ok
    (tmp_path / "x").touch()


SERVER = """
import os, socket
listening = socket.socket(fileno=3)
assert os.environ["LISTEN_FDS"] == "1"
print("interfaces:", *[name for _, name in socket.if_nameindex()], flush=True)
listening.accept()[0].sendall(b"hello")
"""


def test_a_server_without_a_network_is_handed_its_socket(lab):
    front, client, server = lab.host("front"), lab.host("client"), lab.host("server")
    lab.link(front, client, ip="192.168.1.10/24")
    lab.up()
    with front.call(socket.create_server, ("192.168.1.10", 80)) as listening:
        running = server.activate([*PYTHON, SERVER], {"web": listening})
    assert running.wait_for("interfaces:") == "interfaces: lo"
    assert client.call(_read, "192.168.1.10") == b"hello"


def _read(address):
    with socket.create_connection((address, 80), timeout=5) as channel:
        return channel.recv(100)


@pytest.mark.infra_requires("redis-server")
@pytest.mark.parametrize("test", ["one", "another"])
def test_a_fresh_redis_for_each_test(lab, test):
    """What a test writes to its data base and to the disk is gone with its host: the next one finds none of it."""
    host, client = lab.host("redis", rootfs="/"), lab.host("client")
    lab.link(host, client, ip="192.168.1.10/24")
    host.spawn(["redis-server", "--bind", "192.168.1.10", "--protected-mode", "no", "--dir", "/var/tmp"])
    assert_reachable(client, host, protocol="tcp", port=6379, within="5 s")
    redis = ["redis-cli", "-h", "192.168.1.10"]
    assert client.run([*redis, "dbsize"]).stdout.strip().endswith("0")
    client.run([*redis, "set", "who", test])
    client.run([*redis, "save"])
    assert host.changes()["/var/tmp/dump.rdb"] == "written"


def _cost_s(packets=2000):
    """The CPU time of a packet to oneself, which passes the whole rule set of this namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        began = time.thread_time()
        for _ in range(packets):
            channel.sendto(b"", ("127.0.0.1", 9))
        return (time.thread_time() - began) / packets


def _set_rules(host, rules):
    host.run(["nft", "add table ip t; add chain ip t c { type filter hook output priority 0; }"])
    host.run(["nft", "add rule ip t c ct state new"])
    for start in range(0, rules, 500):
        lines = [
            f"add rule ip t c ip daddr 10.{n >> 8}.{n & 255}.1 drop" for n in range(start, min(start + 500, rules))
        ]
        host.run(["nft", "-f", "-"], input="\n".join(lines) + "\n")


@pytest.mark.infra_requires("nft")
def test_a_rule_set_for_each_namespace_is_shorter(lab, record_property):
    """Each namespace has its own rules and its own connection table: a packet pays only for those of its own."""
    whole, part = lab.host("whole"), lab.host("part")
    _set_rules(whole, 4000)
    _set_rules(part, 400)
    assert "10.15.159.1" not in part.run(["nft", "list", "ruleset"]).stdout
    costs_s = {host.name: min(host.call(_cost_s) for _ in range(3)) for host in (whole, part)}
    record_property("cost_us", {name: round(cost_s * 1e6, 1) for name, cost_s in costs_s.items()})
    assert costs_s["whole"] > 2 * costs_s["part"], costs_s
    tables = [int(host.sysctl["net.netfilter.nf_conntrack_count"]) for host in (whole, part, lab.host())]
    assert tables[0] > 0
    assert tables[2] == 0
