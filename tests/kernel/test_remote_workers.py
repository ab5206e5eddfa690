"""One suite over several machines, by pytest-xdist's remote workers: the machines are hosts of a lab that run sshd."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pytest_infra import assert_reachable
from pytest_infra.core.programs import PROGRAMS
from pytest_infra.lab import Lab
from pytest_infra.net.host import Host

ROOT = Path(__file__).parents[2]
SUITE = """
import socket, time
import pytest
from pytest_infra import assert_reachable

@pytest.fixture
def stay(record_property):
    record_property("machine", socket.gethostname())
    record_property("began", time.monotonic())
    yield
    record_property("ended", time.monotonic())

@pytest.mark.infra_exclusive("licence")
@pytest.mark.parametrize("number", range(6))
def test_alone(number, lab, stay):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    assert_reachable(a, b)
    time.sleep(0.3)

def test_fail(lab, stay):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b).down()
    assert_reachable(a, b)
"""
SSHD = """
AuthorizedKeysFile {folder}/key.pub
HostKey {folder}/key
PermitRootLogin yes
PidFile none
StrictModes no
UsePAM no
"""
SSH = """
Host *
  IdentityFile {folder}/key
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
"""


def machine(lab: Lab, switch: Any, name: str, folder: Path) -> Host:
    """A host with a hostname, files and locks of its own, on which sshd answers."""
    host = lab.host(name, rootfs="/", isolate=["uts"])
    lab.link(host, switch)
    host.run(["hostname", name])
    host.run(["mkdir", "-p", "/run/sshd", "/run/lock"])
    host.spawn([PROGRAMS["sshd"].path(), "-D", "-e", "-f", str(folder / "sshd_config")])
    return host


@pytest.fixture
def fleet(lab: Lab, tmp_path: Path) -> tuple[Host, list[str]]:
    """The controller, and the workers' specifications: two on each of two machines."""
    PROGRAMS["sshd"].demand()
    switch = lab.bridge("sw1")
    controller = lab.host("controller")
    lab.link(controller, switch)
    controller.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")])
    for name, text in (("sshd_config", SSHD), ("ssh_config", SSH)):
        (tmp_path / name).write_text(text.format(folder=tmp_path), encoding="ascii")
    specs = []
    for name in ("m1", "m2"):
        host = machine(lab, switch, name, tmp_path)
        assert_reachable(controller, host, protocol="tcp", port=22, within="10 s")
        address = host.ports[0].addresses[0].ip
        where = f"ssh=-F {tmp_path}/ssh_config root@{address}//python={sys.executable}//chdir={tmp_path}/there"
        specs += ["--tx", f"2*{where}"]
    return controller, specs


def run(fleet: tuple[Host, list[str]], folder: Path, *arguments: str) -> Any:
    """Run pytest on the fleet."""
    controller, specs = fleet
    argv = [sys.executable, "-m", "pytest", "--infra", "-p", "no:cacheprovider", "--dist=load", *specs, *arguments]
    return controller.run(argv, check=False, timeout_s=200, cwd=str(folder))


def facts(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Of each machine, when the tests that had to be alone there began and ended."""
    found = defaultdict(list)
    for case in ET.parse(folder / "junit.xml").iter("testcase"):
        values = {item.get("name"): item.get("value") for item in case.iter("property")}
        if case.get("name", "").startswith("test_alone"):
            found[str(values["machine"])].append((float(values["began"] or 0), float(values["ended"] or 0)))
    return {name: sorted(spans) for name, spans in found.items()}


@pytest.mark.timeout(300)
def test_two_machines_share_a_suite_and_lock_each_for_itself(fleet: tuple[Host, list[str]], tmp_path: Path) -> None:
    """The files are shipped: only the controller has them."""
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "test_suite.py").write_text(SUITE, encoding="utf-8")
    done = run(fleet, tmp_path, f"--junitxml={tmp_path}/junit.xml", f"--rsyncdir={suite}", str(suite))
    assert "6 passed" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert "cause      a:eth0 is down" in done.stdout
    assert not (tmp_path / "there").exists()
    spans = facts(tmp_path)
    assert spans.keys() == {"m1", "m2"}
    for of_one in spans.values():  # alone on its machine
        assert all(ended <= began for (_, ended), (began, _) in pairwise(of_one))
    first, second = spans.values()  # and beside those of the other
    assert any(one[0] < other[1] and other[0] < one[1] for one in first for other in second)


@pytest.mark.timeout(300)
def test_what_a_machine_of_the_fleet_lacks_is_said_by_it(fleet: tuple[Host, list[str]], tmp_path: Path) -> None:
    """The files are shared: a folder that all machines have. The controller's own machine is not asked."""
    (tmp_path / "there").mkdir()
    test = "import pytest\n@pytest.mark.infra_requires('netmap')\ndef test_it(): pass"
    (tmp_path / "there" / "test_suite.py").write_text(test, encoding="utf-8")
    done = run(fleet, tmp_path / "there", "--infra-require=netmap")
    assert "ERROR at setup of test_it" in done.stdout, done.stdout + done.stderr
    assert "Unavailable: netmap (" in done.stdout
    assert "this machine lacks" not in done.stdout + done.stderr
