"""Flows and MAC tables from text."""

from __future__ import annotations

import pytest

from pytest_infra.core.errors import BadInput
from pytest_infra.net.ovs import _leaves_no_trace
from pytest_infra.net.ovs_flows import FdbEntry, Flow, parse_fdb, parse_flows
from pytest_infra.net.ovs_rows import add_ports, make_bridge

DUMP = """\
NXST_FLOW reply (xid=0x4):
 cookie=0x0, duration=12.345s, table=0, n_packets=7, n_bytes=546, idle_age=3, priority=0 actions=NORMAL
 cookie=0x2a, duration=3s, table=1, n_packets=0, n_bytes=0, idle_timeout=5, hard_timeout=10, send_flow_rem \
priority=100,icmp,in_port="sw1-p1",nw_dst=192.0.2.0/24 actions=set_field:10.0.0.1->ip_dst,resubmit(,2)
 cookie=0x0, duration=0.001s, table=2, n_packets=1, n_bytes=42, reset_counts actions=drop
 cookie=0x0, duration=1s, table=2, n_packets=1, n_bytes=42, ip actions=learn(table=3,priority=4),output:"sw1-p2"
"""


def test_flows_are_read() -> None:
    normal, icmp, drop, ip = parse_flows(DUMP)
    assert normal == Flow(table=0, priority=0, match="", actions="NORMAL", packets=7, bytes=546, duration_s=12.345)
    assert (icmp.table, icmp.priority, icmp.cookie) == (1, 100, 0x2A)
    assert icmp.match == 'icmp,in_port="sw1-p1",nw_dst=192.0.2.0/24'
    assert icmp.actions == "set_field:10.0.0.1->ip_dst,resubmit(,2)"
    assert (icmp.idle_timeout_s, icmp.hard_timeout_s) == (5, 10)
    assert (drop.match, drop.priority, drop.packets, drop.bytes) == ("", 32768, 1, 42)
    assert (ip.match, ip.priority) == ("ip", 32768)
    assert ip.actions == 'learn(table=3,priority=4),output:"sw1-p2"'


def test_a_flow_as_text() -> None:
    assert [str(flow) for flow in parse_flows(DUMP)] == [
        "table=0,priority=0,actions=NORMAL",
        'table=1,priority=100,cookie=0x2a,idle_timeout=5,hard_timeout=10,icmp,in_port="sw1-p1",nw_dst=192.0.2.0/24,'
        "actions=set_field:10.0.0.1->ip_dst,resubmit(,2)",
        "table=2,priority=32768,actions=drop",
        'table=2,priority=32768,ip,actions=learn(table=3,priority=4),output:"sw1-p2"',
    ]


def test_no_flows() -> None:
    assert parse_flows("NXST_FLOW reply (xid=0x4):\n") == []


def test_a_line_that_is_no_flow() -> None:
    with pytest.raises(BadInput, match="not a flow as ovs-ofctl writes it: 'cookie=zero, actions=drop'"):
        parse_flows("cookie=zero, actions=drop")


def test_the_mac_table_is_read() -> None:
    text = (
        " port  VLAN  MAC                Age\n"
        "    2     0  02:00:00:00:00:01    3\n"
        "LOCAL    20  02:00:00:00:00:02    0\n"
        "    7     0  02:00:00:00:00:03  static\n"
    )
    assert parse_fdb(text, {"2": "sw1-p2", "LOCAL": "sw1"}) == [
        FdbEntry("sw1-p2", 0, "02:00:00:00:00:01", 3),
        FdbEntry("sw1", 20, "02:00:00:00:00:02", 0),
        FdbEntry("7", 0, "02:00:00:00:00:03", None),
    ]


@pytest.mark.parametrize(
    "command",
    ["version", "fdb/flush sw1", "ofproto/trace sw1 icmp", "bridge/dump-flows sw1", "--timeout=5 coverage/show"],
)
def test_commands_that_leave_no_trace(command: str) -> None:
    assert _leaves_no_trace(command.split())


@pytest.mark.parametrize(
    "command", ["exit", "vlog/set dbg", "ovs/route/add 192.0.2.0/24 sw1", "", "-t ovsdb-server exit", "dpctl/add-dp x"]
)
def test_commands_that_leave_a_trace(command: str) -> None:
    assert not _leaves_no_trace(command.split())


def test_a_bridge_is_made_with_its_local_interface() -> None:
    rows = make_bridge("sw-1", "netdev")
    assert [(row["op"], row["table"]) for row in rows] == [
        ("insert", "Interface"),
        ("insert", "Port"),
        ("insert", "Bridge"),
        ("mutate", "Open_vSwitch"),
    ]
    assert rows[0]["row"] == {"name": "sw-1", "type": "internal"}
    assert rows[2]["row"]["datapath_type"] == "netdev"


def test_ports_are_added_in_one_transaction() -> None:
    rows = add_ports("sw1", {"sw-1-p1": 1, "sw.1-p2": 2})
    assert [(row["op"], row["table"]) for row in rows] == [
        *[("insert", "Interface"), ("insert", "Port")] * 2,
        ("mutate", "Bridge"),
    ]
    assert rows[0]["row"] == {"name": "sw-1-p1", "ofport_request": 1}
    names = [row["uuid-name"] for row in rows if "uuid-name" in row]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalnum() for name in names)
    assert rows[-1]["where"] == [["name", "==", "sw1"]]
    assert rows[-1]["mutations"][0][:2] == ["ports", "insert"]
