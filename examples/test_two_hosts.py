"""Two hosts on one switch, step by step: the lab that everybody builds by hand first.

    my-ns-a 192.168.1.10/24 ── sw1 ── 192.168.1.20/24 my-ns-b

Every test runs on a real Open vSwitch, on one with DPDK's poll mode drivers, and on a Linux bridge.
"""

from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

import pytest

from pytest_infra import (
    CheckFailed,
    assert_path,
    assert_reachable,
    assert_unreachable,
    ping,
)


@dataclass
class TwoHosts:
    a: Any
    b: Any
    switch: Any
    link_a: Any
    link_b: Any


SWITCHES = {
    "ovs": lambda lab: lab.ovs("sw1"),
    "ovs-dpdk": lambda lab: lab.ovs("sw1", dpdk=True),
    "bridge": lambda lab: lab.bridge("sw1"),
}


@pytest.fixture(params=SWITCHES)
def two(lab, request):
    sw1 = SWITCHES[request.param](lab)
    a, b = lab.host("my-ns-a"), lab.host("my-ns-b")
    link_a = lab.link(a, sw1, ip="192.168.1.10/24")
    link_b = lab.link(b, sw1, ip="192.168.1.20/24")
    return TwoHosts(a, b, sw1, link_a, link_b)


def test_each_host_has_its_interface_address_and_route(two):
    for host, address in ((two.a, "192.168.1.10/24"), (two.b, "192.168.1.20/24")):
        assert set(host.interfaces) == {"lo", "eth0"}
        assert ip_interface(address) in [item.ip for item in host.addresses if item.interface == "eth0"]
        assert "192.168.1.0/24" in [str(route.destination) for route in host.routes]


def test_the_machine_sees_none_of_it(two, infra):
    before = set(infra.machine.interfaces)
    assert two.link_a.carrier
    assert set(infra.machine.interfaces) == before
    assert ip_interface("192.168.1.10/24") not in [item.ip for item in infra.machine.addresses]


def test_a_wire_has_a_signal_only_while_both_ends_are_up(two):
    port = two.link_a.a
    two.link_a.down()
    assert port.interface.operstate == "LOWERLAYERDOWN"
    assert not port.carrier
    two.link_a.up()
    assert port.interface.operstate == "UP"
    assert port.carrier


def test_the_switch_shows_its_ports(two):
    shown = two.switch.show()
    assert "sw1" in shown
    assert all(port.name in shown for port in two.switch.ports)


def test_ping_counts_and_times(two):
    report = ping(two.a, two.b, count=5, interval="10 ms")
    assert (report.sent, report.received, report.loss) == (5, 5, 0)
    assert 0 < report.rtt.min_s <= report.rtt.avg_s <= report.rtt.max_s
    print(report)  # as ping(8) puts it; shown with pytest -s


def test_the_other_host_is_one_hop_away(two):
    assert_path(two.a, two.b, [two.b])


def test_tcp_and_udp_pass_too(two):
    assert_reachable(two.a, two.b, protocol="tcp")
    assert_reachable(two.b, two.a, protocol="udp")


def test_a_pulled_plug_is_named(two):
    two.link_b.down()
    assert_unreachable(two.a, two.b)
    with pytest.raises(CheckFailed, match="sw1-p2 is down"):
        assert_reachable(two.a, two.b)


@pytest.mark.infra_requires("ip")
def test_a_command_runs_in_a_host(two):
    done = two.a.run(["ip", "-brief", "-4", "address", "show", "eth0"])
    assert "192.168.1.10/24" in done.stdout
