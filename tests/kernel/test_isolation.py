"""What a host has of its own is its own, and what it has not is shared."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from pytest_infra.core.errors import BadInput
from pytest_infra.core.wait import until
from pytest_infra.net.isolated import ISOLATIONS

KINDS = list(ISOLATIONS)


def spaces(host) -> dict[str, str]:
    """The namespaces that a command of a host runs in, by name."""
    lines = host.run(["sh", "-c", "for file in /proc/self/ns/*; do echo $(basename $file) $(readlink $file); done"])
    return dict(line.split() for line in lines.stdout.splitlines())


def combinations() -> list[tuple[str, ...]]:
    pairs = [("mount", "pid"), ("pid", "user"), ("user", "mount"), ("uts", "time"), ("ipc", "cgroup"), ("user", "time")]
    return [(), *((kind,) for kind in KINDS), *pairs, ("mount", "pid", "uts", "ipc", "cgroup"), tuple(KINDS)]


@pytest.mark.parametrize("kinds", combinations(), ids="+".join)
def test_a_host_has_just_what_was_asked_for(lab, kinds):
    plain, one, other = lab.host("plain"), lab.host("one", isolate=kinds), lab.host("other", isolate=kinds)
    shared, mine, others = spaces(plain), spaces(one), spaces(other)
    files = {ISOLATIONS[kind] for kind in kinds}
    assert len({item["net"] for item in (shared, mine, others)}) == 3, "the network is always its own"
    for file in ISOLATIONS.values():
        if file in files:
            assert len({shared[file], mine[file], others[file]}) == 3, file
        else:
            assert shared[file] == mine[file] == others[file], file
    outside = {file: os.readlink(f"/proc/self/ns/{file}") for file in ("uts", "ipc", "user", "cgroup", "time")}
    for file, name in outside.items():
        assert (mine[file] != name) == (file in files), file


@pytest.mark.parametrize("kinds", combinations(), ids="+".join)
def test_every_host_has_a_working_network(lab, echo, kinds):
    a, b = lab.host("a", isolate=kinds), lab.host("b", isolate=kinds)
    sw = lab.bridge("sw1")
    lab.link(a, sw)
    lab.link(b, sw)
    for address in b.ports[0].addresses:
        assert echo(a, address.ip) is not None
        a.run(["ping", "-c1", "-W5", str(address.ip)])
    a.run(["ip", "link", "add", "mine", "type", "veth"])
    assert "mine" in a.interfaces
    assert [str(ip.ip) for ip in a.addresses if ip.interface == "lo" and ip.ip.version == 4] == ["127.0.0.1/8"]


def test_isolated_routers_do_not_exist_but_isolated_hosts_route(lab, echo):
    a, r, b = lab.host("a", isolate=KINDS), lab.router("r"), lab.host("b", isolate=["user"])
    lab.link(a, r)
    lab.link(r, b)
    for address in b.ports[0].addresses:
        assert echo(a, address.ip) is not None


def test_uts(lab):
    a, b = lab.host("a", isolate=["uts"]), lab.host("b")
    before = os.uname().nodename
    a.run(["hostname", "renamed"])
    assert a.run(["hostname"]).stdout == "renamed\n"
    assert a.call(os.uname).nodename == "renamed"
    assert b.run(["hostname"]).stdout.strip() == before
    assert os.uname().nodename == before


def test_mount(lab, tmp_path):
    (tmp_path / "shared").write_text("outside")
    a, b = lab.host("a", isolate=["mount"]), lab.host("b")
    a.run(["mount", "-t", "tmpfs", "none", tmp_path])
    a.run(["sh", "-c", "echo inside > shared"], cwd=tmp_path)
    assert a.run(["cat", tmp_path / "shared"]).stdout == "inside\n"
    assert a.call((tmp_path / "shared").read_text) == "inside\n"
    assert b.run(["cat", tmp_path / "shared"]).stdout == "outside"
    assert (tmp_path / "shared").read_text() == "outside"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_mounts_of_a_plain_host_are_the_labs_and_not_the_machines(lab, tmp_path):
    (tmp_path / "shared").write_text("outside")
    a, b = lab.host("a"), lab.host("b")
    a.run(["mount", "-t", "tmpfs", "none", tmp_path])
    assert b.run(["ls", tmp_path]).stdout == "", "one mount namespace for the lab's plain hosts"
    assert (tmp_path / "shared").read_text() == "outside"


def test_mount_shows_the_hosts_own_interfaces_in_sys(lab):
    a, b = lab.host("a", isolate=["mount"]), lab.host("b")
    lab.link(a, b, name="left", peer_name="right")
    assert set(a.run(["ls", "/sys/class/net"]).stdout.split()) == {"lo", "left"}


def test_pid(lab):
    a, b = lab.host("a", isolate=["pid", "mount"]), lab.host("b")
    process = a.spawn(["sleep", "60"])
    seen = a.run(["sh", "-c", "ls /proc | grep '^[0-9]'"]).stdout.split()
    assert "1" in seen
    assert str(process.pid) not in seen
    assert len(seen) <= 5, "the holder, sleep, sh, ls, grep"
    b.spawn(["sleep", "60"])
    assert a.run(["sh", "-c", "grep -lz '^sleep' /proc/[0-9]*/cmdline | wc -l"]).stdout.strip() == "1"


def test_pid_and_mount_reap_their_orphans(lab, tmp_path):
    a = lab.host("a", isolate=["pid", "mount"])
    a.run(["sh", "-c", f"for n in 1 2 3 4 5; do (setsid touch {tmp_path}/$n &) ; done"])
    until(lambda: len(os.listdir(tmp_path)) == 5, within_s=5, what="the orphans did their work")
    count = ["sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"]
    until(lambda: a.run(count).stdout.strip() == "0", within_s=5, what="no zombies")


def test_ipc(lab):
    a, b = lab.host("a", isolate=["ipc"]), lab.host("b", isolate=["ipc"])
    a.run(["ipcmk", "-Q"])
    count = ["sh", "-c", "tail -n +2 /proc/sysvipc/msg | wc -l"]
    assert a.run(count).stdout.strip() == "1"
    assert a.call(Path("/proc/sysvipc/msg").read_text).count("\n") == 2
    assert b.run(count).stdout.strip() == "0"


def test_user(lab):
    a, b = lab.host("a", isolate=["user"]), lab.host("b")
    assert a.run(["id", "-u"]).stdout == "0\n"
    capabilities = a.run(["grep", "CapEff", "/proc/self/status"]).stdout.split()[1]
    assert int(capabilities, 16) >> 12 & 1, "it may configure its own network"
    a.run(["ip", "link", "add", "x", "type", "veth"])
    a.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    refused = a.run(["hostname", "renamed"], check=False)
    assert not refused.ok, "it is root of its own namespaces only"
    assert b.run(["cat", "/proc/self/uid_map"]).stdout.split() == Path("/proc/self/uid_map").read_text().split()
    assert a.run(["cat", "/proc/self/uid_map"]).stdout.split() != Path("/proc/self/uid_map").read_text().split()


def test_cgroup(lab):
    a, b = lab.host("a", isolate=["cgroup"]), lab.host("b")
    assert {line.rpartition(":")[2] for line in a.run(["cat", "/proc/self/cgroup"]).stdout.splitlines()} == {"/"}
    assert b.run(["cat", "/proc/self/cgroup"]).ok


def test_time(lab):
    a, b = lab.host("a", isolate=["time"]), lab.host("b")
    outside = b.run(["cat", "/proc/self/timens_offsets"]).stdout
    assert a.run(["cat", "/proc/self/timens_offsets"]).stdout.split() == outside.split(), (
        "it starts with the same clock"
    )
    assert spaces(a)["time"] != spaces(b)["time"]


def test_one_isolation_as_text_and_twice(lab):
    assert lab.host(isolate="uts").isolate == ("uts",)
    assert lab.host(isolate=["uts", "uts"]).isolate == ("uts",)


@pytest.mark.parametrize("kinds", ["net", "network", ["pid", "disk"], ["PID"], [""], [None]])
def test_an_unknown_isolation_is_refused(lab, kinds):
    allowed = r"there are mount, pid, uts, ipc, user, cgroup, time \(the network is always isolated\)"
    with pytest.raises(BadInput, match=rf"no isolation .*; {allowed}"):
        lab.host(isolate=kinds)
    assert not lab.nodes


def test_everything_goes_with_the_lab(infra, nothing_left):
    for kinds in itertools.chain(combinations()):
        with infra.lab() as lab:
            a = lab.host("a", isolate=kinds)
            a.run(["true"])
            a.call(os.getpid)
            a.spawn(["sleep", "60"])
        assert not nothing_left(), kinds
