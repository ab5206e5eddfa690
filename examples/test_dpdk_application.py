"""A DPDK application of one's own, in C: built with pkg-config, run without hugepages, checked packet by packet.

    customer ── l2fwd ──┬── voice
                        ├── w1
                        └── w2

It sends UDP for voice one way, and spreads everything else over the workers, flow by flow.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from pytest_infra import (
    CheckFailed,
    assert_flow_affinity,
    assert_flow_order,
    assert_forwarded,
    assert_spread,
)
from pytest_infra.checks.balance import Delivery
from pytest_infra.packet import Bench, Packet
from pytest_infra.packet.probe import sentinel_frame
from pytest_infra.packet.probed import SENTINEL_TYPE

pytestmark = pytest.mark.infra_requires("dpdk-dev")

SOURCE = Path(__file__).parent / "dpdk_l2fwd" / "l2fwd.c"
FLOWS, EACH = 100, 4


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The application, built against the DPDK that is installed."""
    path = tmp_path_factory.mktemp("l2fwd") / "l2fwd"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libdpdk"], capture_output=True, text=True, check=True)
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O2", "-o", str(path), str(SOURCE), *shlex.split(flags.stdout)], check=True)
    return path


def application(lab, program, *arguments):
    hosts = [lab.host(name) for name in ("customer", "voice", "w1", "w2")]
    d = lab.dpdk("l2fwd", app=program, arguments=arguments, ready="l2fwd: forwarding")
    for host in hosts:
        lab.link(host, d, ip=[])
    lab.up()
    return d


def deliveries(d, dport):
    """Send packets of many flows in turn from the customer; say where each came out."""
    wires = {port.name: port.peer for port in d.ports}
    packets = [Packet(proto="udp", sport=1000 + flow, dport=dport) for _ in range(EACH) for flow in range(FLOWS)]
    with Bench(wires, sentinel_frame(SENTINEL_TYPE)) as bench:
        fates = bench.send([(d.ports[0].name, packet) for packet in packets])
    return [
        Delivery(packet.sport, number, fate.ports[0] if fate.ports else "lost")
        for number, (packet, fate) in enumerate(zip(packets, fates, strict=True))
    ]


def test_voice_has_its_own_port(lab, program):
    d = application(lab, program)
    before = d.statistics()
    assert {seen.worker for seen in deliveries(d, dport=17000)} == {"l2fwd-p2"}
    assert_forwarded(d, since=before, at_least=FLOWS * EACH, into=1)


def test_other_flows_are_spread_and_each_stays_together_and_in_order(lab, program):
    seen = deliveries(application(lab, program), dport=80)
    assert_flow_affinity(seen)
    assert_flow_order(seen)
    assert_spread(seen, ["l2fwd-p3", "l2fwd-p4"])


def test_a_fault_of_the_application_is_found(lab, program):
    d = application(lab, program, "lose-some")
    before = d.statistics()
    assert "lost" in {seen.worker for seen in deliveries(d, dport=17000)}
    with pytest.raises(CheckFailed, match="the application took packets in and did not send them"):
        assert_forwarded(d, since=before, at_least=FLOWS * EACH, into=1)
