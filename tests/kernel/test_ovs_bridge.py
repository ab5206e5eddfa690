"""Open vSwitch bridges in labs: they switch at once, show what they do, and nothing of one lab is in the next."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pytest_infra.core import requirement
from pytest_infra.core.errors import BadInput, CommandFailed, Unavailable
from pytest_infra.core.requirement import Absent
from pytest_infra.lab import Lab
from pytest_infra.net import ovs_instance
from pytest_infra.net.host import Host
from pytest_infra.net.ovs import OvsBridge
from pytest_infra.net.ovs_requirements import OVS_KERNEL_DATAPATH
from pytest_infra.session import Infra


@pytest.fixture
def lab(session: Infra) -> Iterator[Lab]:
    with session.lab() as started:
        yield started


def two_hosts(lab: Lab, **options: object) -> tuple[OvsBridge, Host, Host]:
    switch = lab.ovs("sw1", **options)  # type: ignore[arg-type]
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, switch)
    lab.link(b, switch)
    lab.up()
    return switch, a, b


def address(host: Host, version: int) -> str:
    return next(str(ip.ip) for ip in host.ports[0].addresses if ip.version == version)


def answers(a: Host, ip: str, within_s: float = 0.9) -> bool:
    """Whether one datagram to a closed port of `ip` is answered (ICMP port unreachable).

    ARP and neighbour discovery ask a second time after a second: an answer before that means that nothing was lost.
    """

    def ask() -> bool:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.settimeout(within_s)
            probe.connect((ip, 9))
            probe.send(b"?")
            try:
                probe.recv(1)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                return False
        raise AssertionError("a closed port has answered")

    return a.call(ask)


def transfer(a: Host, b: Host, ip: str, size: int = 200_000) -> int:
    """Send `size` bytes from `a` to `b` over TCP; returns how many arrive."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    server = b.call(socket.create_server, ("", 7000), family=family)
    client = a.call(socket.create_connection, (ip, 7000), 5)
    accepted, _ = server.accept()
    with server, client, accepted:
        client.settimeout(5)
        accepted.settimeout(5)
        client.sendall(b"x" * size)
        client.shutdown(socket.SHUT_WR)
        received = 0
        while data := accepted.recv(65536):
            received += len(data)
    return received


def test_the_first_packet_passes_in_every_lab(session: Infra) -> None:
    for version in (4, 6) * 12:
        with session.lab() as lab:
            _, a, b = two_hosts(lab)
            assert answers(a, address(b, version)), f"the first IPv{version} packet was lost"


def test_the_first_packet_passes_after_a_link_was_cut_and_mended(lab: Lab) -> None:
    _, a, b = two_hosts(lab)
    for _ in range(5):
        lab.links[0].down()
        assert not a.interfaces["eth0"].carrier
        lab.links[0].up()
        assert answers(a, address(b, 4))


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_passes(lab: Lab, version: int) -> None:
    _, a, b = two_hosts(lab)
    assert transfer(a, b, address(b, version)) == 200_000


def test_ports_have_openflow_numbers_in_the_order_of_the_links(lab: Lab) -> None:
    switch = lab.ovs("sw1")
    for _ in range(12):
        lab.link(lab.host(), switch)
    numbers = switch.vsctl(["--columns=name,ofport", "--format=csv", "--no-headings", "list", "Interface"]).stdout
    found = dict(line.rsplit(",", 1) for line in numbers.split())
    assert found == {"sw1": "65534", **{f"sw1-p{number}": str(number) for number in range(1, 13)}}


def test_links_can_be_added_later(lab: Lab) -> None:
    switch, a, _ = two_hosts(lab)
    c = lab.host("c")
    lab.link(c, switch)
    lab.up()
    assert answers(a, address(c, 4))
    assert "sw1-p3" in switch.show()


def test_a_switch_without_links_is_there(lab: Lab) -> None:
    switch = lab.ovs("alone")
    assert switch.vsctl(["list-br"]).stdout == "alone\n"
    assert ("alone" in switch.interfaces) == (not switch.instance.limit)


def test_two_switches_of_a_lab(lab: Lab) -> None:
    left, right = lab.ovs("left"), lab.ovs("right")
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, left)
    lab.link(left, right)
    lab.link(b, right)
    lab.up()
    assert answers(a, address(b, 4))
    assert transfer(a, b, address(b, 4)) == 200_000
    assert left.vsctl(["list-br"]).stdout.split() == ["left", "right"]


def test_an_ovs_switch_and_a_linux_bridge(lab: Lab) -> None:
    ovs, bridge = lab.ovs("ovs"), lab.bridge("br")
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, ovs)
    lab.link(ovs, bridge)
    lab.link(b, bridge)
    lab.up()
    assert answers(a, address(b, 6))
    assert transfer(b, a, address(a, 4)) == 200_000


def test_flows_decide_and_are_counted(lab: Lab) -> None:
    switch, a, b = two_hosts(lab)
    switch.ofctl(["add-flow", "sw1", "cookie=0x2a,priority=100,udp,in_port=sw1-p1,actions=drop"])
    assert not answers(a, address(b, 4), within_s=0.2)
    (flow,) = [flow for flow in switch.flows() if flow.cookie == 0x2A]
    assert (flow.table, flow.priority, flow.match, flow.actions) == (0, 100, 'udp,in_port="sw1-p1"', "drop")
    assert flow.packets == 1
    assert flow.bytes > 40
    assert [str(flow) for flow in switch.flows(table=1)] == []
    assert "drop" in switch.trace("in_port=sw1-p1,udp")
    switch.ofctl(["del-flows", "sw1", "udp"])
    assert answers(a, address(b, 4))


def test_counters_are_up_to_date(lab: Lab) -> None:
    switch, a, b = two_hosts(lab)
    switch.add_flow("priority=100,udp,udp_dst=9,actions=drop")
    for number in range(1, 6):
        assert not answers(a, address(b, 4), within_s=0.01)
        (flow,) = [flow for flow in switch.flows() if flow.priority == 100]
        assert flow.packets == number


def test_changes_apply_to_the_next_packet(lab: Lab) -> None:
    switch, a, b = two_hosts(lab)
    b.sysctl["net.ipv4.icmp_ratelimit"] = "0"
    for _ in range(5):
        switch.ofctl(["add-flow", "sw1", "priority=100,udp,actions=drop"])
        assert not answers(a, address(b, 4), within_s=0.02)
        switch.ofctl(["del-flows", "sw1", "udp"])
        assert answers(a, address(b, 4))
        switch.vsctl(["set", "port", "sw1-p1", "tag=10"])
        assert not answers(a, address(b, 4), within_s=0.02)
        switch.vsctl(["clear", "port", "sw1-p1", "tag"])
        assert answers(a, address(b, 4))


def test_a_flow_can_be_put_back(lab: Lab) -> None:
    switch, _, _ = two_hosts(lab)
    switch.add_flow("table=3,priority=7,cookie=0x5,icmp,in_port=sw1-p2,actions=output:sw1-p1")
    (flow,) = switch.flows(table=3)
    switch.ofctl(["del-flows", "sw1", "table=3"])
    switch.add_flow(flow)
    (again,) = switch.flows(table=3)
    assert str(again) == str(flow) == 'table=3,priority=7,cookie=0x5,icmp,in_port="sw1-p2",actions=output:"sw1-p1"'


def test_the_mac_table(lab: Lab) -> None:
    switch, a, b = two_hosts(lab)
    assert answers(a, address(b, 4))
    assert {(entry.port, entry.mac) for entry in switch.fdb} == {
        ("sw1-p1", a.ports[0].mac),
        ("sw1-p2", b.ports[0].mac),
    }


def test_openflow_versions_that_a_test_chooses(lab: Lab) -> None:
    switch, _, _ = two_hosts(lab)
    for version in ("OpenFlow10", "OpenFlow13", "OpenFlow15"):
        switch.vsctl(["set", "bridge", "sw1", f"protocols={version}"])
        assert [(flow.priority, flow.match, flow.actions) for flow in switch.flows()] == [(0, "", "NORMAL")]


def test_commands_take_lists_and_say_what_went_wrong(lab: Lab) -> None:
    switch, _, _ = two_hosts(lab)
    with pytest.raises(BadInput, match="a list of arguments"):
        switch.vsctl("list-br")  # type: ignore[arg-type]
    with pytest.raises(CommandFailed, match="no bridge named nowhere"):
        switch.vsctl(["list-ports", "nowhere"])
    assert switch.ofctl(["no-such-command"], check=False).returncode == 1
    assert "Open vSwitch" in switch.appctl(["version"]).stdout


def test_bad_datapath(lab: Lab) -> None:
    with pytest.raises(BadInput, match="no datapath 'dpdk': allowed are 'netdev' and 'system'"):
        lab.ovs("sw1", datapath="dpdk")


def test_the_evidence_holds_what_happened(lab: Lab) -> None:
    switch, a, b = two_hosts(lab)
    switch.add_flow("priority=100,udp,actions=drop")
    assert not answers(a, address(b, 4), within_s=0.1)
    found = {artifact.name: str(artifact.content) for artifact in switch.diagnose()}
    assert "sw1-p1" in found["sw1-show.txt"]
    assert "actions=drop" in found["sw1-flows.txt"]
    assert a.ports[0].mac in found["sw1-fdb.txt"]
    assert "rx pkts" in found["sw1-ports.txt"]
    assert "added interface sw1-p1" in found["sw1-ovs-vswitchd.txt"]
    assert "sw1-ovsdb-server.txt" in found


def test_evidence_of_a_switch_whose_daemon_was_killed(session: Infra) -> None:
    with session.lab() as lab:
        switch, _, _ = two_hosts(lab, private=True)
        switch.appctl(["exit"])
        found = {artifact.name: str(artifact.content) for artifact in switch.diagnose()}
    assert "could not be read" in found["sw1-fdb.txt"]
    assert "added interface sw1-p1" in found["sw1-ovs-vswitchd.txt"]


def test_nothing_appears_in_the_machines_namespace(lab: Lab, session: Infra) -> None:
    before = set(session.machine.interfaces)
    two_hosts(lab)
    assert set(session.machine.interfaces) == before


def test_without_tap_devices_it_switches_all_the_same(session: Infra, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoTun:
        def probe(self) -> Absent:
            return Absent("/dev/net/tun cannot be opened: Permission denied", "chmod 0666 /dev/net/tun")

    monkeypatch.setattr(ovs_instance, "TUN", NoTun())
    with session.lab() as lab:
        switch, a, b = two_hosts(lab, private=True)
        assert answers(a, address(b, 4))
        assert transfer(a, b, address(b, 6)) == 200_000
        assert "no local interface (/dev/net/tun cannot be opened: Permission denied" in switch.instance.limit
        assert set(switch.interfaces) == {"lo", "sw1-p1", "sw1-p2"}


def test_the_kernel_datapath_works_or_says_what_is_missing(session: Infra) -> None:
    with session.lab() as lab:
        if OVS_KERNEL_DATAPATH.probe():
            switch, a, b = two_hosts(lab, datapath="system")
            assert answers(a, address(b, 4))
            assert transfer(a, b, address(b, 6)) == 200_000
            assert "ovs-system" in switch.interfaces
            (flow,) = switch.flows()
            assert flow.packets > 8
        else:
            with pytest.raises(Unavailable, match=r"ovs-kernel .*no generic netlink family ovs_datapath; modprobe"):
                two_hosts(lab, datapath="system")


def carrier_without_open_vswitch(infra: Infra) -> bool:
    try:
        with infra, infra.lab() as lab:
            lab.link(lab.host("a"), lab.bridge("sw1"))
            return lab.node("a").interfaces["eth0"].carrier
    except Unavailable as error:  # would be a skip
        pytest.fail(str(error))


def test_labs_without_open_vswitch_do_not_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = requirement.find_program
    monkeypatch.setattr(requirement, "find_program", lambda name, *more: None if "ovs" in name else find(name, *more))
    assert carrier_without_open_vswitch(Infra())
    with Infra() as infra, infra.lab() as lab:
        lab.ovs("sw1")
        with pytest.raises(Unavailable, match="ovs"):
            lab.up()
