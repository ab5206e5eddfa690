"""Nothing is left on the machine, however a run ends: five seconds later at most, without ``pytest-infra clean``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_infra.session import Infra
from pytest_infra.vm.kernel import KERNEL, find_kernel

CONFTEST = '''
"""Labs with all that could be left behind: daemons, a switch with daemons of its own, files, control groups."""
import os, sys
from pathlib import Path
import pytest

FOLDER = Path(__file__).parent
DAEMON = """
import os, signal, time
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os._exit(0)
"""

def pytest_configure(config):
    (FOLDER / "pids").mkdir(exist_ok=True)
    (FOLDER / "pids" / str(os.getpid())).touch()
    if not hasattr(config, "workerinput"):
        (FOLDER / "pytest").write_text(str(os.getpid()))

@pytest.fixture
def containers(infra, lab):
    from pytest_infra import Volume
    from pytest_infra.container.requirement import DOCKER
    if not DOCKER.probe():
        return
    image = infra.images.scratch(["busybox"])
    web = lab.container(image, ["httpd", "-f"], name="web", volumes={"/v": Volume("v")}, memory="32 MiB")
    lab.container(image, ["sleep", "600"], name="bridged", network="bridge", ports=[80], restart="always")
    lab.link(web, lab.host())
    lab.up()
    web.spawn(["sleep", "600"])

@pytest.fixture
def routed_lab(lab):
    """Routing daemons, name servers, a load balancer, services, where they are installed: DAEMONS says which."""
    from pytest_infra.core.programs import PROGRAMS
    from pytest_infra.net.frr import FRR
    router = lab.router("plain")
    lab.link(router, lab.host())
    if all(item.probe() for item in FRR):
        lab.link(router, lab.router("frr", daemons=["ospfd"], config="router ospf"))
    if PROGRAMS["keepalived"].probe():
        config = FOLDER / f"keepalived-{os.getpid()}-{lab.name}"
        instance = ["interface eth0", "virtual_router_id 1", "virtual_ipaddress {", "10.9.9.9", "}"]
        config.write_text("\\n".join(["vrrp_instance x {", *instance, "}"]))
        files = [f"--pid={config}.pid", f"--vrrp_pid={config}.vrrp", f"--checkers_pid={config}.checkers"]
        router.spawn(["keepalived", "--dont-fork", f"--use-file={config}", *files])
    if PROGRAMS["haproxy"].probe():
        config = FOLDER / f"haproxy-{os.getpid()}-{lab.name}"
        lines = ["defaults", " timeout client 9s", " timeout connect 9s", " timeout server 9s"]
        lines += ["listen web", " mode tcp", " bind :8080", " server one 198.18.0.2:80", ""]
        config.write_text(chr(10).join(lines))
        router.spawn(["haproxy", "-W", "-db", "-f", config])
    from pytest_infra.net.dns import DNSMASQ
    if DNSMASQ.probe():
        lab.link(lab.dns("names", domain="lab.test"), router)
        router.advertise(router.ports[0].link)
    from pytest_infra.net.nft import NFT
    if NFT.probe():
        lab.service("web", [lab.nodes["h1"]], port=80)
    from pytest_infra.net.uplink import PASTA
    if NFT.probe():
        world = lab.host("world")
        lab.link(world, lab.host(), ip="203.0.113.1/24", peer_ip="203.0.113.2/24")
        world.spawn(["sleep", "600"])
        world.run(["ip", "route", "add", "default", "via", "203.0.113.2"])
        for via in ("masquerade", *(["pasta"] if PASTA.probe() else [])):
            lab.uplink(lab.host(), outside=world, via=via)
    lab.up()
    (FOLDER / "daemons").write_text(" ".join(running_below(lab)))
    return lab

def running_below(lab):
    """The names of the processes in the lab's guard, as /proc there has them, and the routing daemons."""
    said = lab.nodes["plain"].run(["sh", "-c", "cat /proc/[0-9]*/comm"], check=False).stdout
    frr = getattr(lab.nodes.get("frr"), "started_daemons", {})
    return sorted({*said.split(), *(name for name, daemon in frr.items() if daemon.running)})

@pytest.fixture
def daemons_lab(infra, lab, containers):
    a, b, c = lab.host("a"), lab.router("b"), lab.host("c", isolate=["pid", "mount"])
    sw1, sw2 = lab.ovs("sw1"), lab.bridge("sw2")
    lab.link(a, sw1)
    lab.link(b, sw1)
    lab.link(b, sw2)
    lab.link(c, sw2)
    lab.link(a, c, rate="10 Mbit/s", delay="5 ms")  # by a relay of ours where the kernel has no netem
    for host in (a, c):
        host.run([sys.executable, "-c", DAEMON])
        host.spawn(["sleep", "600"])
    a.spawn([sys.executable, "-m", "http.server", "8000"])
    leased = FOLDER / f"leased-{os.getpid()}-{lab.name}"
    infra.lease.add("directory", path=str(leased))
    leased.mkdir()
    (leased / "file").touch()
    return lab

@pytest.fixture
def busy_lab(daemons_lab, infra):
    """Control groups too, nested, with a frozen one, where this user may make some."""
    from pytest_infra.cgroup.requirement import CGROUP
    if not CGROUP.probe():
        yield daemons_lab
        return
    limited = daemons_lab.cgroup("busy", daemons_lab.nodes["a"], memory_max="64 MiB")
    daemons_lab.nodes["a"].run([sys.executable, "-c", DAEMON])
    with infra.cgroup("outer") as outer:
        inner = outer.nest("inner")
        inner.spawn(["sleep", "600"])
        inner.run(["sh", "-c", "setsid sleep 600 &"])
        inner.freeze()
        yield daemons_lab

@pytest.fixture
def dpdk_lab(infra, lab):
    """testpmd with huge pages on two kinds of devices, and an Open vSwitch on DPDK, all of them forwarding."""
    from pytest_infra import assert_reachable
    from pytest_infra.dpdk.requirement import AF_XDP, HUGEPAGES, TESTPMD
    from pytest_infra.net.ovs_requirements import OVS_DPDK
    if not (TESTPMD.probe() and OVS_DPDK.probe()):
        return
    a, b, c = lab.host("a"), lab.host("b"), lab.host("c")
    d = lab.dpdk("d", ports=["tap", "af_xdp" if AF_XDP.probe() else "af_packet"],
                 hugepages="128 MiB" if HUGEPAGES.probe() else False)
    lab.link(a, d)
    lab.link(b, d)
    sw = lab.ovs("sw", dpdk=True)
    lab.link(b, sw)
    lab.link(c, sw)
    assert_reachable(a, b, within="10 s")
    assert_reachable(b, c, within="10 s")

def wait_for_the_signal():
    """Once: a run that goes on after it must be able to end."""
    import threading
    try:
        (FOLDER / "claimed").touch(exist_ok=False)
    except FileExistsError:
        return
    (FOLDER / "worker").write_text(str(os.getpid()))
    (FOLDER / "ready").touch()
    threading.Event().wait(60)

@pytest.fixture
def wait():
    return wait_for_the_signal

@pytest.fixture
def lab_that_waits(busy_lab):
    wait_for_the_signal()
'''

PASSING = "def test_passes(busy_lab): pass"
FAILING = """
    import pytest

    @pytest.fixture
    def broken(busy_lab):
        raise RuntimeError("wanted")

    def test_set_up_fails(broken): pass
    def test_fails(lab):
        lab.ovs("sw1").show()
        raise AssertionError("wanted")
"""
WAITS_IN_SET_UP = "def test_waits(lab_that_waits): pass"
WAITS = "def test_waits(busy_lab, wait): wait()"
WAITS_WITH_ROUTERS = "def test_waits(routed_lab, wait): wait()"
WAITS_IN_DPDK = "def test_waits(dpdk_lab, wait): wait()"
WAITS_AMONG_OTHERS = """
    import pytest

    @pytest.mark.parametrize("number", range(4))
    def test_waits(busy_lab, wait, number): wait()
"""

CASES = {
    "a passing suite": (PASSING, "none", "", [], 0),
    "a failing suite": (FAILING, "none", "", [], 1),
    "SIGINT in set-up": (WAITS_IN_SET_UP, "SIGINT", "pytest", [], 2),
    "SIGINT in the test": (WAITS, "SIGINT", "pytest", [], 2),
    "SIGTERM": (WAITS, "SIGTERM", "pytest", [], 128 + 15),
    "SIGHUP": (WAITS, "SIGHUP", "pytest", [], 128 + 1),
    "SIGKILL": (WAITS, "SIGKILL", "pytest", [], -9),
    "SIGKILL with DPDK": (WAITS_IN_DPDK, "SIGKILL", "pytest", [], -9),
    "SIGTERM with DPDK": (WAITS_IN_DPDK, "SIGTERM", "pytest", [], 128 + 15),
    "SIGKILL in set-up": (WAITS_IN_SET_UP, "SIGKILL", "pytest", [], -9),
    "SIGKILL of a worker": (WAITS_AMONG_OTHERS, "SIGKILL", "worker", ["-n2"], 1),
    "SIGKILL of the controller": (WAITS_AMONG_OTHERS, "SIGKILL", "pytest", ["-n2"], -9),
}


SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PRIVATE_RUN = [
    "unshare",
    "--mount",
    "--propagation=private",
    "sh",
    "-c",
    'mount -t tmpfs tmpfs /run && exec "$@"',
    "sh",
]


def census(
    pytester: pytest.Pytester, case: tuple[str, str, str, list[str], int], before: Sequence[str] = ()
) -> dict[str, Any]:
    """Run a suite, do to it what the case says, and return what the census found."""
    suite, name, target, arguments, _ = case
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=suite)
    script = Path(__file__).with_name("census.py")
    argv = [*before, sys.executable, str(script), str(pytester.path), name, target or "-", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_nothing_is_left_of_other_peoples_daemons(pytester: pytest.Pytester) -> None:
    """FRR, dnsmasq, haproxy and keepalived: those that are installed were running when pytest was killed."""
    found = census(pytester, (WAITS_WITH_ROUTERS, "SIGKILL", "pytest", [], -9))
    assert found["left"] == [], found["output"]
    assert found["status"] == -9, found["output"]
    there = {name for name in ("keepalived", "haproxy", "dnsmasq") if shutil.which(name, path=SBIN)}
    there |= {"zebra", "ospfd"} if Path("/usr/lib/frr/ospfd").exists() else set()
    assert there <= set((pytester.path / "daemons").read_text().split())


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left(pytester: pytest.Pytester, case: str) -> None:
    found = census(pytester, CASES[case])
    assert found["left"] == [], found["output"]
    assert found["status"] == CASES[case][-1], found["output"]


ON_ANOTHER_KERNEL = """
    import os, platform

    def test_waits(lab, wait):
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b)
        a.spawn(["sleep", "600"])
        assert platform.release() in os.environ["PYTEST_INFRA_GUEST"]
        wait()
"""

CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
GUESTS = """
    def test_waits(lab, wait):
        from pytest_infra import UserNic, VdeNic
        vm, a, sw1 = lab.vm(accel="tcg", nics=[VdeNic(), UserNic()]), lab.host("a"), lab.ovs("sw1")
        for node in (vm, a):
            lab.link(node, sw1)
        vm.spawn(["sleep", "600"])
        wait()
"""


@pytest.mark.timeout(600)
def test_nothing_is_left_of_guests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)
    KERNEL.demand()
    with Infra() as infra, infra.lab() as lab:  # the first guest of its kind makes a snapshot, which takes a while
        lab.vm(accel="tcg")
        lab.up()
    found = census(pytester, (GUESTS, "SIGKILL", "pytest", [], -9))
    assert found["left"] == [], found["output"]
    assert found["status"] == -9, found["output"]


@pytest.mark.timeout(900)
def test_nothing_is_left_of_a_run_on_another_kernel(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)
    KERNEL.demand()
    arguments = [f"--infra-kernel={find_kernel().name}", f"--infra-artifacts-dir={pytester.path}"]  # guests share it
    pytester.makepyfile("import pytest\n@pytest.mark.infra\ndef test_it(): pass")
    first = pytester.runpytest_subprocess("--infra", *arguments)  # makes the snapshot of this kind of guest
    first.assert_outcomes(passed=1)
    found = census(pytester, (ON_ANOTHER_KERNEL, "SIGKILL", "pytest", arguments, -9))
    assert found["left"] == [], found["output"]
    assert found["status"] == -9, found["output"]


LEAVES_A_PROCESS = """
    import subprocess

    def test_leaves(busy_lab):
        subprocess.Popen(["sleep", "599"], start_new_session=True)
"""
LEAVES_FILES = """
    import os, signal
    import psutil

    def test_leaves(daemons_lab):
        for child in psutil.Process().children():
            if "pytest-infra-reaper" in child.cmdline():
                child.kill()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_census_sees_a_process(pytester: pytest.Pytester) -> None:
    (left,) = census(pytester, (LEAVES_A_PROCESS, "none", "", [], 0))["left"]
    assert left.startswith("process ")
    assert left.endswith(" sleep 599")


def test_the_census_sees_files_that_only_a_sweep_removes(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # where no other session can do the sweep meanwhile: root's run directory is below /run, a user's where we say
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(pytester.path))
    before = PRIVATE_RUN if os.geteuid() == 0 else []
    left = census(pytester, (LEAVES_FILES, "none", "", [], -9), before)["left"]
    assert {text.split()[0] for text in left} == {"file", "leased"}
    assert list(pytester.path.glob("leased-*")) != []
