"""DPDK processes as nodes: what they are told, how they fail, what they give back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pytest_infra import (
    BadInput,
    Infra,
    Lab,
    StartFailed,
    Unavailable,
    assert_forwarded,
    assert_reachable,
    assert_unreachable,
    cut,
    measure_packet_rate,
)
from pytest_infra.core.lock import exclusive
from pytest_infra.core.wait import until
from pytest_infra.dpdk import Memif, Null, Pcap, Ring
from pytest_infra.dpdk.hugepages import CLAIMS, HugePages, _kept, give_back
from pytest_infra.dpdk.requirement import HUGEPAGES, nr_hugepages
from pytest_infra.dpdk.telemetry import TelemetryError

pytestmark = [pytest.mark.infra, pytest.mark.infra_requires("dpdk")]


@pytest.fixture
def lab(session: Infra) -> Iterator[Lab]:
    with session.lab() as started:
        yield started


def unclaimed() -> int:
    """The huge pages that the machine keeps for others: another test may have claimed some at the same time."""
    with exclusive("hugepages"):
        claims = [path for path in Path(CLAIMS).glob("*") if path.name != "before"]
        return _kept() - sum(int(path.read_text()) for path in claims)


def claims_of(pid: int) -> list[int]:
    return [int(path.read_text()) for path in Path(CLAIMS).glob(f"{pid}-*")]


BAD = {
    "no virtual device 'vhost'; there are af_packet, af_xdp, tap, memif, ring, null, pcap": {"vdev": "vhost"},
    "ports=33 cannot be used: 0 to 32": {"ports": 33},
    "ports= is a list of nodes or devices, or a number": {"ports": "af_packet"},
    "None is not a node of the lab": {"ports": [None]},
    "no program 'no-such-app'": {"app": "no-such-app"},
    "testpmd has no setting speed; there are forward, buffers, burst, start": {"speed": 1},
    "only testpmd has these settings": {"app": "true", "burst": 1},
    "memory='1 MiB' cannot be used": {"memory": "1 MiB"},
    "there is no core 4096 here; this process may use 0": {"cores": [0, 4096]},
    "the main thread's core and one for each worker": {"cores": [0]},
    "cores=0 cannot be used: 1 to 64": {"cores": 0},
    r"eal= cannot hold '--no-huge', .*; use hugepages=": {"eal": ["--no-huge"]},
    "eal= is a list of arguments": {"eal": "--log-level=8"},
    "arguments= is a list of strings": {"arguments": [1]},
    "hugepages='2 TiB' cannot be used": {"hugepages": "2 TiB"},
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_makes_nothing(lab: Lab, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        lab.dpdk(**BAD[words])  # type: ignore[arg-type]
    assert not lab.switches


def test_more_ports_than_links(lab: Lab) -> None:
    lab.dpdk("d", ports=3)
    lab.link(lab.host("a"), lab.switches["d"])
    words = r"more ports than links: 3 ports need a link \(af_packet, af_packet, af_packet\), and 1 end here"
    with pytest.raises(BadInput, match=words):
        lab.up()


def test_a_tap_device_without_the_kernels_is_told_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: object, *args: Any, **options: Any) -> int:
        if path == "/dev/net/tun":
            raise FileNotFoundError(2, "No such file or directory", path)
        return real(path, *args, **options)  # type: ignore[call-overload,no-any-return]

    lab.dpdk("d", ports=[lab.host("a")], vdev="tap")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Unavailable, match="/dev/net/tun cannot be opened: No such file or directory; modprobe tun"):
        lab.up()
    monkeypatch.undo()


def test_a_memif_wire_has_two_ends(lab: Lab) -> None:
    for name in ("d1", "d2"):
        lab.dpdk(name, ports=[Memif("w")])
    with pytest.raises(BadInput, match="a memif wire has two ends, and 'w' would be at d1, d2, d3"):
        lab.dpdk("d3", ports=[Memif("w")])


def test_capture_files_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no capture file '.*in.pcap'"):
        Pcap(rx_file=str(tmp_path / "in.pcap"))
    with pytest.raises(BadInput, match="no folder for the capture file"):
        Pcap(tx_file=str(tmp_path / "none" / "out.pcap"))


def test_an_eal_that_refuses_is_quoted(lab: Lab) -> None:
    lab.dpdk("d", ports=2, vdev=Null(), eal=["--vfio-intr=wrong"])
    with pytest.raises(StartFailed, match=r"testpmd in d has ended with status \d+(?s:.*)vfio-intr"):
        lab.up()


def test_a_driver_that_refuses_is_quoted(lab: Lab) -> None:
    lab.dpdk("d", ports=2, vdev=Null(), arguments=["--no-such-option"])
    with pytest.raises(StartFailed, match=r"unrecognized option '--no-such-option'"):
        lab.up()


def test_a_process_that_dies_leaves_its_last_words(lab: Lab) -> None:
    d = lab.dpdk("d", ports=2, vdev=Null())
    assert d.statistics().received > 0
    assert d.process.child is not None
    os.kill(d.process.child.pid, signal.SIGSEGV)
    until(lambda: not d.running, within_s=5, what="it has ended")
    with pytest.raises(TelemetryError, match=r"testpmd in d was killed by SIGSEGV\n  testpmd  "):
        d.statistics()
    assert [fault.kind for fault in d.faults()] == ["dpdk-ended"]
    assert "core dump goes to" in d.faults()[0].next
    assert any("SIGSEGV" in item.content for item in d.diagnose() if isinstance(item.content, str))


def test_what_it_says_of_itself(lab: Lab) -> None:
    d = lab.dpdk("d", ports=[Null(), Ring()], buffers=4096, start=False)
    eal = d.telemetry.eal()
    assert eal.version.startswith("DPDK ")
    assert "--no-huge" in eal.arguments
    assert 0 < eal.heap_free_bytes < eal.heap_bytes == 128 << 20
    assert ("mb_pool_0", 4096) in [(pool.name, pool.size) for pool in d.telemetry.mempools()]
    assert [port.device for port in d.statistics().ports] == ["net_null0", "net_ring1"]
    assert "port 1: ring, link up" in d.show()
    assert d.run(["ip", "-brief", "link"]).stdout.startswith("lo")
    assert [fault.kind for fault in d.faults()] == ["dpdk-stopped"]
    with pytest.raises(BadInput, match="d has no port 7; it has 0, 1"):
        d.demand("meter", port=7)


def test_threads_that_ask_at_once_get_their_own_answers(lab: Lab) -> None:
    d = lab.dpdk("d", ports=[Null(), Ring()], start=False)
    lab.up()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: [port.device for port in d.statistics().ports], range(200)))
    assert found == [["net_null0", "net_ring1"]] * 200
    with pytest.raises(TelemetryError, match="has no answer to '/ethdev/info,99'"):
        d.telemetry.port(99)


def test_packets_from_a_file_into_a_file(lab: Lab, tmp_path: Path) -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    from scapy.utils import rdpcap, wrpcap

    there, back = tmp_path / "in.pcap", tmp_path / "out.pcap"
    frames = [Ether(dst="02:00:00:00:00:01") / IP(dst="198.18.0.1") / UDP(sport=n, dport=9) / b"x" for n in range(1, 6)]
    wrpcap(str(there), frames)
    d = lab.dpdk("d", ports=[Pcap(rx_file=str(there)), Pcap(tx_file=str(back))])
    assert_forwarded(d, at_least=5, into=1, within="5 s")
    d.stop_forwarding()
    d.console("port stop all")
    d.console("port close all")
    assert [bytes(frame) for frame in rdpcap(str(back))] == [bytes(frame) for frame in frames]


def test_a_worker_that_is_moved_is_seen(lab: Lab) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    d = lab.dpdk("d", ports=2, vdev=Null(), cores=[cpus[0], cpus[-1]])
    assert d.faults() == []
    assert d.process.child is not None
    for task in os.listdir(f"/proc/{d.process.child.pid}/task"):
        os.sched_setaffinity(int(task), {cpus[0]})
    found = [fault.cause for fault in d.faults()]
    expected = [f"testpmd in d polls on the wrong cores: worker 1 may run on {cpus[0]}, and was given core {cpus[-1]}"]
    assert found == (expected if len(cpus) > 1 else [])


def test_cores_are_shared_only_where_they_must_be_and_it_is_said(lab: Lab) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with exclusive(f"core-{cpus[-1]}"):
        d = lab.dpdk("d", ports=2, vdev=Null(), cores=[cpus[0], cpus[-1]], start=False)
        assert f"shares core {cpus[-1]}: held by process {os.getpid()}" in d.show()


@pytest.mark.infra_requires("hugepages")
def test_hugepages_are_given_back(session: Infra) -> None:
    before = unclaimed()
    with session.lab() as lab:
        d = lab.dpdk("d", ports=2, vdev=Null(), hugepages="128 MiB", buffers=2048, start=False)
        assert "--huge-dir=/run/hugepages" in d.telemetry.eal().arguments
        assert claims_of(os.getpid()) == [64]
        assert unclaimed() == before
        assert int(Path(nr_hugepages(2048)).read_text()) >= 64
        assert "/run/hugepages" not in Path("/proc/mounts").read_text()
    assert unclaimed() == before
    assert claims_of(os.getpid()) == []


@pytest.mark.infra_requires("hugepages")
def test_hugepages_that_cannot_be_had(session: Infra) -> None:
    before = unclaimed()
    huge = HugePages("900 GiB", session.lease)
    with pytest.raises(Unavailable, match=r"900 GiB were asked for, and [\d.]+ [GM]iB of memory are available"):
        huge.start()
    assert unclaimed() == before


@pytest.mark.infra_requires("hugepages")
def test_hugepages_of_a_killed_session_come_back() -> None:
    before = unclaimed()
    text = """if True:
        import os, signal
        from pytest_infra import Infra
        from pytest_infra.dpdk.hugepages import HugePages
        infra = Infra().start()
        HugePages("8 MiB", infra.lease).start()
        print(os.getpid(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=60)
    pid = int(done.stdout)
    until(lambda: not claims_of(pid), within_s=20, what="the claim is gone")
    assert unclaimed() == before


def test_claims_are_named_safely() -> None:
    for claim in ("../x", "before", ""):
        with pytest.raises(BadInput, match="no claim of huge pages"):
            give_back(claim)
    if HUGEPAGES.probe():
        give_back("1-never-there")


def test_a_link_that_is_cut_is_seen_by_the_process(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    d = lab.dpdk("d", ports=[a, b])
    assert_reachable(a, b)
    lab.links[1].down()
    faults = until(d.faults, within_s=5, what="the process sees it")
    assert (faults[0].kind, faults[0].port) == ("dpdk-link-down", 1)
    lab.link(lab.host("c"), d)
    with pytest.raises(BadInput, match="dpdk d runs already: declare its links before"):
        lab.up()


def test_a_fault_of_a_link_to_a_process(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.dpdk("d", ports=[a, b])
    assert_reachable(a, b)
    with cut(lab.links[1]):
        assert_unreachable(a, b)
    assert_reachable(a, b, within="20 s")  # its driver looks at the link again once in a while


def test_the_price_of_a_packet_with_one_thing_changed(lab: Lab) -> None:
    """Bursts of 32 against single packets: in turns, A B B A, by CPU time, which a busy machine changes little."""
    many, one = (lab.dpdk(ports=2, vdev=Null(), start=False, burst=burst) for burst in (32, 1))
    prices: dict[str, list[float]] = {many.name: [], one.name: []}
    for node in (many, one, one, many):
        report = measure_packet_rate(node, lasting="200 ms")
        assert report.packets > 0
        assert report.cycles_per_packet is not None
        assert f"{node.name} moves" in report.explain()
        prices[node.name].append(report.cpu_per_packet_s)
        assert not node.forwarding
    assert min(prices[one.name]) > 1.3 * min(prices[many.name])
    with pytest.raises(BadInput, match="more than 0 and at most a minute"):
        measure_packet_rate(many, lasting="2 min")
    with pytest.raises(BadInput, match="no DPDK process"):
        measure_packet_rate(lab.host("a"))
