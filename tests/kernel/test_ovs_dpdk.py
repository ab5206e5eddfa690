"""Open vSwitch on DPDK: the same switch; what its threads do, what its policers drop, what it refuses."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from pytest_infra import BadInput, InfraError, StartFailed, assert_reachable
from pytest_infra.core.wait import until
from pytest_infra.lab import Lab
from pytest_infra.net.host import Host
from pytest_infra.net.ovs_dpdk import Policer, parse_pmd_statistics
from pytest_infra.net.ovs_dpdk_bridge import OvsDpdkBridge
from pytest_infra.session import Infra

pytestmark = [pytest.mark.infra, pytest.mark.infra_requires("ovs-dpdk")]

SIZE = 1000  # bytes of an IP packet
STRAY = 10  # packets that the hosts send by themselves: neighbour and listener discovery, router solicitations


@pytest.fixture
def lab(session: Infra) -> Iterator[Lab]:
    with session.lab() as started:
        yield started


def two_hosts(lab: Lab, dpdk: bool | str = True, **options: object) -> tuple[OvsDpdkBridge, Host, Host]:
    switch = lab.ovs("sw1", dpdk=dpdk)
    assert isinstance(switch, OvsDpdkBridge)
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, switch, **options)  # type: ignore[arg-type]
    lab.link(b, switch, **options)  # type: ignore[arg-type]
    return switch, a, b


def burst(a: Host, b: Host, count: int) -> float:
    """Send `count` datagrams of `SIZE` bytes as fast as they go; returns how long it took, seconds."""
    ip = str(b.ports[0].addresses[0].ip)

    def send() -> float:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            began = time.monotonic()
            for _ in range(count):
                sock.sendto(bytes(SIZE - 28), (ip, 9))
            return time.monotonic() - began

    return a.call(send)


def settled(switch: OvsDpdkBridge, total: int) -> dict[str, int]:
    """The counters of the port to b when all that was sent was either passed on or dropped there."""
    port = switch.ports[1]

    def look() -> dict[str, int] | None:
        found = switch.counters(port)
        return found if found["tx pkts"] + found["ovs_tx_qos_drops"] >= total else None

    found = until(look, within_s=20, what="all has been passed on or dropped")
    assert found
    return found


@pytest.mark.parametrize("vdev", ["af_packet", "af_xdp"])
def test_both_families_pass(lab: Lab, vdev: str) -> None:
    switch, a, b = two_hosts(lab, vdev)
    assert_reachable(a, b, count=3)
    assert_reachable(a, b, protocol="tcp", family="ipv6")
    interfaces = switch.vsctl(["--columns=type,options", "list", "Interface", "sw1-p1"]).stdout
    assert f"net_{vdev}_sw1-p1,iface=sw1-p1" in interfaces
    assert not switch.instance.changed


def test_an_instance_is_used_again_without_the_ports_of_the_lab_before(session: Infra) -> None:
    pids = []
    for _ in range(2):
        for thread in list(session._services.ovs_pool._threads):
            thread.join()
        with session.lab() as lab:
            switch, a, b = two_hosts(lab)
            assert_reachable(a, b)
            pids.append(switch.instance.pids["ovs-vswitchd"])
    assert len(set(pids)) == 1


def test_threads_report_what_they_did(lab: Lab) -> None:
    switch, a, b = two_hosts(lab)
    assert_reachable(a, b)
    switch.clear_pmd_statistics()
    burst(a, b, 200)
    settled(switch, 200)
    found = [item for item in switch.pmd_statistics() if item.core is not None]
    assert sum(item.packets_received for item in found) >= 200
    assert all(item.cycles_per_packet for item in found if item.packets_received)
    assert not switch.instance.changed


POLICERS = {
    "srtcm": (Policer("1 Mbit/s", "20 kB"), 20_000, 1e6),
    "trtcm": (Policer("1 Mbit/s", "20 kB", "1 Mbit/s", "10 kB"), 30_000, 2e6),
}


@pytest.mark.parametrize("name", POLICERS)
def test_a_policer_lets_a_burst_pass_and_then_its_rate(lab: Lab, name: str) -> None:
    policer, bursts_bytes, rate_bps = POLICERS[name]
    switch, a, b = two_hosts(lab)
    assert_reachable(a, b)
    switch.police(switch.ports[1], policer)
    before = switch.counters(switch.ports[1])
    took_s = burst(a, b, 300)
    began = time.monotonic()
    after = settled(switch, before["tx pkts"] + 300)
    took_s += time.monotonic() - began
    passed = after["tx pkts"] - before["tx pkts"]
    assert bursts_bytes // SIZE <= passed <= (bursts_bytes + rate_bps / 8 * took_s) / SIZE + 1
    dropped = after["ovs_tx_qos_drops"]
    assert 0 < 300 - passed <= dropped <= 300 - passed + STRAY
    switch.unpolice(switch.ports[1])
    before = switch.counters(switch.ports[1])
    burst(a, b, 100)
    assert settled(switch, before["tx pkts"] + before["ovs_tx_qos_drops"] + 100)["ovs_tx_qos_drops"] == dropped


def test_what_comes_in_is_policed_too(lab: Lab) -> None:
    switch, a, b = two_hosts(lab)
    assert_reachable(a, b)
    switch.police(switch.ports[0], Policer("8 kbit/s", 10_000, direction="ingress"))
    burst(a, b, 100)
    dropped = until(
        lambda: (found := switch.counters(switch.ports[0]))["ovs_rx_qos_drops"] >= 80 and found,
        within_s=20,
        what="the policer drops",
    )
    assert dropped["ovs_rx_qos_drops"] <= 91


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cir": 0, "cbs": 1}, "at least 8 bit/s"),
        ({"cir": "1 Mbit/s", "cbs": 1500, "direction": "both"}, "'egress' or 'ingress', not 'both'"),
        ({"cir": "1 Mbit/s", "cbs": 1500, "eir": 8, "direction": "ingress"}, "has one rate"),
        ({"cir": 1001, "cbs": 1500, "direction": "ingress"}, "whole kbit/s"),
    ],
)
def test_policers_that_cannot_be(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Policer(**arguments)  # type: ignore[arg-type]


def test_what_cannot_be_is_told_at_once(lab: Lab) -> None:
    with pytest.raises(BadInput, match="a port cannot be 'vhost': allowed are 'af_packet' and 'af_xdp'"):
        lab.ovs(dpdk="vhost")
    with pytest.raises(BadInput, match="for the datapath 'netdev', not 'system'"):
        lab.ovs(dpdk=True, datapath="system")
    switch, a, _ = two_hosts(lab)
    with pytest.raises(BadInput, match="a:eth0 is not a port of sw1; it has sw1:sw1-p1, sw1:sw1-p2"):
        switch.police(a.ports[0], Policer("1 Mbit/s", 1500))


def test_an_mtu_that_no_device_takes(lab: Lab) -> None:
    two_hosts(lab, mtu=9000)
    with pytest.raises(BadInput, match="sw1-p1: its MTU is 9000 bytes; af_packet devices of DPDK take"):
        lab.up()


def test_a_device_that_dpdk_refuses_is_told_in_its_words(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        __import__("pytest_infra.net.ovs_dpdk", fromlist=["VDEVS"]).VDEVS, "af_packet", "net_af_packet_{port},iface=no"
    )
    two_hosts(lab)
    with pytest.raises(StartFailed, match="Error attaching device 'net_af_packet_sw1-p1,iface=no' to DPDK"):
        lab.up()


def test_statistics_are_read_as_open_vswitch_writes_them() -> None:
    text = """pmd thread numa_id 0 core_id 1:
  packets received: 10
  avg. datapath passes per packet: 1.00
  emc hits: 7
  idle cycles: 1624002 (99.00%)
  processing cycles: 5000 (1.00%)
  avg cycles per packet: 162900.20 (1629002/10)
main thread:
  packets received: 0
"""
    pmd, main = parse_pmd_statistics(text)
    assert (pmd.thread, pmd.core, pmd.packets_received) == ("pmd thread numa_id 0 core_id 1", 1, 10)
    assert (pmd.idle_cycles, pmd.cycles_per_packet, pmd.counters["emc hits"]) == (1624002, 500, 7)
    assert (main.core, main.cycles_per_packet) == (None, None)
    with pytest.raises(InfraError, match="says of a thread 'idle cycles: many', which is no counter"):
        parse_pmd_statistics("main thread:\n  idle cycles: many\n")
