"""assert_unreachable: what it takes for a proof, and that it never claims too much."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from pytest_infra.checks import assert_reachable, assert_unreachable, measure_unreachable
from pytest_infra.checks.follow import Follow
from pytest_infra.core.errors import BadInput, CheckFailed
from pytest_infra.lab import Lab
from pytest_infra.net.host import Host
from pytest_infra.session import Infra

PROTOCOLS = ["icmp", "tcp", "udp"]
QUICK_S = 0.5  # far below the second that a timeout takes, far above the few ms that a proof takes


@pytest.fixture
def lab(session: Infra) -> Iterator[Lab]:
    with session.lab() as started:
        yield started


def two(lab: Lab, switch: str | None = "bridge") -> tuple[Host, Host]:
    a, b = lab.host("a"), lab.host("b")
    if switch is None:
        lab.link(a, b)
        return a, b
    middle = getattr(lab, switch)("sw1")
    lab.link(a, middle)
    lab.link(b, middle)
    return a, b


def chain(lab: Lab) -> tuple[Host, Host, Host, Host]:
    a, r1, r2, b = lab.host("a"), lab.router("r1"), lab.router("r2"), lab.host("b")
    lab.link(a, r1)
    lab.link(r1, r2)
    lab.link(r2, b)
    return a, r1, r2, b


def drop(node: Host, hook: str, rule: str) -> None:
    node.run(["nft", "add table inet t"])
    node.run(["nft", f"add chain inet t c {{ type filter hook {hook} priority 0; }}"])
    node.run(["nft", f"add rule inet t c {rule} drop"])


@pytest.fixture
def hogs() -> Iterator[None]:
    """More work than there are CPUs."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    yield
    for hog in running:
        hog.kill()
        hog.wait()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("switch", ["bridge", "ovs", None])
def test_what_is_reachable_is_never_called_unreachable(
    lab: Lab, switch: str | None, protocol: str, hogs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is looked for only after the last sentinel: it must have come by then, however busy the machine is."""
    a, b = two(lab, switch)
    assert_reachable(a, b)
    if protocol == "icmp":
        monkeypatch.setattr(Follow, "_look_for_answer", lambda self: None)
    seen: Counter[tuple[str, str]] = Counter()
    for number in range(40):
        if number % 2:
            for node in (a, b):
                node.run(["ip", "neighbour", "flush", "all"])
        report = measure_unreachable(a, b, protocol=protocol, within="10 s")  # type: ignore[arg-type]
        seen[report.answer.kind, report.proof] += 1
    assert seen == {("reply", "answer"): 40}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_what_is_reachable_behind_routers_is_never_called_unreachable(
    lab: Lab, family: str, hogs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, r1, r2, b = chain(lab)
    assert_reachable(a, b, family=family)  # type: ignore[arg-type]
    monkeypatch.setattr(Follow, "_look_for_answer", lambda self: None)
    for number in range(40):
        if number % 2:
            for node in (a, r1, r2, b):
                node.run(["ip", "neighbour", "flush", "all"])
        report = measure_unreachable(a, b, family=family, within="10 s")  # type: ignore[arg-type]
        assert report.answer.replied, report


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_reachable_target_fails_the_check(lab: Lab, protocol: str) -> None:
    a, b = two(lab)
    with pytest.raises(CheckFailed, match=r"^a reaches b, which should be out of reach: .* answered"):
        assert_unreachable(a, b, protocol=protocol)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("switch", ["bridge", "ovs", None])
def test_a_filter_of_the_target_is_proven_by_a_sentinel(
    lab: Lab, switch: str | None, protocol: str, family: str
) -> None:
    a, b = two(lab, switch)
    options = {"protocol": protocol, "family": family}
    assert_reachable(a, b, **options)  # type: ignore[arg-type]
    kind = {"icmp": "icmp type echo-request", "tcp": "meta l4proto tcp", "udp": "meta l4proto udp"}[protocol]
    drop(b, "input", kind.replace("icmp ", "icmpv6 ") if family == "ipv6" else kind)
    report = assert_unreachable(a, b, within="10 s", **options)  # type: ignore[arg-type]
    assert (report.proof, report.place) == ("sentinel", "b")
    assert report.elapsed_s < 10 * QUICK_S
    assert json.loads(json.dumps(report.to_dict()))["proof"] == "sentinel"


def test_a_proof_is_quick(lab: Lab) -> None:
    a, b = two(lab)
    drop(b, "input", "icmp type echo-request")
    assert_unreachable(a, b)
    assert min(assert_unreachable(a, b, within="10 s").elapsed_s for _ in range(10)) < 0.05


def test_a_flow_of_a_switch_is_proven_by_a_sentinel(lab: Lab) -> None:
    a, b = two(lab, "ovs")
    assert_reachable(a, b)
    lab.switches["sw1"].ofctl(["add-flow", "sw1", "priority=100,icmp,actions=drop"])  # type: ignore[attr-defined]
    report = assert_unreachable(a, b, within="10 s")
    assert (report.proof, report.place) == ("sentinel", "a:eth0 -> b:eth0")
    assert_reachable(a, b, protocol="tcp")


@pytest.mark.parametrize(
    ("hook", "rule", "place"),
    [("forward", "icmp type echo-request", "r1"), ("forward", "icmp type echo-reply", "r1")],
)
def test_a_filter_of_a_router_is_proven_by_a_sentinel(lab: Lab, hook: str, rule: str, place: str) -> None:
    a, r1, _r2, b = chain(lab)
    assert_reachable(a, b)
    drop(r1, hook, rule)
    report = assert_unreachable(a, b, within="10 s")
    assert (report.proof, report.place) == ("sentinel", place)


def test_forwarding_off_and_no_way_back_are_proven(lab: Lab) -> None:
    a, _r1, r2, b = chain(lab)
    assert_reachable(a, b)
    r2.sysctl["net.ipv4.ip_forward"] = "0"
    assert assert_unreachable(a, b, within="10 s").place == "r2"
    r2.sysctl["net.ipv4.ip_forward"] = "1"
    assert_reachable(a, b)
    b.run(["ip", "route", "del", "default"])
    report = assert_unreachable(a, b, within="10 s")
    assert (report.proof, report.place) == ("sentinel", "b")


def test_refusals_are_proof_at_once(lab: Lab) -> None:
    a, b = two(lab)
    assert_reachable(a, b)
    b.run(["nft", "add table inet t"])
    b.run(["nft", "add chain inet t c { type filter hook input priority 0; }"])
    b.run(["nft", "add rule inet t c tcp dport 80 reject with tcp reset"])
    b.run(["nft", "add rule inet t c udp dport 80 reject"])
    for protocol, kind in (("tcp", "reset"), ("udp", "icmp")):
        report = assert_unreachable(a, b, protocol=protocol, port=80, serve=True, within="10 s")  # type: ignore[arg-type]
        assert (report.proof, report.answer.kind) == ("answer", kind)
        assert report.elapsed_s < QUICK_S
    report = assert_unreachable(a, "203.0.113.1", within="10 s")
    assert (report.proof, report.answer.kind) == ("answer", "local")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_that_is_merely_closed_is_reached(lab: Lab, protocol: str) -> None:
    a, b = two(lab)
    with pytest.raises(
        CheckFailed, match=rf"it refused by itself(.|\n)*nothing listens on {protocol.upper()} port 80 of b"
    ):
        assert_unreachable(a, b, protocol=protocol, port=80)  # type: ignore[arg-type]


def test_an_address_that_the_source_has_not_proves_nothing(lab: Lab) -> None:
    a, b = two(lab)
    for protocol in PROTOCOLS:
        with pytest.raises(BadInput, match=r"a has no address 203.0.113.9 to send from; it has "):
            assert_unreachable((a, "203.0.113.9"), b, protocol=protocol)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["10.0.0.255", "255.255.255.255", "224.0.0.5", "ff02::1"])
def test_an_address_of_many_is_no_target(lab: Lab, address: str) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    with pytest.raises(BadInput, match="is a broadcast or multicast address; give that of one node"):
        assert_unreachable(a, address)


def test_a_node_of_another_lab_is_no_target(session: Infra, lab: Lab) -> None:
    a, _ = two(lab)
    with session.lab("other") as other:
        d, _ = two(other)
        for check in (assert_reachable, assert_unreachable):
            with pytest.raises(BadInput, match=r"a one of the lab other: no link joins labs"):
                check(a, d)


def test_an_icmp_error_of_a_router_is_proof_at_once(lab: Lab) -> None:
    a, r1, _r2, b = chain(lab)
    assert_reachable(a, b)
    r1.run(["ip", "route", "replace", "unreachable", str(b.ports[0].addresses[0].network)])
    report = assert_unreachable(a, b, within="10 s")
    assert report.proof == "answer"
    assert "ICMP host unreachable" in str(report.answer)


def test_an_interface_that_is_down_is_proof(lab: Lab) -> None:
    a, b = two(lab)
    assert_reachable(a, b)
    b.ports[0].down()
    report = assert_unreachable(a, b, within="10 s")
    assert (report.proof, report.why) == ("state", "b:eth0 is down")
    assert report.elapsed_s < 10 * QUICK_S


def test_without_a_sentinel_the_time_is_waited_out_and_said(lab: Lab) -> None:
    a, b = two(lab, "ovs")
    assert_reachable(a, b)
    lab.switches["sw1"].ofctl(["add-flow", "sw1", "priority=100,actions=drop"])  # type: ignore[attr-defined]
    started = time.monotonic()
    report = assert_unreachable(a, b, within="300 ms")
    assert time.monotonic() - started >= 0.3
    assert report.proof == "timeout"
    assert report.why == "no frame passes from a:eth0 to b:eth0"


def test_an_address_of_nobody_is_waited_out(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    report = assert_unreachable(a, "10.0.0.9", within="200 ms")
    assert (report.proof, report.why) == ("timeout", "the lab has no planned way to 10.0.0.9")


def test_a_way_other_than_planned_is_not_judged_by_the_plan(lab: Lab) -> None:
    """Two links between a and b; the packets go by the one that the plan does not look at."""
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    lab.link(a, b, ip="10.0.1.1/24", peer_ip="10.0.1.2/24")
    assert_reachable(a, b)
    a.run(["ip", "route", "replace", "10.0.0.2/32", "via", "10.0.1.2"])
    b.sysctl["net.ipv4.icmp_echo_ignore_all"] = "1"
    report = assert_unreachable(a, b, within="200 ms")
    assert report.answer.kind == "silence"
    assert report.proof in ("sentinel", "timeout")
    b.sysctl["net.ipv4.icmp_echo_ignore_all"] = "0"
    assert measure_unreachable(a, b, within="1 s").answer.replied


def test_a_neighbour_that_is_waited_for_already_is_no_proof(lab: Lab) -> None:
    """The kernel asks again only after a second: until then a probe waits, and silence proves nothing."""
    a, b = two(lab)
    assert_reachable(a, b)
    link = b.ports[0].peer
    link.down()
    a.run(["ip", "neighbour", "flush", "all"])
    assert measure_unreachable(a, b, within="100 ms").answer.kind == "silence"
    link.up()
    report = measure_unreachable(a, b, within="3 s")
    assert report.answer.replied, report


def test_a_program_that_forwards_by_itself_is_no_proof(lab: Lab) -> None:
    a, r1, _r2, b = chain(lab)
    assert_reachable(a, b)
    r1.sysctl["net.ipv4.ip_forward"] = "0"
    with r1.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)):
        report = assert_unreachable(a, b, within="200 ms")
    assert (report.proof, report.why) == ("timeout", "a program in r1 has a packet socket and might forward by itself")


def test_silence_of_a_udp_server_is_not_decided(lab: Lab) -> None:
    a, b = two(lab)

    def bind() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", 514))
        return sock

    with b.call(bind):
        with pytest.raises(CheckFailed, match=r"^it cannot be told whether a reaches b") as failure:
            assert_unreachable(a, b, protocol="udp", port=514, within="200 ms")
        assert "it arrived at b" in str(failure.value)
        assert assert_unreachable(a, b, protocol="udp", port=514, payload=b"x", within="200 ms").proof == "timeout"


def test_links_that_lose_packets_are_no_proof(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    drop(b, "input", "icmp type echo-request")
    link.impair(loss="40 %")  # it may be that as well
    with pytest.raises(CheckFailed, match=r"it cannot be told .*: the lab itself impairs the way"):
        assert_unreachable(a, b, within="100 ms")
    link.impair(loss="4 %")
    report = assert_unreachable(a, b)
    assert report.tries >= 2
    assert report.chance < 1e-3


def test_links_that_delay_packets_are_no_proof(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, delay="100 ms")
    with pytest.raises(CheckFailed, match=r"its links delay an answer for 200 ms"):
        assert_unreachable(a, b, within="150 ms")
    with pytest.raises(CheckFailed, match="a reaches b"):
        assert_unreachable(a, b, within="3 s")


def test_nothing_of_the_check_stays(lab: Lab) -> None:
    a, b = two(lab)
    drop(b, "input", "icmp type echo-request")
    before = b.call(_open_sockets)
    assert_unreachable(a, b)
    deadline = time.monotonic() + 5
    while b.call(_open_sockets) != before and time.monotonic() < deadline:
        pass
    assert b.call(_open_sockets) == before


def _open_sockets() -> list[int]:
    counts = []
    for table in ("packet", "raw", "raw6", "tcp", "tcp6", "udp", "udp6"):
        with open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
            counts.append(len(file.readlines()))
    return counts
