"""Load balancers of others, judged alike: nftables' jhash and numgen, haproxy, nginx, and a program of one's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from webserver import start_nginx

from pytest_infra.checks.balance import NOBODY, Delivery, assert_flow_affinity, assert_flow_order, assert_spread
from pytest_infra.checks.deliver import connect_flows, send_flows
from pytest_infra.checks.reach import assert_reachable
from pytest_infra.core.errors import BadInput, CheckFailed
from pytest_infra.core.wait import until
from pytest_infra.lab import Lab
from pytest_infra.packet.install_nft import SENTINEL_MATCH
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.probe import Bench, sentinel_frame
from pytest_infra.packet.probed import SENTINEL_TYPE
from pytest_infra.session import Infra

OWN_BALANCER = str(Path(__file__).with_name("own_balancer.py"))
FLOWS = 400
WORKERS = ("w1", "w2", "w3", "w4")
PORTS = ("eth1", "eth2", "eth3", "eth4")
MAP = ", ".join(f'{number} : "{port}"' for number, port in enumerate(PORTS))
FIVE_TUPLE = "ip saddr . ip daddr . udp sport . udp dport"


@pytest.fixture
def lab(session: Infra) -> Iterator[Lab]:
    with session.lab() as started:
        yield started


def flows(**fields: Any) -> list[Packet]:
    return [Packet(proto="udp", sport=1000 + flow, dport=80, **fields) for flow in range(FLOWS)]


def judge(seen: Sequence[Delivery], workers: Sequence[str]) -> Any:
    assert_flow_affinity(seen)
    assert_flow_order(seen)
    return assert_spread(seen, workers)


# -- nftables at the ingress of an interface: each packet for itself ------------------------------------------------


def ingress(lab: Lab, choice: str) -> list[Delivery]:
    """What a balancer does whose only rule sends each packet to one of four interfaces."""
    box = lab.host("lb")
    for name in ("client", *WORKERS):
        lab.link(box, lab.host(name), ip=[], peer_ip=[])
    copies = " ".join(f'dup to "{port.name}"' for port in box.ports[:-1])
    box.nft(f"""table netdev lb {{
        chain in {{
            type filter hook ingress device "eth0" priority 0; policy drop
            {SENTINEL_MATCH} {copies} fwd to "eth4"
            udp dport 80 fwd to {choice}
        }}
    }}""")
    with Bench({port.name: port.peer for port in box.ports}, sentinel_frame(SENTINEL_TYPE)) as bench:
        return send_flows(bench, "eth0", flows())


def test_jhash(lab: Lab) -> None:
    assert judge(ingress(lab, f"jhash {FIVE_TUPLE} mod 4 seed 0x5eed map {{ {MAP} }}"), PORTS).ok


def test_jhash_with_a_worker_that_is_in_the_map_twice(lab: Lab) -> None:
    seen = ingress(lab, f'jhash {FIVE_TUPLE} mod 5 seed 0x5eed map {{ {MAP}, 4 : "eth1" }}')
    assert_flow_affinity(seen)
    assert_spread(seen, {"eth1": 2, "eth2": 1, "eth3": 1, "eth4": 1})
    with pytest.raises(CheckFailed, match="the flows are spread unevenly over the workers"):
        assert_spread(seen, PORTS)


@pytest.mark.parametrize("how", ["inc", "random"])
def test_numgen_for_each_packet_tears_flows(lab: Lab, how: str) -> None:
    seen = ingress(lab, f"numgen {how} mod 4 map {{ {MAP} }}")
    with pytest.raises(CheckFailed, match=r"of 400 flows are torn between workers"):
        assert_flow_affinity(seen)


def test_a_hash_that_leads_nowhere_loses_flows(lab: Lab) -> None:
    seen = ingress(lab, f"jhash {FIVE_TUPLE} mod 5 seed 0x5eed map {{ {MAP} }}")
    with pytest.raises(CheckFailed, match=r"\d+ of 400 flows reached no worker"):
        assert_spread(seen, PORTS)


def test_what_is_no_worker(lab: Lab) -> None:
    seen = ingress(lab, f'jhash {FIVE_TUPLE} mod 5 seed 0x5eed map {{ {MAP}, 4 : "eth0" }}')
    with pytest.raises(BadInput, match="went to 'eth0'; the workers are"):
        assert_spread(seen, PORTS)


# -- nftables on a router: once for each connection ------------------------------------------------------------------


def router(lab: Lab, choice: str) -> list[Delivery]:
    """What a router does that gives each new connection one of four destinations."""
    box = lab.router("lb")
    lab.link(box, lab.host("client"), ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    for number, name in enumerate(WORKERS, 1):
        lab.link(box, lab.host(name), ip=f"10.0.{number}.1/24", peer_ip=f"10.0.{number}.2/24")
    targets = ", ".join(f"{number} : 10.0.{number + 1}.2" for number in range(4))
    box.nft(f"""table ip lb {{
        chain to {{
            type nat hook prerouting priority -100
            udp dport 80 dnat to {choice} map {{ {targets} }}
        }}
    }}""")
    lab.up()
    for name in WORKERS:
        assert_reachable(box, lab.nodes[name])  # the router knows their MAC addresses from here on
        lab.nodes[name].nft("table ip w { chain i { type filter hook input priority 0; udp dport 80 drop; }; }")
    packets = flows(src="10.0.0.2", dst="10.9.9.9", eth_dst=box.ports[0].mac)
    with Bench({port.name: port.peer for port in box.ports}, None, quiet_s=0.2) as bench:
        return send_flows(bench, "eth0", packets)


@pytest.mark.parametrize("how", ["inc", "random"])
def test_numgen_for_each_connection(lab: Lab, how: str) -> None:
    seen = router(lab, f"numgen {how} mod 4")
    judge(seen, PORTS)
    with pytest.raises(CheckFailed, match="the flows are spread unevenly"):
        assert_spread(seen, {"eth1": 3, "eth2": 1, "eth3": 1, "eth4": 1})


# -- haproxy and nginx: proxies; a flow is an address that connections come from ------------------------------------

SOURCES = [f"10.0.7.{number}" for number in range(1, 100)]  # not a multiple of four
HAPROXY = """
defaults
    mode tcp
    retries 0
    timeout connect 2s
    timeout client 2s
    timeout server 2s
frontend all
    bind 10.0.0.1:80
    default_backend workers
backend workers
    balance {how}
"""
GET = b"GET / HTTP/1.0\r\n\r\n"


def proxied(lab: Lab, folder: Path) -> tuple[Any, Any]:
    """The balancer's node and the client; four workers of nginx that say who they are."""
    box, client = lab.router("lb"), lab.host("client")
    lab.link(box, client, ip="10.0.0.1/16", peer_ip=["10.0.0.2/16", *(f"{source}/16" for source in SOURCES)])
    for number, name in enumerate(WORKERS, 1):
        worker = lab.host(name)
        lab.link(box, worker, ip=f"10.1.{number}.1/24", peer_ip=f"10.1.{number}.2/24")
        (folder / name).mkdir()
        start_nginx(worker, folder / name, f'listen 80; location / {{ return 200 "{name}\\n"; }}')
        wait_for(box, f"10.1.{number}.2")
    return box, client


def wait_for(node: Any, address: str) -> None:
    def answers() -> bool:
        (seen,) = connect_flows(node, address, 80, ["0.0.0.0"], each=1, request=GET)
        return seen.worker != NOBODY

    until(answers, within_s=10, what=f"{address} answers")


def last_line(answer: bytes) -> str:
    return answer.decode().split()[-1]


def haproxy(box: Any, folder: Path, how: str, workers: Sequence[int] = (1, 2, 3, 4)) -> None:
    servers = "".join(f"    server w{number} 10.1.{number}.2:80\n" for number in workers)
    (folder / "haproxy.cfg").write_text(HAPROXY.format(how=how) + servers)
    box.spawn(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")])
    wait_for(box, "10.0.0.1")


def nginx(box: Any, folder: Path, how: str) -> None:
    servers = " ".join(f"server 10.1.{number}.2;" for number in (1, 2, 3, 4))
    (folder / "lb").mkdir()
    pool = f"listen 10.0.0.1:80; location / {{ proxy_pass http://workers; }} }} upstream workers {{ {how} {servers}"
    start_nginx(box, folder / "lb", pool)
    wait_for(box, "10.0.0.1")


def connections(client: Any) -> list[Delivery]:
    return connect_flows(client, "10.0.0.1", 80, SOURCES, request=GET, worker=last_line)


@pytest.mark.infra_requires("nginx")
def test_haproxy(lab: Lab, tmp_path: Path) -> None:
    box, client = proxied(lab, tmp_path)
    haproxy(box, tmp_path, "source")
    assert judge(connections(client), WORKERS).ok


@pytest.mark.infra_requires("nginx")
def test_haproxy_that_forgets_its_flows(lab: Lab, tmp_path: Path) -> None:
    box, client = proxied(lab, tmp_path)
    haproxy(box, tmp_path, "random")
    with pytest.raises(CheckFailed, match="flows are torn between workers"):
        assert_flow_affinity(connections(client))


@pytest.mark.infra_requires("nginx")
def test_haproxy_that_leaves_a_worker_out(lab: Lab, tmp_path: Path) -> None:
    box, client = proxied(lab, tmp_path)
    haproxy(box, tmp_path, "source", (1, 2, 3))
    with pytest.raises(CheckFailed, match="w4 got none"):
        assert_spread(connections(client), WORKERS)


@pytest.mark.infra_requires("nginx")
@pytest.mark.parametrize("how", ["hash $remote_addr;", ""], ids=["hash", "in turn"])
def test_nginx(lab: Lab, tmp_path: Path, how: str) -> None:
    box, client = proxied(lab, tmp_path)
    nginx(box, tmp_path, how)
    if how:
        judge(connections(client), WORKERS)
    else:
        with pytest.raises(CheckFailed, match="flows are torn between workers"):
            assert_flow_affinity(connections(client))


@pytest.mark.infra_requires("nginx")
def test_a_worker_that_is_dead_is_found(lab: Lab, tmp_path: Path) -> None:
    box, client = proxied(lab, tmp_path)
    haproxy(box, tmp_path, "source")
    lab.nodes["w2"].processes[0].stop()
    seen = connect_flows(client, "10.0.0.1", 80, SOURCES[:20], each=1, request=GET, worker=last_line)
    with pytest.raises(CheckFailed, match=r"\d+ of 20 flows reached no worker"):
        assert_spread(seen, WORKERS)


def test_an_address_that_the_client_lacks(lab: Lab) -> None:
    with pytest.raises(BadInput, match=r"cannot connect from 10\.9\.9\.9: .*; the client must have it"):
        connect_flows(lab.host("client"), "10.0.0.1", 80, ["10.9.9.9"])


# -- a program of one's own --------------------------------------------------------------------------------------


def own(lab: Lab, fault: str) -> list[Delivery]:
    box = lab.host("lb")
    for name in ("client", *WORKERS):
        lab.link(box, lab.host(name), ip=[], peer_ip=[])
    program = box.spawn([sys.executable, OWN_BALANCER, fault, "eth0", *PORTS])
    program.wait_for("ready")
    with Bench({port.name: port.peer for port in box.ports}, None, quiet_s=0.2) as bench:
        return send_flows(bench, "eth0", flows())


def test_an_own_program(lab: Lab) -> None:
    assert judge(own(lab, "none"), PORTS).ok


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("forgets", "of 400 flows are torn between workers"),
        ("overtakes", "of 1600 packets were overtaken within their flow"),
        ("leaves-out", "the flows are spread unevenly: eth4 got none"),
        ("loses", "of 400 flows reached no worker"),
    ],
)
def test_what_is_wrong_with_an_own_program_is_found(lab: Lab, fault: str, words: str) -> None:
    with pytest.raises(CheckFailed, match=words):
        judge(own(lab, fault), PORTS)
