"""Containers as nodes: life, commands, links, limits, waiting; each refusal and failure by its text."""

from __future__ import annotations

import os
import re
import time
import urllib.request
from typing import Any

import pytest

from pytest_infra import (
    BadInput,
    Bind,
    CheckFailed,
    CommandFailed,
    Health,
    StartFailed,
    Tmpfs,
    Volume,
    WaitTimeout,
    assert_reachable,
    ready,
)

pytestmark = pytest.mark.infra_requires("docker")

HTTPD = ["httpd", "-f", "-v", "-p", "80", "-h", "/www"]


@pytest.fixture(scope="module")
def busybox(infra_image: Any) -> Any:
    return infra_image.scratch(
        ["busybox"], files={"/www/index.html": "hello\n", "/etc/passwd": "root:x:0:0::/:/bin/sh\n"}
    )


@pytest.fixture
def sleeper(infra_container: Any, busybox: Any) -> Any:
    return infra_container(busybox, ["sleep", "1000"], name="c")


def test_checks_work_between_a_container_and_a_host(lab: Any, busybox: Any) -> None:
    web = lab.container(busybox, HTTPD, name="web", wait=[ready.port(80), ready.http(80, "/index.html")])
    a, switch = lab.host("a"), lab.bridge()
    lab.link(web, switch, ip="192.168.1.10/24")
    lab.link(a, switch, ip="192.168.1.20/24")
    assert_reachable(a, web)
    assert_reachable(web, a)
    assert_reachable(a, web, protocol="tcp", port=80)
    assert [port.name for port in web.ports] == ["eth0"]
    assert "192.168.1.10/24" in {str(item.ip) for item in web.addresses}
    with pytest.raises(CheckFailed, match=r"nothing listens on TCP port 81 of web"):
        assert_reachable(a, web, protocol="tcp", port=81)
    web.ports[0].down()
    with pytest.raises(CheckFailed, match=r"web:eth0"):
        assert_reachable(a, web)


def test_the_network_is_there_before_the_first_process(lab: Any, busybox: Any) -> None:
    look = lab.container(busybox, ["sh", "-c", "ip addr; ip -6 route"], name="look", wait=ready.exited(0))
    lab.link(look, lab.host(), ip=["10.1.2.3/24", "fd00:7::3/64"])
    log = look.logs()
    assert "10.1.2.3/24" in log
    assert "fd00:7::3/64" in log
    assert re.search(r"eth0@.*UP,LOWER_UP", log)
    assert "fd00:7::/64 dev eth0" in log


def test_links_outlive_a_restart(lab: Any, busybox: Any) -> None:
    web, a = lab.container(busybox, HTTPD, wait=ready.port(80)), lab.host()
    lab.link(web, a)
    lab.up()
    before = web.pid
    web.restart(grace_s=0)
    assert web.pid != before
    assert_reachable(a, web, protocol="tcp", port=80)
    assert web.run(["true"]).ok


def test_a_router_in_a_container_forwards(lab: Any, busybox: Any) -> None:
    middle = lab.container(busybox, ["sleep", "1000"], router=True)
    a, b = lab.host(), lab.host()
    lab.link(a, middle)
    lab.link(b, middle)
    assert_reachable(a, b)
    assert middle.sysctl["net.ipv4.ip_forward"] == "1"


def test_commands(sleeper: Any) -> None:
    done = sleeper.run(["sh", "-c", "cat; echo bad >&2; exit 3"], input="good", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "good", "bad\n")
    assert sleeper.run(["env"], env={"X": "y"}).stdout.count("X=y") == 1
    assert sleeper.run(["pwd"], cwd="/www").stdout == "/www\n"
    assert sleeper.run(["id", "-u"], user="7").stdout == "7\n"
    assert sleeper.run(["sh", "-c", "head -c 3000000 /dev/zero"]).stdout == "\0" * 3_000_000
    assert sleeper.run(["hostname"]).stdout == "c\n"
    assert len(sleeper.run(["ps"]).stdout.splitlines()) == 3
    with pytest.raises(CommandFailed, match=r"'false' in c: exit status 1"):
        sleeper.run(["false"])
    with pytest.raises(CommandFailed, match=r"no program 'nosuch' there"):
        sleeper.run(["nosuch"])
    with pytest.raises(CommandFailed, match=r"killed after 0.5 s"):
        sleeper.run(["sleep", "1000"], timeout_s=0.5)
    with pytest.raises(CommandFailed, match=r"killed after 0.5 s"):  # nobody reads what it is given
        sleeper.run(["sleep", "1000"], input=bytes(20_000_000), timeout_s=0.5)
    with pytest.raises(BadInput, match=r"write \['ls', '/'\]"):
        sleeper.run("ls /")
    assert "sleep 1000" in sleeper.run(["ps"]).stdout
    assert sleeper.run(["ps"]).stdout.count("sleep 1000") == 1, "the one that was killed has gone"


def test_background_commands(sleeper: Any) -> None:
    child = sleeper.spawn(["sh", "-c", "trap 'echo bye; exit 4' TERM; echo up; while true; do sleep 0.05; done"])
    child.wait_for("up")
    assert child.running
    ended = child.stop()
    assert (ended.returncode, ended.stdout) == (4, "up\nbye\n")
    left = sleeper.spawn(["sh", "-c", "sleep 1000 & echo started"])
    assert left.wait(10).returncode == 0, "a child that holds the output delays nobody"


def test_files_and_changes(sleeper: Any) -> None:
    sleeper.write_file("/www/new", "text", mode=0o600)
    assert sleeper.read_file("/www/new") == b"text"
    assert sleeper.run(["stat", "-c", "%a", "/www/new"]).stdout == "600\n"
    sleeper.run(["rm", "/www/index.html"])
    assert sleeper.changes() == {"/www": "changed", "/www/new": "added", "/www/index.html": "deleted"}
    with pytest.raises(BadInput, match=r"no file '/nosuch' in the container c"):
        sleeper.read_file("/nosuch")
    with pytest.raises(BadInput, match=r"'/www' in the container c cannot be read: it is no regular file"):
        sleeper.read_file("/www")
    with pytest.raises(BadInput, match=r"'/www' cannot be written in the container c\w*: Is a directory"):
        sleeper.write_file("/www", "")
    with pytest.raises(BadInput, match=r"'/nosuch/x' cannot be written in the container c\w*: No such file"):
        sleeper.write_file("/nosuch/x", "")


def test_files_of_a_container_that_has_ended(infra_container: Any, busybox: Any) -> None:
    ended = infra_container(busybox, ["true"], wait=ready.exited(0))
    ended.write_file("/www/new", "text")
    assert ended.read_file("/www/new") == b"text"
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        ended.read_file("/www")
    with pytest.raises(BadInput, match="no file '/nosuch'"):
        ended.read_file("/nosuch")


def test_volumes(infra_container: Any, busybox: Any, tmp_path: Any) -> None:
    (tmp_path / "seen").write_text("from outside")
    volumes = {"/host": Bind(tmp_path, read_only=True), "/shared": Volume("shared"), "/memory": Tmpfs("1 MiB")}
    one = infra_container(busybox, ["sleep", "1000"], volumes=volumes)
    assert one.run(["cat", "/host/seen"]).stdout == "from outside"
    with pytest.raises(CommandFailed, match="Read-only file system"):
        one.run(["touch", "/host/x"])
    with pytest.raises(CommandFailed, match="No space left"):
        one.run(["dd", "if=/dev/zero", "of=/memory/x", "bs=1M", "count=2"])
    one.run(["sh", "-c", "echo kept >/shared/x; rm /memory/x"])
    one.write_file("/memory/y", "seen")
    assert one.run(["cat", "/memory/y"]).stdout == "seen"
    with pytest.raises(BadInput, match="No space left on device"):
        one.write_file("/memory/z", b"x" * (2 << 20))
    with pytest.raises(BadInput, match="Read-only file system"):
        one.write_file("/host/x", "")
    assert one.read_file("/proc/1/comm") == b"sleep\n"
    two = infra_container(busybox, ["cat", "/shared/x"], volumes={"/shared": Volume("shared")}, wait=ready.exited())
    assert two.logs() == "kept\n"


def test_limits_act(infra_container: Any, busybox: Any) -> None:
    small = infra_container(busybox, ["sleep", "1000"], memory="16 MiB", pids=8, cpus=0.5, read_only=True)
    host = f"/sys/fs/cgroup/memory{group(small, 'memory')}"
    if os.path.exists(host):
        with open(f"{host}/memory.limit_in_bytes", encoding="ascii") as limit:
            assert int(limit.read()) == 16 << 20
    with pytest.raises(CommandFailed, match="Read-only file system"):
        small.run(["touch", "/x"])
    with pytest.raises(CommandFailed, match="can't fork"):
        small.run(["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done"])


def group(container: Any, controller: str) -> str:
    with open(f"/proc/{container.pid}/cgroup", encoding="ascii") as groups:
        return next(line.split(":")[2].strip() for line in groups if controller in line.split(":")[1].split(","))


def test_out_of_memory_is_named(lab: Any, busybox: Any) -> None:
    # The shell outlives it for a moment: an engine may miss that of a group which is gone at once.
    eat = ["sh", "-c", "echo eating; tail /dev/zero; status=$?; sleep 1; exit $status"]
    lab.container(busybox, eat, name="eater", memory="16 MiB", wait=ready.port(80))
    with pytest.raises(StartFailed) as failed:
        lab.up()
    text = str(failed.value)
    assert re.search(r"state +exited with status 137 \(SIGKILL\) \(out of memory\)", text)
    assert re.search(r"log +eating", text)
    assert "raise memory=" in text


def test_an_end_while_waiting_is_told_at_once(lab: Any, busybox: Any) -> None:
    lab.container(busybox, ["sh", "-c", "echo cannot >&2; exit 7"], name="broken", wait=ready.port(80), within="60 s")
    with pytest.raises(StartFailed) as failed:
        lab.up()
    expected = r"""container broken \(declared at test_container.py:\d+\) is not ready
  why        it ended while waited for: TCP port 80 open; nothing listens on it; open are none
  state      exited with status 7
  log        cannot
  next       its command ended by itself: its log says why"""
    assert re.fullmatch(expected, str(failed.value))


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (ready.port(81), "TCP port 81 open; nothing listens on it; open are 80"),
        (ready.log("never"), "log line 'never'; seen 0 times"),
        (ready.http(80, "/nosuch"), "HTTP status 200 for /nosuch on port 80; 404"),
        (ready.exited(), "ended with status 0; running"),
        (
            ready.all_of(ready.port(80), ready.port(81)),
            "TCP port 80 open and TCP port 81 open; TCP port 81 open: nothing",
        ),
        (
            ready.any_of(ready.port(81), ready.port(82)),
            "TCP port 81 open or TCP port 82 open; TCP port 81 open: nothing",
        ),
    ],
    ids=str,
)
def test_a_wait_that_fails_says_what_is_missing(infra_container: Any, busybox: Any, condition: Any, words: str) -> None:
    web = infra_container(busybox, HTTPD, wait=ready.port(80))
    with pytest.raises(StartFailed, match=re.escape(f"waited 0.2 s for: {words}")):
        web.wait_for(condition, within_s=0.2)


@pytest.mark.parametrize(
    ("command", "condition", "words"),
    [
        (
            ["sh", "-c", "exit 3"],
            ready.exited(),
            "it ended while waited for: ended with status 0; exited with",
        ),
        (["sh", "-c", "exit 3"], ready.any_of(ready.exited(), ready.port(80)), "it ended while waited for: ended with"),
        (["sleep", "1000"], ready.healthy(), "this cannot come true: healthy; it has no health command"),
        (["sleep", "1000"], ready.all_of(ready.healthy(), ready.port(80)), "this cannot come true: healthy and TCP"),
    ],
    ids=str,
)
def test_what_cannot_come_true_is_not_waited_for(
    infra_container: Any, busybox: Any, command: list[str], condition: Any, words: str
) -> None:
    with pytest.raises(StartFailed, match=re.escape(words)):
        infra_container(busybox, command, wait=condition, within="90 s")


@pytest.mark.parametrize("answers", ["sleep 1000", "while sleep 0.1; do printf x; done"])
def test_an_answer_that_does_not_come_is_not_waited_for_longer(
    infra_container: Any, busybox: Any, answers: str
) -> None:
    serve = f"printf '#!/bin/sh\n{answers}\n' >/serve; chmod +x /serve; exec nc -ll -p 80 -e /serve"
    web = infra_container(busybox, ["sh", "-c", serve], wait=ready.port(80))
    began = time.monotonic()
    with pytest.raises(StartFailed, match=r"waited 0\.5 s for: HTTP status 200 for / on port 80; "):
        web.wait_for(ready.http(80), within_s=0.5)
    assert time.monotonic() - began < 4


def test_a_program_that_is_not_in_the_image(lab: Any, busybox: Any) -> None:
    lab.container(busybox, ["nosuchprogram", "1"], name="c")
    with pytest.raises(StartFailed, match=r"next +its command cannot be run: see that the program is in the image"):
        lab.up()


def test_waits_that_hold(infra_container: Any, busybox: Any) -> None:
    health = Health(["wget", "-q", "-O", "-", "http://127.0.0.1/index.html"], interval="100 ms")
    both = ready.all_of(ready.port(80), ready.healthy(), ready.any_of(ready.port(81), ready.http(80, "/index.html")))
    web = infra_container(busybox, ["sh", "-c", "echo ready; exec " + " ".join(HTTPD)], health=health, wait=both)
    web.wait_for(ready.log("^ready$"))
    assert web.state.health == "healthy"


def test_an_unhealthy_container_says_why(lab: Any, busybox: Any) -> None:
    health = Health(["sh", "-c", "echo no disk; exit 1"], interval="50 ms", retries=1)
    lab.container(busybox, ["sleep", "1000"], health=health, wait=ready.healthy(), within="3 s")
    with pytest.raises(StartFailed, match=r"its health command fails: no disk"):
        lab.up()


def test_the_engine_restarts_it(lab: Any, busybox: Any) -> None:
    flaky = ["sh", "-c", "test -e /once && exec sleep 1000; touch /once; exit 1"]
    node, peer = lab.container(busybox, flaky, restart="on-failure:3"), lab.host()
    lab.link(node, peer)
    lab.up()
    node.wait_for(ready.any_of(ready.log("never"), _Restarted()), within_s=20)
    assert node.state.restarts == 1
    assert_reachable(peer, node)


class _Restarted(ready.Condition):
    def look(self, node: Any) -> str:
        state = node.state
        return "" if state.running and state.restarts else str(state)


def test_life(sleeper: Any) -> None:
    assert sleeper.state.running
    sleeper.pause()
    assert sleeper.state.status == "paused"
    sleeper.unpause()
    with pytest.raises(WaitTimeout, match=r"the end of c: not within 0\.1 s"):
        sleeper.wait(0.1)
    sleeper.kill("SIGKILL")
    assert sleeper.wait(5) == 137
    with pytest.raises(StartFailed, match="does not run, so nothing can be run in it"):
        sleeper.run(["true"])


def get(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
        content: bytes = answer.read()
        return content


def test_published_ports_on_dockers_bridge(lab: Any, infra_container: Any, busybox: Any) -> None:
    web = infra_container(busybox, HTTPD, network="bridge", ports=[80], wait=ready.port(80))
    outside = lab.docker_host()
    number = web.published(80)
    assert outside.call(get, number) == b"hello\n"
    assert {"docker0", "podman0"} & set(outside.interfaces)
    with pytest.raises(BadInput, match=r"is on Docker's network 'host'"):
        lab.link(outside, lab.host())
    with pytest.raises(BadInput, match=r"port 81 of c1 is not published; published are 80/tcp"):
        web.published(81)


def test_dockers_other_networks(infra_container: Any, busybox: Any, lab: Any) -> None:
    alone = infra_container(busybox, ["sleep", "1000"], network="none")
    assert list(alone.interfaces) == ["lo"]
    shared = infra_container(busybox, ["sleep", "1000"], network="host")
    assert set(shared.interfaces) == set(lab.docker_host().interfaces)
    with pytest.raises(BadInput, match=r"is on Docker's network 'none'; a link needs one on the lab's"):
        lab.link(alone, lab.host())


def test_the_log_does_not_grow_beyond_its_limit(infra_container: Any, busybox: Any) -> None:
    node = infra_container(busybox, ["sh", "-c", "yes | head -c 3000000"], log_limit="200 kB", wait=ready.exited())
    assert 0 < len(node.logs()) <= 200_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "red"}, "a container has no option colour; there are env, "),
        ({"restart": "sometimes"}, "restart 'sometimes' is not allowed; allowed are no, always"),
        ({"volumes": {"data": Tmpfs()}}, "the path 'data' of a volume in the container must begin with '/'"),
        ({"volumes": {"/data": "/data"}}, "'/data' cannot be mounted at /data; give a Bind, a Volume or a Tmpfs"),
        ({"ports": [80]}, "ports are published on Docker's networks only"),
        ({"ports": ["x"], "network": "bridge"}, "port 'x' cannot be published"),
        ({"ports": [70000], "network": "bridge"}, "port 70000 cannot be published; give a number to 65535"),
        ({"ports": "80", "network": "bridge"}, "ports is a list, not a text: write ['80']"),
        ({"cpus": 0}, "cpus 0 is not allowed; give a number from 0.01 to 10000"),
        ({"cpus": "two"}, "cpus 'two' is not allowed"),
        ({"pids": -5}, "pids -5 is not allowed; give a whole number from 1 to 4194304"),
        ({"cpu_shares": 1}, "cpu_shares 1 is not allowed; give a whole number from 2 to 262144"),
        ({"cpuset": "all"}, "cpuset 'all' is no list of CPUs"),
        ({"entrypoint": "sh -c"}, "entrypoint is a list, not a text: write ['sh -c']"),
        ({"env": ["A=1"]}, "env is a mapping, {NAME: VALUE}; got ['A=1']"),
        ({"env": {"A": None}}, "env {'A': None} is no variable"),
        ({"health": "true"}, "health 'true' is no health command"),
        ({"hostname": "a b"}, "hostname 'a b' is not allowed"),
        ({"workdir": "data"}, "workdir 'data' must begin with '/'"),
        ({"memory": "1 MiB"}, "memory '1 MiB' is too little: Docker needs at least 6 MiB"),
        ({"wait": "80"}, "'8' is nothing to wait for; give a condition of pytest_infra.ready"),
        ({"name": "much-too-long-a-name"}, "much-too-long-a-name"),
    ],
)
def test_bad_options_are_refused(lab: Any, busybox: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        lab.container(busybox, **options)


def test_an_image_that_is_not_there(lab: Any) -> None:
    lab.container("nosuch:1", name="x")
    with pytest.raises(StartFailed, match=r"(?si)container x \(declared at .*no such image.*infra_image.pull"):
        lab.up()


def test_a_container_that_cannot_be_made_has_no_evidence(lab: Any) -> None:
    node = lab.container("nosuch:1", name="x")
    with pytest.raises(StartFailed):
        lab.up()
    assert list(node.diagnose()) == []


def test_nothing_is_left_of_a_lab(lab_factory: Any, infra: Any, busybox: Any, nothing_left: Any) -> None:
    with lab_factory() as lab:
        node, peer = lab.container(busybox, HTTPD, wait=ready.port(80), volumes={"/v": Volume("v")}), lab.host()
        lab.link(node, peer)
        node.run(["true"])
        identity = node.id
    engine = infra.engine()
    assert identity not in {item["Id"] for item in engine.ask("containers", all=True)}
    assert engine.ask("volumes", filters={"label": [f"pytest-infra.lab={lab.name}"]})["Volumes"] == []
