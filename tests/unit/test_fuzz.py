"""Every parser of what people and programs write: whatever it is given, it takes it or refuses it as bad input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_infra.checks.http_request import check_url
from pytest_infra.core.errors import InfraError
from pytest_infra.core.naming import interface_name, ip_interface, mac_address, node_name
from pytest_infra.core.report import as_json, explain, to_json
from pytest_infra.core.units import duration_s, fraction, rate_bps, size_bytes
from pytest_infra.lab.topology_file import _read
from pytest_infra.net.bond import parse_bond
from pytest_infra.net.impairment import parse_impairment
from pytest_infra.net.ovs_flows import parse_fdb, parse_flows
from pytest_infra.net.ovs_openflow import parse_groups, parse_meters
from pytest_infra.packet.fields import (
    parse_address,
    parse_flags,
    parse_interval,
    parse_mac,
    parse_number,
    parse_prefix,
    parse_states,
)
from pytest_infra.reporting.artifacts import slug

TOPOLOGY = """\
name: demo
topology:
  kinds: {linux: {image: alpine}}
  nodes:
    a: {kind: linux, exec: ["ip address"], sysctls: {net.ipv4.ip_forward: 1}}
    sw: {kind: bridge}
  links:
    - endpoints: ["a:eth1", "sw:p1"]
      mtu: 1400
"""
FLOWS = """\
 cookie=0x7, duration=1.5s, table=0, n_packets=3, n_bytes=294, idle_timeout=5, priority=9,icmp,in_port="p1" actions=drop
 cookie=0x0, duration=2s, table=1, n_packets=0, n_bytes=0, actions=NORMAL
"""
GROUP = " group_id=1,duration=1s,ref_count=0,packet_count=1,byte_count=2,bucket0:packet_count=1,byte_count=2"
METER = "meter:1 flow_count:1 packet_in_count:3 byte_in_count:4 duration:5.0s bands:\n0: packet_count:1 byte_count:2"
FDB = " port  VLAN  MAC                Age\n    1    10  02:00:00:00:00:01    3\n"
BOND = "---- bond0 ----\nbond_mode: active-backup\nlacp_status: off\n\nmember p1: enabled\n  active member\n"

# Each parser of texts, with some that it takes: small changes to those come nearest to what may go wrong.
TEXTS: dict[str, tuple[Callable[[str], Any], list[str]]] = {
    "rate": (rate_bps, ["100 Mbit/s", "1e3bit"]),
    "size": (size_bytes, ["64 MiB", "1 kB"]),
    "duration": (duration_s, ["10 ms", "2 min"]),
    "fraction": (fraction, ["5 %", "0.05"]),
    "interface address": (ip_interface, ["192.0.2.1/24", "2001:db8::1/64"]),
    "MAC address": (mac_address, ["02:00:00:00:00:01"]),
    "node": (node_name, ["r1"]),
    "interface": (interface_name, ["eth0"]),
    "URL": (check_url, ["http://[2001:db8::1]:8080/x?y", "http://web.example/"]),
    "flows": (parse_flows, [FLOWS]),
    "MAC table": (lambda text: parse_fdb(text, {"1": "p1"}), [FDB]),
    "groups": (parse_groups, [GROUP]),
    "meters": (parse_meters, [METER]),
    "bond": (lambda text: parse_bond(text, ["p1"]), [BOND]),
    "packet number": (lambda text: parse_number("dport", text, "rule"), ["53", "http"]),
    "packet interval": (lambda text: parse_interval("dport", text, "rule"), ["53", "1-5"]),
    "packet MAC": (lambda text: parse_mac("eth_src", text, "rule"), ["02:00:00:00:00:01"]),
    "packet prefix": (lambda text: parse_prefix("src", text, "rule"), ["192.0.2.0/24"]),
    "packet address": (lambda text: parse_address("src", text, "rule"), ["192.0.2.1"]),
    "TCP flags": (lambda text: parse_flags(text, "rule"), ["syn,!ack", "+syn-ack"]),
    "connection states": (lambda text: parse_states(text, "rule"), ["+trk+est", "new"]),
    "delay": (lambda text: parse_impairment({"delay": text}), ["10 ms"]),
    "loss": (lambda text: parse_impairment({"loss": text}), ["1 %"]),
}


def changed(examples: list[str]) -> st.SearchStrategy[str]:
    """Any text, and a text that is taken with a part replaced, left out or doubled."""

    def change(text: str, start: int, length: int, other: str) -> str:
        start %= len(text) + 1
        return text[:start] + other + text[start + length :]

    others = st.text(max_size=6) | st.sampled_from(
        [",", "=", ":", "/", " ", "\n", "-", "0", "٣", "²", "\x00", "9" * 30]
    )
    near = st.builds(change, st.sampled_from(examples), st.integers(0, 500), st.integers(0, 12), others)
    return st.text() | near | st.sampled_from(examples)


@pytest.mark.parametrize("what", TEXTS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_text_is_taken_or_refused(what: str, data: Any) -> None:
    parse, examples = TEXTS[what]
    text = data.draw(changed(examples))
    try:
        parse(text)
    except InfraError as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize("what", TEXTS)
def test_one_of_the_examples_is_taken(what: str) -> None:
    parse, examples = TEXTS[what]
    taken = 0
    for text in examples:
        try:
            found = parse(text)
        except InfraError:
            continue
        taken += found not in ([], ())
    assert taken


@given(text=changed([TOPOLOGY]))
def test_a_topology_file_is_taken_or_refused_and_nothing_is_declared(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.clab.yml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        _read(str(path)).plain()
    except InfraError as error:
        assert "fuzz.clab.yml" in str(error)  # noqa: PT017


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_whatever_a_report_holds_becomes_json(value: Any) -> None:
    import json

    reject = partial(pytest.fail, "no JSON has this constant")
    assert json.loads(as_json(value), parse_constant=reject) == json.loads(json.dumps(to_json(value)))


@given(st.text(), st.lists(st.tuples(st.text(), st.text()), max_size=4))
def test_whatever_is_explained_begins_with_the_verdict(verdict: str, rows: list[tuple[str, str]]) -> None:
    first = verdict.splitlines()[0].rstrip() if verdict.strip() else ""
    assert explain(verdict, rows).startswith(first)


@given(st.text())
def test_whatever_a_test_is_called_its_folder_has_a_plain_name(name: str) -> None:
    folder = slug(name)
    assert folder not in ("", ".", "..")
    assert not set(folder) & set("/\0\n")
    assert len(folder) <= 100
