"""What assert_path, assert_unreachable and ping say."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks import assert_path, assert_reachable, assert_unreachable, measure_unreachable, ping, traceroute
from pytest_infra.core.errors import CheckFailed
from pytest_infra.lab import Lab
from pytest_infra.net.host import Host
from pytest_infra.session import Infra


@pytest.fixture
def nodes(session: Infra) -> Iterator[tuple[Host, Host, Host, Host]]:
    """a - r1 - r2 - b."""
    with session.lab("texts") as lab:
        yield routed(lab)


def routed(lab: Lab) -> tuple[Host, Host, Host, Host]:
    a, r1, r2, b = lab.host("a"), lab.router("r1"), lab.router("r2"), lab.host("b")
    for number, (near, far) in enumerate([(a, r1), (r1, r2), (r2, b)]):
        lab.link(near, far, ip=f"10.0.{number}.1/24", peer_ip=f"10.0.{number}.2/24")
    return a, r1, r2, b


def normal(text: str) -> str:
    text = re.sub(r"\b[\d.e+-]+ (us|ms|s)\b", "<time>", text)
    text = re.sub(r"= [\d.]+/[\d.]+/[\d.]+/[\d.]+ ms", "= <times>", text)
    text = re.sub(r"= ([\d.]+/){3}<time>", "= <times>", text)
    text = re.sub(r"^ +kernel .*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"port \d{5}", "port <port>", text)


def test_another_path(nodes: tuple[Host, Host, Host, Host], snapshot: SnapshotAssertion) -> None:
    a, r1, r2, b = nodes
    with pytest.raises(CheckFailed) as failure:
        assert_path(a, b, [r2, r1, b])
    assert normal(str(failure.value)) == snapshot


def test_a_longer_path(nodes: tuple[Host, Host, Host, Host], snapshot: SnapshotAssertion) -> None:
    a, r1, _, b = nodes
    with pytest.raises(CheckFailed) as failure:
        assert_path(a, b, [r1, b])
    assert normal(str(failure.value)) == snapshot


def test_a_shorter_path(nodes: tuple[Host, Host, Host, Host], snapshot: SnapshotAssertion) -> None:
    a, r1, r2, b = nodes
    with pytest.raises(CheckFailed) as failure:
        assert_path(a, b, [r1, r2, r1, b])
    assert normal(str(failure.value)) == snapshot


def test_a_path_that_ends_early(nodes: tuple[Host, Host, Host, Host], snapshot: SnapshotAssertion) -> None:
    a, r1, r2, b = nodes
    assert_path(a, b, [r1, r2, b])
    r2.sysctl["net.ipv4.ip_forward"] = "0"
    with pytest.raises(CheckFailed) as failure:
        assert_path(a, b, [r1, r2, b], within="100 ms")
    assert normal(str(failure.value)) == snapshot


def test_a_path_that_is_refused(nodes: tuple[Host, Host, Host, Host], snapshot: SnapshotAssertion) -> None:
    a, r1, r2, b = nodes
    assert_path(a, b, [r1, r2, b])
    r1.run(["ip", "route", "del", "10.0.2.0/24"])
    with pytest.raises(CheckFailed) as failure:
        assert_path(a, b, [r1, r2, b])
    assert normal(str(failure.value)) == snapshot


def test_a_trace_as_text(nodes: tuple[Host, Host, Host, Host], snapshot: SnapshotAssertion) -> None:
    assert normal(str(traceroute(nodes[0], nodes[3]))) == snapshot


def test_a_ping_as_text(nodes: tuple[Host, Host, Host, Host], snapshot: SnapshotAssertion) -> None:
    assert normal(str(ping(nodes[0], nodes[3]))) == snapshot


@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
def test_reachable_after_all(nodes: tuple[Host, Host, Host, Host], protocol: str, snapshot: SnapshotAssertion) -> None:
    with pytest.raises(CheckFailed) as failure:
        assert_unreachable(nodes[0], nodes[3], protocol=protocol)  # type: ignore[arg-type]
    assert normal(str(failure.value)) == snapshot


def test_udp_silence_decides_nothing(nodes: tuple[Host, Host, Host, Host], snapshot: SnapshotAssertion) -> None:
    a, _, _, b = nodes
    assert_reachable(a, b)

    def bind() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", 514))
        return sock

    with b.call(bind), pytest.raises(CheckFailed) as failure:
        assert_unreachable(a, b, protocol="udp", port=514, within="100 ms")
    assert normal(str(failure.value)) == snapshot


def test_impaired_links_decide_nothing(nodes: tuple[Host, Host, Host, Host], snapshot: SnapshotAssertion) -> None:
    a, _, _, b = nodes
    assert_reachable(a, b)
    link = a.ports[0].link
    texts = []
    for impairment in ({"loss": "60 %"}, {"delay": "200 ms"}):
        link.clear()
        link.impair(**impairment)
        b.sysctl["net.ipv4.icmp_echo_ignore_all"] = "1"
        with pytest.raises(CheckFailed) as failure:
            assert_unreachable(a, b, within="100 ms")
        texts.append(str(failure.value))
    assert normal("\n".join(texts)) == snapshot


def test_what_a_proof_reads_like(nodes: tuple[Host, Host, Host, Host], snapshot: SnapshotAssertion) -> None:
    a, _, r2, b = nodes
    assert_reachable(a, b)
    r2.sysctl["net.ipv4.ip_forward"] = "0"
    texts = [
        measure_unreachable(a, b).explain(),
        measure_unreachable(a, r2, protocol="tcp", port=80).explain(),
        measure_unreachable(a, "10.0.0.77", within="100 ms").explain(),
    ]
    assert normal("\n".join(texts)) == snapshot
