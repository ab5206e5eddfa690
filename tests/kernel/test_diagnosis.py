"""What a lab's evidence says of a real lab, and that the commands in it build that lab again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from pytest_infra import CommandFailed, Infra, StartFailed, assert_reachable, ping
from pytest_infra.core.evidence import attached
from pytest_infra.core.resource import Resource
from pytest_infra.faults import cut
from pytest_infra.reporting.artifacts import EvidenceFolder
from pytest_infra.reporting.facts import read_facts
from pytest_infra.reporting.reproduce import ENTER, commands

pytestmark = pytest.mark.infra


def files(lab):
    return {artifact.name: artifact.content for artifact in lab.diagnose()}


def test_it_shows_what_was_changed(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    assert_reachable(a, b)
    a.sysctl["net.ipv4.conf.eth0.rp_filter"] = "1"
    found = files(lab)
    assert found["a/sysctl.txt"] == "net/ipv4/conf/eth0/rp_filter = 1    (when made: 0)\n"
    assert found["b/sysctl.txt"] == ""
    assert "10.0.0.0/24 dev eth0 src 10.0.0.1 proto kernel\n" in found["a/routes.txt"]
    assert f"10.0.0.2 at {b.ports[0].mac} on eth0 " in found["a/neighbours.txt"]
    assert "eth0: 10.0.0.1/24 global\n" in found["a/addresses.txt"]
    assert f"eth0: up, carrier, UP, mtu 1500, {a.ports[0].mac}, veth, noqueue\n" in found["a/interfaces.txt"]
    assert "Icmp InEchos" in found["b/counters.txt"]
    assert {"a/rules.txt", "a/queues.txt"}.isdisjoint(found)


@pytest.mark.infra_requires("nft")
def test_it_shows_firewall_rules(lab):
    a = lab.host("a")
    a.run(["nft", "add table inet mine; add chain inet mine guarded; add rule inet mine guarded tcp dport 23 drop"])
    assert "tcp dport 23 drop" in files(lab)["a/nftables.txt"]


@pytest.mark.infra_requires("ip")
def test_it_shows_rules_and_queues_that_somebody_has_made(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    a.run(["ip", "rule", "add", "from", "10.0.0.9", "table", "7"])
    a.run(["tc", "qdisc", "replace", "dev", "eth0", "root", "pfifo", "limit", "9"])
    found = files(lab)
    assert "from 10.0.0.9 lookup 7" in found["a/rules.txt"]
    assert "limit 9p" in found["a/queues.txt"]
    assert {"b/rules.txt", "b/queues.txt"}.isdisjoint(found)


def test_it_shows_processes_commands_and_captures(lab):
    a, b = lab.host("a"), lab.host("b", isolate=["uts"])
    lab.link(a, b)
    capture = lab.capture(b.ports[0])
    with pytest.raises(CommandFailed):
        a.run(["sh", "-c", "exit 3"])
    child = b.spawn(["sh", "-c", "echo out; echo err >&2"])
    child.wait()
    capture.stop()
    found = files(lab)
    assert found[f"b/process-{child.pid}.txt"].splitlines()[1:] == [
        "ended with 0", "-- stdout", "out", "", "-- stderr", "err"]  # fmt: skip
    assert found["captures/1-b-eth0.pcapng"] == capture.content()
    facts = json.loads(found["lab.json"])
    ran = [(item["where"], item["line"], item["status"]) for item in facts["commands"]]
    assert ran == [("a", "sh -c 'exit 3'", 3), ("b", "sh -c 'echo out; echo err >&2'", 0)]
    assert all(item["took_s"] >= 0 for item in facts["commands"])


def test_looking_at_a_lab_makes_nothing_of_it(lab, nothing_left):
    a, b, sw = lab.host("a"), lab.host("b"), lab.bridge()
    lab.link(a, sw)
    lab.link(b, sw)
    assert set(files(lab)) == {"lab.json"}
    assert a.namespace.fd == -1
    assert read_facts(lab.diagnose()).lab["up"] is False


def test_an_ovs_bridge_shows_flows_and_logs(lab):
    a, b, sw = lab.host("a"), lab.host("b"), lab.ovs("sw1")
    lab.link(a, sw)
    lab.link(b, sw)
    sw.add_flow("priority=100,icmp,actions=drop")
    found = files(lab)
    assert "priority=100,icmp actions=drop" in found["sw1/sw1-flows.txt"]
    assert {"sw1/sw1-ovs-vswitchd.txt", "sw1/interfaces.txt", "sw1/counters.txt"} <= set(found)


def test_what_fails_while_it_starts_is_looked_at_first():
    class Half(Resource):
        def _start(self, undo):
            self.folder = ["made"]
            undo.callback(self.folder.clear)
            raise OSError(5, "no more")

        def diagnose(self):
            from pytest_infra.core.evidence import Artifact

            yield Artifact("half.txt", str(self.folder))

    with pytest.raises(StartFailed) as caught:
        Half().start()
    assert [(item.name, item.content) for item in attached(caught.value)] == [("half.txt", "['made']")]
    assert not hasattr(caught.value.__cause__, "folder")


def test_a_lab_that_an_error_leaves_is_looked_at_and_then_gone(infra, nothing_left):
    with pytest.raises(CommandFailed) as caught, infra.lab() as lab:
        lab.link(lab.host("a"), lab.host("b"), ip="10.0.0.1/24").a.node.run(["false"])
    assert "10.0.0.1/24" in {item.name: item.content for item in attached(caught.value)}["a/addresses.txt"]
    assert not lab.started


def test_labs_that_are_up(infra):
    with Infra() as mine:
        assert mine.labs == ()
        with mine.lab("two"), mine.lab("one"):
            assert [lab.name for lab in mine.labs] == ["one", "two"]
    assert mine.labs == ()


def again(lab, *checks):
    """Build a lab by the commands of its evidence, in a shell that has `checks` run at the end."""
    script = "\n".join(["set -e", *commands(read_facts(lab.diagnose())), *checks])
    done = subprocess.run([*shlex.split(ENTER), "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, script + done.stdout + done.stderr
    return done.stdout


def connects(address):
    """A command that fails unless somebody at that address answers."""
    text = f"""import socket
try:
    socket.create_connection(("{address}", 9), timeout=5)
except ConnectionRefusedError:
    pass"""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(text)}"


def pings(address):
    """A command that fails unless that IPv4 address answers to an ICMP echo request."""
    text = f"""import socket
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
raw.settimeout(2)
raw.sendto(bytes.fromhex("0800f7ff00000000"), ("{address}", 0))
while raw.recv(99)[20] != 0:
    pass"""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(text)}"


@pytest.mark.infra_requires("ip")
def test_the_commands_build_the_lab_again(lab):
    a, r, b, sw = lab.host("a"), lab.router("r"), lab.host("b"), lab.bridge("sw1")
    lab.link(a, sw)
    lab.link(r, sw)
    lab.link(r, b)
    lab.up()
    four, six = (str(ip.ip) for ip in b.ports[0].addresses)
    output = again(
        lab, f"ip netns exec a {connects(four)}", f"ip netns exec a {connects(six)}", "ip -n a -o link show eth0"
    )
    assert a.ports[0].mac in output


@pytest.mark.infra_requires("ip")
def test_a_cable_that_was_cut_is_cut_again(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    b.ports[0].down()
    assert "state DOWN" in again(lab, "ip -n b -o link show eth0")
    with pytest.raises(AssertionError, match=r"TimeoutError|unreachable|No route"):
        again(lab, f"ip netns exec a {connects('10.0.0.2')}")


@pytest.mark.infra_requires("ip", "ovs")
def test_an_ovs_bridge_comes_again_with_its_flows(lab, tmp_path, monkeypatch):
    assert shutil.which("ovs-vsctl")
    a, b, sw = lab.host("a"), lab.host("b"), lab.ovs("sw1")
    lab.link(a, sw, ip="10.0.0.1/24")
    lab.link(b, sw, ip="10.0.0.2/24")
    sw.add_flow("priority=100,udp,actions=drop")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sw1").mkdir()
    (tmp_path / "sw1" / "sw1-flows.txt").write_text(files(lab)["sw1/sw1-flows.txt"])
    output = again(lab, f"ip netns exec a {pings('10.0.0.2')}", "ovs-ofctl dump-flows sw1")
    assert "priority=100,udp actions=drop" in output


@pytest.mark.infra_requires("ip", "ovs")
def test_vlans_bonds_and_spanning_trees_come_again(lab, tmp_path, monkeypatch):
    a, b, sw1, sw2 = lab.host("a"), lab.host("b"), lab.ovs("sw1", spanning_tree="rstp"), lab.ovs("sw2")
    lab.link(a, sw1, vlan=10, ip="10.0.0.1/24")
    lab.link(b, sw2, vlan=10, ip="10.0.0.2/24")
    bond = lab.bond(sw1, sw2, mode="active-backup", lacp=False)
    lab.up()
    monkeypatch.chdir(tmp_path)
    for switch in ("sw1", "sw2"):
        (tmp_path / switch).mkdir()
        (tmp_path / switch / f"{switch}-flows.txt").write_text(files(lab)[f"{switch}/{switch}-flows.txt"])
    ask = ["ovs-vsctl get bridge sw1 rstp_enable", "ovs-vsctl get port sw1-p1 tag", "ovs-appctl bond/list"]
    output = again(lab, *ask)
    assert re.search(r"^true\n10\n", output, re.MULTILINE)
    assert bond.name_at("sw1") in output
    assert bond.name_at("sw2") in output


def group_of_nobody(sw):
    sw.group(7, "all", ["drop"])
    sw.add_flow("priority=100,icmp,actions=group:7")


def meter_of_nothing(sw):
    """A flow cannot be added whose meter is not there."""
    sw.meter(3, "1 kbit/s")
    sw.add_flow("priority=100,icmp,actions=meter:3")


DROP_ECHO = "table ip t { chain c { type filter hook input priority 0; icmp type echo-request drop; }; }"
BREAK = {
    "a rule": lambda lab: lab.node("b").run(["nft", DROP_ECHO]),
    "a setting": lambda lab: lab.node("b").run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all"]),
    "a setting of an interface": lambda lab: lab.node("r").run(
        ["sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding"]
    ),
    "no flows": lambda lab: lab.switches["sw1"].ofctl(["del-flows", "sw1"]),
    "a VLAN": lambda lab: lab.switches["sw1"].vsctl(["set", "port", "sw1-p1", "tag=10"]),
    "a group": lambda lab: group_of_nobody(lab.switches["sw1"]),
    "a meter": lambda lab: meter_of_nothing(lab.switches["sw1"]),
    "a route": lambda lab: lab.node("a").run(["ip", "route", "del", "default"]),
    "another route": lambda lab: lab.node("a").run(["ip", "route", "add", "blackhole", "10.0.1.2"]),
    "an address": lambda lab: lab.node("b").run(["ip", "address", "del", "10.0.1.2/24", "dev", "eth0"]),
    "a neighbour": lambda lab: lab.node("a").run(
        ["ip", "neigh", "replace", "10.0.0.2", "lladdr", "02:00:00:00:00:99", "dev", "eth0"]
    ),
}  # fmt: skip
MEND = {
    "a rule": "ip netns exec b nft flush ruleset",
    "a setting": "ip netns exec b sh -c 'echo 0 > /proc/sys/net/ipv4/icmp_echo_ignore_all'",
    "a setting of an interface": "ip netns exec r sh -c 'echo 1 > /proc/sys/net/ipv4/conf/eth0/forwarding'",
    "no flows": "ovs-ofctl add-flow sw1 actions=NORMAL",
    "a VLAN": "ovs-vsctl clear port sw1-p1 tag",
    "a group": "ovs-ofctl -O OpenFlow15 mod-group sw1 group_id=7,type=all,bucket=actions=normal",
    "a meter": "ovs-ofctl del-flows sw1 icmp",
    "a route": "ip -n a route add default via 10.0.0.2",
    "another route": "ip -n a route del blackhole 10.0.1.2",
    "an address": "ip -n b address add 10.0.1.2/24 dev eth0; ip -n b route add default via 10.0.1.1",
    "a neighbour": "ip -n a neigh del 10.0.0.2 dev eth0",
}


@pytest.mark.infra_requires("ip", "nft", "ovs")
@pytest.mark.parametrize("fault", BREAK)
def test_whoever_follows_reproduce_md_meets_the_same_fault(infra, tmp_path, fault):
    with infra.lab("mine") as lab, infra.lab("other") as other:
        other.host("z")
        other.up()
        a, r, b, sw = lab.host("a"), lab.router("r"), lab.host("b"), lab.ovs("sw1")
        lab.link(a, sw, ip="10.0.0.1/24")
        lab.link(r, sw, ip="10.0.0.2/24")
        lab.link(r, b, ip="10.0.1.1/24", peer_ip="10.0.1.2/24")
        assert ping(a, b, count=1).loss == 0
        BREAK[fault](lab)
        folder, _ = EvidenceFolder(tmp_path, "test_x").write("call", [list(lab.diagnose()), list(other.diagnose())])
    text = (folder / "reproduce.md").read_text()
    (block,) = re.findall(r"## The lab mine by hand.*?```sh\n(.*?)```", text, re.DOTALL)
    first, *lines = block.splitlines()
    works = f"ip netns exec a {pings('10.0.1.2')}"
    fails = f"if {works} 2>/dev/null; then echo no fault; exit 9; fi"
    script = "\n".join(["set -e", *lines, fails, MEND[fault], works])
    done = subprocess.run(
        [*shlex.split(first), "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )
    assert done.returncode == 0, script + done.stdout + done.stderr


def test_reproduce_md_tells_the_faults_of_the_test(infra, tmp_path):
    with infra.lab("mine") as lab:
        a, b = lab.host("a"), lab.host("b")
        link = lab.link(a, b)
        with cut(link):
            pass
        with cut(link):
            folder, _ = EvidenceFolder(tmp_path, "test_x").write("call", [list(lab.diagnose())])
    over, lasting = re.findall(r"^- (cut a:eth0 -- b:eth0, .*)$", (folder / "reproduce.md").read_text(), re.MULTILINE)
    assert "over after" in over
    assert lasting.endswith("in effect at the failure")


def test_what_goes_wrong_at_one_node_takes_nothing_from_the_others(lab, monkeypatch):
    a, b = lab.host("a"), lab.host("b")
    lab.host("c")
    lab.link(a, b)
    capture = lab.capture(a.ports[0])

    def broken():
        raise RuntimeError("no longer there")

    monkeypatch.setattr(b, "diagnose", broken)
    parts = {part.name: part.content for part in lab.diagnose()}
    assert parts["b/diagnosis-failed.txt"] == "RuntimeError: no longer there\n"
    assert {"a/routes.txt", "c/routes.txt", "captures/1-a-eth0.pcapng"} <= set(parts)
    assert capture.port is a.ports[0]


def test_of_much_output_the_end_is_kept(lab):
    a = lab.host("a")
    process = a.spawn(["sh", "-c", "yes | head -n 1000000; echo the end"])
    process.wait()
    text = next(part.content for part in lab.diagnose() if part.name == f"a/process-{process.pid}.txt")
    assert len(text) < 600_000
    assert "characters before this are left out" in text
    assert "the end\n" in text
