"""What one changed thing does to the price of a packet: measured in turns, with a confidence interval."""

import pytest

from pytest_infra import assert_ratio, measure_packet_rate
from pytest_infra.dpdk import Null


@pytest.mark.infra_requires("dpdk")
def test_packets_one_by_one_cost_more_than_in_bursts(lab):
    bursts = lab.dpdk(ports=2, vdev=Null(), start=False, burst=32)
    single = lab.dpdk(ports=2, vdev=Null(), start=False, burst=1)
    report = assert_ratio(
        lambda: measure_packet_rate(bursts, lasting="50 ms"),
        lambda: measure_packet_rate(single, lasting="50 ms"),
        metric="cpu_per_packet_s",
        at_least=1.5,
    )
    print(report.explain())
