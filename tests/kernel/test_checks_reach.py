"""ping, assert_reachable, traceroute and assert_path in real labs."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from pytest_infra.checks import assert_path, assert_reachable, measure_reach, ping, traceroute
from pytest_infra.checks.inet import local_address
from pytest_infra.checks.probe_icmp import echo
from pytest_infra.core.errors import BadInput, CheckFailed, StartFailed
from pytest_infra.core.units import duration_s
from pytest_infra.lab import Lab
from pytest_infra.net.host import Host
from pytest_infra.session import Infra

FAMILIES = ["ipv4", "ipv6"]


@pytest.fixture
def lab(session: Infra) -> Iterator[Lab]:
    with session.lab() as started:
        yield started


@pytest.fixture
def pair(lab: Lab) -> tuple[Host, Host]:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    return a, b


def chain(lab: Lab, routers: int) -> tuple[Host, list[Host], Host]:
    """a - r1 - … - b."""
    a, b = lab.host("a"), lab.host("b")
    between: list[Host] = [lab.router(f"r{number + 1}") for number in range(routers)]
    nodes = [a, *between, b]
    for near, far in pairwise(nodes):
        lab.link(near, far)
    return a, between, b


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
@pytest.mark.parametrize("switch", ["bridge", "ovs", None])
def test_hosts_on_a_switch_reach_each_other(lab: Lab, family: str, protocol: str, switch: str | None) -> None:
    a, b = lab.host("a"), lab.host("b")
    if switch:
        middle = getattr(lab, switch)("sw1")
        lab.link(a, middle)
        lab.link(b, middle)
    else:
        lab.link(a, b)
    for near, far in ((a, b), (b, a)):
        report = assert_reachable(near, far, family=family, protocol=protocol, count=3)  # type: ignore[arg-type]
        assert report.received == report.count == 3
        assert all(rtt is not None and 0 < rtt < 1 for rtt in report.rtts_s)
        assert (":" in report.address) == (family == "ipv6")
        assert json.loads(json.dumps(report.to_dict()))["ok"] is True


@pytest.mark.parametrize("protocol", ["icmp", "tcp", "udp"])
def test_a_host_reaches_itself(pair: tuple[Host, Host], protocol: str) -> None:
    assert_reachable(pair[0], pair[0], protocol=protocol)  # type: ignore[arg-type]


def test_targets_are_nodes_addresses_or_both(pair: tuple[Host, Host]) -> None:
    a, b = pair
    assert_reachable(a, b)
    first = b.ports[0].addresses[0].ip
    for target in (first, str(first), (b, first), (b, str(first)), (b, "127.0.0.1")[:1][0]):
        assert assert_reachable(a, target).destination == "b"
    mine = a.ports[0].addresses[0].ip
    assert assert_reachable((a, mine), b).ok


def test_an_address_of_a_shared_subnet_is_preferred(lab: Lab) -> None:
    a, b, c = lab.host("a"), lab.host("b"), lab.host("c")
    lab.link(b, c, ip="10.1.0.1/24", peer_ip="10.1.0.2/24")
    lab.link(a, b, ip="10.2.0.1/24", peer_ip="10.2.0.2/24")
    assert measure_reach(a, b).address == "10.2.0.2"
    assert measure_reach(c, b).address == "10.1.0.1"


def test_a_link_local_address_is_reached_by_the_only_interface(pair: tuple[Host, Host]) -> None:
    a, b = pair
    assert_reachable(a, b)
    link_local = next(item.ip.ip for item in b.addresses if item.scope == "link")
    assert assert_reachable(a, link_local).ok
    assert assert_reachable(a, f"{link_local}%eth0").ok


@pytest.mark.parametrize("family", FAMILIES)
def test_a_ping_is_measured(pair: tuple[Host, Host], family: str) -> None:
    report = ping(*pair, count=5, interval=0, size=1000, family=family)  # type: ignore[arg-type]
    assert (report.sent, report.received, report.duplicates, report.loss, report.ok) == (5, 5, 0, 0.0, True)
    assert report.rtt is not None
    assert 0 < report.rtt.min_s <= report.rtt.avg_s <= report.rtt.max_s < 1
    assert report.elapsed_s >= report.rtt.max_s


def test_the_interval_is_kept(pair: tuple[Host, Host]) -> None:
    assert ping(*pair, count=4, interval="50 ms").elapsed_s >= 0.15


@pytest.mark.parametrize("size", [0, 1, 7, 8, 1472, 60000])
def test_any_size_of_payload_comes_back(pair: tuple[Host, Host], size: int) -> None:
    assert ping(*pair, count=2, size=size).ok


def test_parallel_pings_do_not_take_each_others_answers(pair: tuple[Host, Host]) -> None:
    a, b = pair
    assert_reachable(a, b)
    results = []

    def run() -> None:
        # In threads of their own, all in the namespace of a, so that every socket sees every answer.
        results.append(echo(address, count=200, within_s=2.0))

    address = str(b.ports[0].addresses[0].ip)

    def all_at_once() -> None:
        threads = [threading.Thread(target=run) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    a.call(all_at_once)
    assert len(results) == 5
    assert all(result.duplicates == 0 and all(answer.replied for answer in result.answers) for result in results)


def test_a_bridge_that_doubles_packets_gives_duplicates(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    switch = lab.ovs("sw1")
    lab.link(a, switch, ip="10.0.0.1/24")
    lab.link(b, switch, ip="10.0.0.2/24")
    assert_reachable(a, b)
    switch.ofctl(["add-flow", "sw1", "priority=100,icmp,in_port=sw1-p2,actions=output:sw1-p1,output:sw1-p1"])
    report = ping(a, b, count=5)
    assert report.received == 5
    assert report.duplicates >= 4  # the last one may come after the end


@pytest.mark.parametrize("family", FAMILIES)
def test_an_icmp_error_is_recorded_and_ends_the_check_at_once(lab: Lab, family: str) -> None:
    a, (r1,), b = chain(lab, 1)
    assert_reachable(a, b, family=family)  # type: ignore[arg-type]
    report = ping(a, b, count=2, ttl=1, family=family)  # type: ignore[arg-type]
    assert [str(answer.icmp.words) for answer in report.errors if answer.icmp] == ["time exceeded in transit"] * 2
    assert {answer.sender for answer in report.errors} <= {str(ip.ip) for port in r1.ports for ip in port.addresses}
    network = next(ip.network for ip in b.ports[0].addresses if ip.version == (4 if family == "ipv4" else 6))
    r1.run(["ip", "route", "del", str(network)])
    started = time.monotonic()
    with pytest.raises(CheckFailed, match=r"^a cannot reach b: ICMP (net unreachable|no route) from .* \(r1\)"):
        assert_reachable(a, b, count=5, family=family)  # type: ignore[arg-type]
    assert time.monotonic() - started < 0.9


def test_a_tcp_server_is_reached(pair: tuple[Host, Host]) -> None:
    a, b = pair
    with b.call(socket.create_server, ("0.0.0.0", 8080)):
        assert assert_reachable(a, b, protocol="tcp", port=8080).port == 8080
        with pytest.raises(StartFailed, match=r"b has a server on TCP port 8080 already"):
            assert_reachable(a, b, protocol="tcp", port=8080, serve=True)
    assert assert_reachable(a, b, protocol="tcp", port=8080, serve=True).served


def test_a_udp_server_that_answers_is_reached(pair: tuple[Host, Host]) -> None:
    a, b = pair

    def bind() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", 5353))
        sock.settimeout(5)
        return sock

    with b.call(bind) as server:

        def answer() -> None:
            data, sender = server.recvfrom(100)
            server.sendto(data.upper(), sender)

        thread = threading.Thread(target=answer)
        thread.start()
        report = assert_reachable(a, b, protocol="udp", port=5353, payload=b"hello")
        thread.join()
    assert report.ok
    assert not report.served


def test_the_checks_own_listener_is_gone_afterwards(pair: tuple[Host, Host]) -> None:
    a, b = pair
    port = assert_reachable(a, b, protocol="tcp").port
    assert port is not None
    report = measure_reach(a, b, protocol="tcp", port=port)
    assert report.failure.kind == "reset"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_that_ends_elsewhere_does_not_count(lab: Lab, family: str) -> None:
    """With serve, only the check's own listener in b counts, not one to which the traffic was redirected."""
    a, (r1,), b = chain(lab, 1)
    assert_reachable(a, b, family=family, protocol="tcp", port=7777, serve=True)  # type: ignore[arg-type]
    version, anywhere = ("ip", "0.0.0.0") if family == "ipv4" else ("ip6", "::")
    listener = r1.call(
        socket.create_server, (anywhere, 7777), family=socket.AF_INET6 if family == "ipv6" else socket.AF_INET
    )
    with listener:
        r1.run(["nft", f"add table {version} t"])
        r1.run(["nft", f"add chain {version} t c {{ type nat hook prerouting priority -100; }}"])
        r1.run(["nft", f"add rule {version} t c tcp dport 7777 redirect"])
        report = measure_reach(a, b, family=family, protocol="tcp", port=7777, serve=True, within="200 ms")  # type: ignore[arg-type]
    assert not report.ok


def test_with_a_time_given_it_tries_again_until_then(pair: tuple[Host, Host]) -> None:
    a, b = pair
    assert_reachable(a, b)
    timer = threading.Timer(0.2, lambda: servers.append(b.call(socket.create_server, ("0.0.0.0", 8080))))
    servers: list[socket.socket] = []
    timer.start()
    report = assert_reachable(a, b, protocol="tcp", port=8080, within="30 s")
    timer.join()
    servers[0].close()
    assert report.tries > 1
    assert 0.1 < report.elapsed_s < 20


def test_a_refusal_is_told_even_when_the_last_try_is_silent(lab: Lab) -> None:
    """The kernel sends only a few ICMP errors a second: most of these tries meet with silence."""
    a, (r1,), b = chain(lab, 1)
    assert_reachable(a, b)
    r1.run(["ip", "route", "del", str(next(ip.network for ip in b.ports[0].addresses if ip.version == 4))])
    with pytest.raises(CheckFailed, match=r"^a cannot reach b: ICMP net unreachable from .* \(r1\)"):
        assert_reachable(a, b, within="500 ms")


def test_time_is_kept(pair: tuple[Host, Host]) -> None:
    a, b = pair
    b.sysctl["net.ipv4.icmp_echo_ignore_all"] = "1"
    started = time.monotonic()
    report = measure_reach(a, b, within="100 ms")
    assert report.answers[0].kind == "silence"
    assert 0.1 <= report.elapsed_s < 0.2 + 0.5
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "sctp"}, "protocol 'sctp' is not known; allowed are 'icmp', 'tcp', 'udp'"),
        ({"port": 80}, "port and serve do not go with protocol 'icmp'"),
        ({"protocol": "tcp", "port": 0}, "port 0 is not allowed"),
        ({"protocol": "tcp", "port": 80, "payload": b"x"}, "payload does not go with protocol 'tcp'"),
        ({"protocol": "udp", "payload": b"x"}, "payload is for the server on port="),
        ({"count": 0}, "count 0 is not allowed"),
        ({"within": 0}, "within 0 is not allowed"),
        ({"within": "1 fortnight"}, "within: duration '1 fortnight' has the unknown unit 'fortnight'"),
        ({"size": 70000}, "size 70000 is not allowed"),
        ({"family": "ipx"}, "family 'ipx' is not known; allowed are 'ipv4', 'ipv6' and None"),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed(
    pair: tuple[Host, Host], options: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput) as failure:
        assert_reachable(*pair, **options)  # type: ignore[arg-type]
    assert message in str(failure.value)


def test_bad_targets_are_refused(lab: Lab) -> None:
    a, b, c = lab.host("a"), lab.host("b"), lab.host("c")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    with pytest.raises(BadInput, match=r"'b' is not an IP address; give a node"):
        assert_reachable(a, "b")
    with pytest.raises(BadInput, match=r"the target 5 is not a node"):
        assert_reachable(a, 5)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"b has no address of the family 'ipv6'; it has 10.0.0.2/24"):
        assert_reachable(a, b, family="ipv6")
    with pytest.raises(BadInput, match=r"c has no address of IPv4 or IPv6; it has no address at all"):
        assert_reachable(a, c)
    with pytest.raises(BadInput, match=r"the source '10.0.0.1' is not a node"):
        assert_reachable("10.0.0.1", b)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"no node of the lab has 10.0.0.9, so the check cannot listen there"):
        assert_reachable(a, "10.0.0.9", protocol="tcp")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_is_traced(lab: Lab, family: str) -> None:
    a, routers, b = chain(lab, 10)
    report = traceroute(a, b, family=family)  # type: ignore[arg-type]
    assert report.reached
    assert report.names == (*(router.name for router in routers), "b")
    assert [hop.ttl for hop in report.hops] == list(range(1, 12))
    assert all(rtt is not None for hop in report.hops for rtt in hop.rtts_s)
    assert assert_path(a, b, [*routers, b], family=family).ok  # type: ignore[arg-type]
    assert assert_path(a, b, [*report.names], family=family).ok  # type: ignore[arg-type]
    assert assert_path(a, b, [hop.addresses[0] for hop in report.hops], family=family).ok  # type: ignore[arg-type]


def test_a_path_without_routers_is_its_end(pair: tuple[Host, Host]) -> None:
    assert assert_path(*pair, [pair[1]]).names == ("b",)


def test_more_probes_give_more_times(lab: Lab) -> None:
    a, _, b = chain(lab, 2)
    report = traceroute(a, b, probes=3)
    assert [len(hop.rtts_s) for hop in report.hops] == [3, 3, 3]
    assert report.reached


def test_a_path_longer_than_a_batch_is_traced(lab: Lab) -> None:
    a, routers, b = chain(lab, 20)
    assert traceroute(a, b).names == (*(router.name for router in routers), "b")
    assert not traceroute(a, b, max_hops=18).reached


def test_tracing_ten_routers_costs_about_one_round_trip(lab: Lab) -> None:
    a, _, b = chain(lab, 10)
    assert_reachable(a, b)
    assert min(traceroute(a, b).elapsed_s for _ in range(5)) < 0.05


def test_a_silent_router_is_a_gap(lab: Lab) -> None:
    a, (r1, r2), b = chain(lab, 2)
    assert_reachable(a, b)
    r1.run(["nft", "add table ip t"])
    r1.run(["nft", "add chain ip t c { type filter hook output priority 0; }"])
    r1.run(["nft", "add rule ip t c icmp type time-exceeded drop"])
    report = traceroute(a, b, within="200 ms")
    assert report.names == ("*", "r2", "b")
    with pytest.raises(CheckFailed, match=r"hop 1 is \*, not r1"):
        assert_path(a, b, [r1, r2, b], within="200 ms")


def test_a_path_has_to_be_written_to_its_end(lab: Lab) -> None:
    a, (r1,), b = chain(lab, 1)
    with pytest.raises(BadInput, match=r"the wanted path has to end with b"):
        assert_path(a, b, [r1])
    with pytest.raises(BadInput, match=r"'r9' is neither an IP address nor a node of the lab of a"):
        assert_path(a, b, ["r9", b])
    with pytest.raises(BadInput, match=r"switches are no hops"):
        assert_path(a, b, [lab.bridge("sw1"), b])  # type: ignore[list-item]


def test_the_kernel_is_asked_for_the_source_address(pair: tuple[Host, Host]) -> None:
    a, b = pair
    address = str(b.ports[0].addresses[0].ip) if a.call(int) == 0 else ""
    assert a.call(local_address, address) == str(a.ports[0].addresses[0].ip)
    assert a.call(local_address, "203.0.113.1") is None


def test_a_reachable_check_costs_little(pair: tuple[Host, Host]) -> None:
    a, b = pair
    assert_reachable(a, b)
    times = []
    for _ in range(50):
        started = time.perf_counter()
        assert_reachable(a, b)
        times.append(time.perf_counter() - started)
    assert min(times) < duration_s("500 us")
