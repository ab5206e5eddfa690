"""DPDK between two hosts, without hugepages, network cards or root: poll mode drivers on the wires of a lab.

    a ── d (testpmd) ── b

Every test runs over each kind of device that a wire can be.
"""

import json

import pytest

from pytest_infra import CheckFailed, assert_forwarded, assert_no_drops, assert_reachable, ping
from pytest_infra.core.wait import until
from pytest_infra.dpdk import Memif


@pytest.fixture(params=["af_packet", "af_xdp", "tap", "pcap"])
def two(lab, infra_dpdk, request):
    a, b = lab.host("a"), lab.host("b")
    d = infra_dpdk("d", ports=[a, b], vdev=request.param)
    return a, b, d


def test_ping_passes_through_testpmd(two):
    a, b, d = two
    assert_reachable(a, b, within="5 s")
    before = d.statistics()
    assert ping(a, b, count=10, interval="5 ms", within="5 s").received == 10
    assert_forwarded(d, since=before, at_least=20)  # ten requests, ten answers
    assert_no_drops(d, since=before)


@pytest.mark.infra_requires("iperf3")
def test_tcp_passes_through_testpmd(two):
    a, b, d = two
    assert_reachable(a, b, protocol="tcp", within="5 s")
    server = b.spawn(["iperf3", "--server", "--one-off", "--forceflush"])
    server.wait_for("Server listening")
    address = str(b.ports[0].addresses[0].ip)
    done = json.loads(a.run(["iperf3", "--client", address, "--time", "1", "--json"]).stdout)
    received = done["end"]["sum_received"]
    report = assert_forwarded(d, at_least=received["bytes"] // 1448)
    print(f"{received['bits_per_second'] / 1e6:.0f} Mbit/s of TCP payload, {report.sent} packets")


def test_a_process_that_does_not_forward_is_named(lab):
    a, b = lab.host("a"), lab.host("b")
    d = lab.dpdk("d", ports=[a, b])
    assert_reachable(a, b, within="5 s")
    d.stop_forwarding()
    with pytest.raises(CheckFailed, match="testpmd in d was told to stop forwarding"):
        assert_reachable(a, b)
    d.start_forwarding()
    assert_reachable(a, b, within="5 s")


def test_two_processes_share_memory(lab):
    """a ── d1 ══ memif ══ d2 ── b."""
    a, b = lab.host("a"), lab.host("b")
    d1 = lab.dpdk("d1", ports=[a, Memif("wire")])
    d2 = lab.dpdk("d2", ports=[Memif("wire"), b])
    assert_reachable(a, b, within="5 s")
    before = [d.statistics() for d in (d1, d2)]
    assert ping(a, b, count=10, interval="5 ms", within="5 s").received == 10
    for d, then in zip((d1, d2), before, strict=True):
        assert_forwarded(d, since=then, at_least=20)
        assert_no_drops(d, since=then)


@pytest.mark.parametrize("vdev", ["af_packet", "af_xdp"])
def test_a_generator_and_a_sink(lab, vdev):
    """Packets made by one testpmd and taken by another, through rings that they share with the kernel: each is
    received, or counted as missed by a sink whose core was too slow."""
    sink = lab.dpdk("sink", vdev=vdev, forward="rxonly")
    source = lab.dpdk("source", vdev=vdev, forward="txonly", ports=[sink], start=False)
    before = sink.statistics()
    source.start_forwarding()
    assert_forwarded(source, at_least=1000, within="10 s")
    source.stop_forwarding()

    def all_accounted_for():
        arrived = sink.statistics().since(before)
        return arrived.received + arrived.lost == source.statistics().sent

    until(all_accounted_for, within_s=10, what="each packet is received or missed")
    assert sink.statistics().received > before.received


@pytest.mark.parametrize("capability", ["rte_flow", "meter", "tm"])
def test_what_a_driver_cannot_do_is_told_in_its_own_words(lab, capability):
    """A test that needs one of these asks for it, and is skipped where the driver says no."""
    from pytest_infra import Unavailable

    d = lab.dpdk(ports=2, vdev="null", start=False)
    with pytest.raises(Unavailable, match=r"the driver of port 0 says: .*Function not implemented"):
        d.demand(capability)
