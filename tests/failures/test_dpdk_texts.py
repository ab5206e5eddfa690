"""What a check says of DPDK processes: for each cause a lab that works, the same lab with that cause, and the text.

The texts are in __snapshots__; ``pytest --snapshot-update`` writes them anew.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest
from breaking import normal
from syrupy.assertion import SnapshotAssertion

from pytest_infra import assert_forwarded, assert_no_drops, measure_forwarding
from pytest_infra.checks import assert_reachable, measure_reach
from pytest_infra.checks.forwarding import ForwardingReport
from pytest_infra.core.errors import CheckFailed
from pytest_infra.core.wait import until
from pytest_infra.dpdk.faults import faults_of
from pytest_infra.dpdk.telemetry import PortStatistics, Statistics
from pytest_infra.lab import Lab

LAB = "dpdk"

pytestmark = [pytest.mark.infra, pytest.mark.infra_requires("dpdk")]


@pytest.fixture
def two(lab: Lab) -> tuple[Any, Any, Any]:
    a, b = lab.host("a"), lab.host("b")
    d = lab.dpdk("d", ports=[a, b])
    quiet(a, b)
    return a, b, d


def quiet(*hosts: Any) -> None:
    """Without IPv6 a host sends nothing of its own accord."""
    for host in hosts:
        host.sysctl["net.ipv6.conf.all.disable_ipv6"] = "1"


def words(text: str) -> str:
    """The text without what differs from machine to machine."""
    text = re.sub(r"(\n +testpmd  .*)+", "\n  <its last lines>", normal(text))
    text = re.sub(r"core dump goes to .*", "core dump goes to <core pattern>", text)
    text = re.sub(r"run on [\d, ]+, and was given core \d+", "run on <cores>, and was given core <n>", text)
    text = re.sub(r"\d+ are gone", "<n> are gone", text)
    return re.sub(r"\b(received|sent) [1-9]\d*\b", r"\1 <n>", text)


def killed(d: Any) -> None:
    os.kill(d.process.child.pid, signal.SIGSEGV)
    until(lambda: not d.running, within_s=10, what="it has ended")


def moved(d: Any) -> None:
    """Each thread that is bound to one CPU goes to another one; which it was given depends on who else has some."""
    for task in map(int, os.listdir(f"/proc/{d.process.child.pid}/task")):
        if len(bound := os.sched_getaffinity(task)) == 1:
            os.sched_setaffinity(task, {min(os.sched_getaffinity(0) - bound)})
    d.stop_forwarding()


BREAKINGS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "ended": ("dpdk-ended", killed),
    "stopped": ("dpdk-stopped", lambda d: d.stop_forwarding()),
    "wrong cores": ("dpdk-cores", moved),
}


@pytest.mark.parametrize("name", BREAKINGS)
def test_on_the_way(two: tuple[Any, Any, Any], name: str, snapshot: SnapshotAssertion) -> None:
    a, b, d = two
    assert_reachable(a, b, within="5 s")
    kind, breaks = BREAKINGS[name]
    if kind == "dpdk-cores" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU: there is no wrong core")
    breaks(d)
    report = measure_reach(a, b, within="200 ms")
    assert report.autopsy is not None
    assert report.autopsy.finding is not None, report.explain()
    assert (report.autopsy.finding.kind, report.autopsy.finding.node) == (kind, "d"), report.explain()
    assert words(report.explain()) == snapshot


def test_nothing_is_forwarded(two: tuple[Any, Any, Any], snapshot: SnapshotAssertion) -> None:
    a, b, d = two
    assert_reachable(a, b, within="5 s")
    assert_forwarded(d, at_least=2)
    before = d.statistics()
    with pytest.raises(CheckFailed) as nothing_came:
        assert_forwarded(d, since=before, at_least=1, within="10 ms")
    d.stop_forwarding()
    with pytest.raises(CheckFailed) as stopped:
        assert_forwarded(d, since=before, at_least=5, into=1, within="10 ms")
    killed(d)
    with pytest.raises(CheckFailed) as ended:
        assert_forwarded(d, within="10 ms")
    texts = [words(str(error.value)) for error in (nothing_came, stopped, ended)]
    assert "\n\n".join(texts) == snapshot


def test_what_is_received_is_not_sent(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    d = lab.dpdk("d", ports=[a, b], forward="rxonly")
    quiet(a, b)
    before = d.statistics()
    flood(a, 20)
    assert until(lambda: d.statistics().since(before).received >= 20, within_s=10, what="they are there")
    with pytest.raises(CheckFailed) as kept:
        assert_no_drops(d, since=before, within="10 ms")
    assert_no_drops(d, since=before, all_sent=False)
    assert words(str(kept.value)) == snapshot


def flood(host: Any, count: int) -> None:
    """Send frames that nobody answers."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for _ in range(count):
                raw.send(b"\x02" * 6 + b"\x02\0\0\0\0\x01\x88\xb6" + bytes(50))

    host.call(send)


def lost(text: str) -> str:
    """The text without how many, and without who else has the core; a kernel may send frames of its own, too."""
    text = re.sub(r": its core is not its own: .*", "", words(text))
    text = re.sub(r"\b(received|sent) (0|<n>)", r"\1 <n>", text).replace("empty once", "empty 1 times")
    return re.sub(r"\b\d+( packets?| missed| without buffer| times)\b", r"<n>\1", text)


@pytest.mark.parametrize("vdev", ["af_packet", "af_xdp", "pcap", "tap"])
def test_packets_that_nobody_takes(lab: Lab, vdev: str, snapshot: SnapshotAssertion) -> None:
    a, b = lab.host("a"), lab.host("b")
    d = lab.dpdk("d", ports=[a, b], vdev=vdev)
    quiet(a, b)
    assert_no_drops(d, all_sent=False)
    d.stop_forwarding()
    before = d.statistics()
    flood(a, 12_000)
    d.start_forwarding()
    with pytest.raises(CheckFailed) as missed:
        assert_no_drops(d, since=before, within="500 ms", all_sent=False)
    assert d.statistics().since(before).ports[0].rx_missed > 0
    assert lost(str(missed.value)) == snapshot
    assert_no_drops(d, since=d.statistics(), all_sent=False)


def test_a_pool_without_buffers(lab: Lab, snapshot: SnapshotAssertion) -> None:
    """An application that holds on to what it has received, and does not send it."""
    a, b = lab.host("a"), lab.host("b")
    keeps = ["--noisy-tx-sw-buffer-size=16384", "--noisy-tx-sw-buffer-flushtime=60000"]
    d = lab.dpdk("d", ports=[a, b], vdev="pcap", forward="noisy", buffers=1100, arguments=keeps)
    quiet(a, b)
    before = d.statistics()
    flood(a, 500)
    assert_no_drops(d, since=before, all_sent=False)
    flood(a, 1500)
    until(lambda: d.statistics().ports[0].rx_no_buffers, within_s=10, what="the pool is empty")
    with pytest.raises(CheckFailed) as empty:
        assert_no_drops(d, since=before, within="100 ms", all_sent=False)
    assert lost(str(empty.value)) == snapshot


def test_a_port_without_link_and_one_that_is_stopped(two: tuple[Any, Any, Any], snapshot: SnapshotAssertion) -> None:
    a, b, d = two
    assert_reachable(a, b, within="5 s")
    before = d.statistics()
    b.ports[0].down()
    until(lambda: d.faults(before), within_s=5, what="it is seen")
    with pytest.raises(CheckFailed) as cut:
        assert_forwarded(d, since=before, at_least=1000, within="10 ms")
    b.ports[0].up()
    d.stop_forwarding()
    d.console("port stop 1")
    d.start_forwarding()
    with pytest.raises(CheckFailed) as stopped:
        assert_forwarded(d, since=before, at_least=1000, within="10 ms")
    assert "\n\n".join(words(str(error.value)) for error in (cut, stopped)) == snapshot


QUIET = {
    "what": "testpmd in d", "end": "", "last_words": "", "core_pattern": "", "forwarding": True,
    "shared_cores": ("core 1: held by process 7 (pytest)",), "wrong_cores": (), "no_carrier": frozenset(),
}  # fmt: skip


def port(**counters: Any) -> PortStatistics:
    names = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_missed", "rx_errors", "tx_errors", "rx_no_buffers")
    return PortStatistics(0, "net_af_packet0", **{**dict.fromkeys(names, 0), "rx_packets": 10, **counters})


LOSSES = {
    "missed on a core that others use": {"rx_missed": 34},
    "errors": {"tx_errors": 3, "rx_errors": 1},
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str, snapshot: SnapshotAssertion) -> None:
    """Counters that a lab cannot be made to show at will: the text of those that a driver would report."""
    now = Statistics((port(**LOSSES[name]),))
    faults = tuple(faults_of(now=now, before=Statistics(()), **QUIET))  # type: ignore[arg-type]
    report = ForwardingReport("d", now.ports, faults, wanted="no loss", no_loss=True, waited_s=1)
    assert not report.ok
    assert report.explain() == snapshot
    clean = Statistics((port(),))
    assert faults_of(now=clean, before=Statistics(()), **QUIET) == []  # type: ignore[arg-type]
    assert ForwardingReport("d", clean.ports, (), no_loss=True).ok


def test_a_report_is_json(two: tuple[Any, Any, Any]) -> None:
    a, b, d = two
    assert_reachable(a, b, within="5 s")
    found = measure_forwarding(d).to_dict()
    assert found["kind"] == "forwarding"
    assert len(found["ports"]) == 2  # type: ignore[arg-type]
