"""A switch that does what an OpenFlow controller says: a program of a hundred lines, or one on os-ken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_infra import CheckFailed, assert_all_reachable, assert_reachable, until

FOLDER = Path(__file__).parent / "openflow_controller"
PROGRAM = FOLDER / "learning_switch.py"
OS_KEN = pytest.param(FOLDER / "os_ken_switch.py", marks=pytest.mark.infra_requires("os-ken"), id="os-ken")
ADDRESS, PORT = "10.9.0.2", 6653


@pytest.fixture
def network(lab):
    """Three hosts on a switch of the machine `manager`, which reaches the machine `controller`."""
    manager, controller = lab.host("manager"), lab.host("controller")
    lab.link(manager, controller, ip="10.9.0.1/24", peer_ip=f"{ADDRESS}/24")
    sw = lab.ovs("sw", host=manager, controller=f"tcp:{ADDRESS}:{PORT}")
    hosts = [lab.host(name) for name in "abc"]
    for host in hosts:
        lab.link(host, sw)
    return sw, hosts, controller


@pytest.mark.parametrize("program", [pytest.param(PROGRAM, id="own"), OS_KEN])
def test_the_switch_learns_from_its_controller(network, program):
    sw, hosts, controller = network
    controller.spawn([sys.executable, program, ADDRESS, str(PORT)])
    assert_all_reachable(hosts, within="30 s")
    learned = [flow for flow in sw.flows() if "dl_dst=" in flow.match]
    assert len(learned) >= 6  # each host to each other
    assert sum(flow.packets for flow in learned) > 0


def test_without_its_controller_a_switch_forwards_nothing(network):
    """The failing twin: the controller was never there."""
    _, (a, b, _), _ = network
    with pytest.raises(CheckFailed, match=rf"sw drops .* its controller tcp:{ADDRESS}:{PORT} is not connected"):
        assert_reachable(a, b)


def test_what_a_controller_taught_outlasts_it_and_nothing_new_is_learned(network):
    """The failing twin: the controller is killed; its switch goes on with the flows that it has (fail mode secure)."""
    sw, (a, b, c), controller = network
    program = controller.spawn([sys.executable, PROGRAM, ADDRESS, str(PORT)])
    assert_reachable(a, b, within="30 s")
    program.close()
    until(lambda: not sw.controller_connected, within_s=30, what="the switch says that its controller is gone")
    assert_reachable(a, b)
    with pytest.raises(CheckFailed, match=rf"its controller tcp:{ADDRESS}:{PORT} is not connected"):
        assert_reachable(a, c)
