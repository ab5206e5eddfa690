"""A load balancer: an Open vSwitch group that spreads flows over four workers, and keeps each flow at one.

client ── lb ──┬── w1
               ├── w2
               ├── w3
               └── w4
"""

import pytest

from pytest_infra import CheckFailed, assert_flow_affinity, assert_flow_order, assert_spread, send_flows
from pytest_infra.packet import Bench, Packet
from pytest_infra.packet.probe import sentinel_frame
from pytest_infra.packet.probed import SENTINEL_TYPE


@pytest.fixture(params=[False, True], ids=["ovs", "ovs-dpdk"])
def balancer(lab, request):
    switch = lab.ovs("lb", dpdk=request.param)
    for name in ("client", "w1", "w2", "w3", "w4"):
        lab.link(lab.host(name), switch, ip=[])
    lab.up()
    return switch


def balance(switch, group):
    switch.ofctl(["-O", "OpenFlow15", "del-flows", switch.name])
    switch.ofctl(["-O", "OpenFlow15", "add-group", switch.name, f"group_id=1,{group}"])
    switch.ofctl(["-O", "OpenFlow15", "add-flow", switch.name, "in_port=1,ip,actions=group:1"])
    switch.ofctl(["-O", "OpenFlow15", "add-flow", switch.name, f"dl_type={SENTINEL_TYPE},actions=ALL,IN_PORT"])


def deliveries(switch, **bench_options):
    """Some packets of each flow, and which worker got each."""
    wires = {port.name: port.peer for port in switch.ports}
    flows = [Packet(proto="udp", sport=1000 + flow, dport=80) for flow in range(400)]
    with Bench(wires, **bench_options or {"sentinel": sentinel_frame(SENTINEL_TYPE)}) as bench:
        return send_flows(bench, switch.ports[0].name, flows)


BUCKETS = ",".join(f"bucket=output:{port}" for port in (2, 3, 4, 5))


def test_flows_stay_together_in_order_and_are_spread(balancer):
    balance(balancer, f"type=select,selection_method=hash,fields(udp_src),{BUCKETS}")
    seen = deliveries(balancer)
    assert_flow_affinity(seen)
    assert_flow_order(seen)
    assert_spread(seen, [port.name for port in balancer.ports[1:]])


def test_packets_that_overtake_each_other_are_named(lab):
    switch = lab.ovs("lb")
    lab.link(lab.host("client"), switch, ip=[])
    lab.link(lab.host("w1"), switch, ip=[], delay="3 ms", jitter="3 ms")
    balance(switch, "type=select,bucket=output:2")
    with pytest.raises(CheckFailed, match="were overtaken within their flow"):
        assert_flow_order(deliveries(switch, sentinel=None, quiet_s=0.1))


def test_a_worker_that_is_left_out_is_named(balancer):
    balance(balancer, f"type=select,selection_method=hash,fields(udp_src),{BUCKETS.rsplit(',', 1)[0]}")
    with pytest.raises(CheckFailed, match="lb-p5 got none"):
        assert_spread(deliveries(balancer), [port.name for port in balancer.ports[1:]])
