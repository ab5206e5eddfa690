"""Packets checked end to end: whole batches behind sentinels, and one packet at a time as test benches do it."""

from __future__ import annotations

import select
import statistics
import time
from collections.abc import Callable

from measure import Row, progress

from pytest_infra import Infra, Lab
from pytest_infra.packet import Classifier, NftIngress, OvsFlows, Packet, Probed, RteAcl, Rule
from pytest_infra.packet.probe import numbered

BATCH = 4000
ONE_BY_ONE = 10
NEGATIVE_S = 0.1  # how long the other way waits for "and nowhere else"; the usual default is 1 s


def packets(port: str) -> list[Packet]:
    return [Packet(in_port=port, proto="udp", sport=number, dport=number % 200) for number in range(BATCH)]


def per_second(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def checked(device: Probed, model: Classifier, some: list[Packet]) -> None:
    """Every packet is sent, and where it came out and with which headers is compared with the model."""
    for got, wanted in zip(device.classify_all(some), model.classify_all(some), strict=True):
        assert got.to == wanted.to
        assert got.packet == wanted.packet


def one_by_one(device: Probed, model: Classifier, some: list[Packet]) -> None:
    """Send one, wait until it arrives, then wait to see that nothing else arrives anywhere."""
    rings = device.bench._rings
    for place, packet in enumerate(some):
        (to,) = model.classify(packet).to
        rings[packet.in_port].send(numbered(packet, place))
        assert rings[to].wait(1.0)
        assert any(frame.startswith(numbered(packet, place)[:12]) for frame in [seen.data for seen in rings[to].take()])
        poll = select.poll()
        for ring in rings.values():
            poll.register(ring.socket, select.POLLIN)
        poll.poll(NEGATIVE_S * 1000)


def devices(lab: Lab) -> list[tuple[str, Probed, int]]:
    switch, box = lab.ovs("sw1"), lab.host("box")
    for number in (1, 2, 3):
        lab.link(lab.host(f"a{number}"), switch, ip=[])
        lab.link(box, lab.host(f"b{number}"), ip=[], peer_ip=[])
    lab.up()
    for node in lab.nodes.values():
        node.sysctl["net.ipv6.conf.all.disable_ipv6"] = "1"
    return [
        ("nftables, over veth", Probed(NftIngress(box)), 20_000),
        ("Open vSwitch, userspace datapath", Probed(OvsFlows(switch)), 5_000),
    ]


def policy(ports: tuple[str, ...]) -> Classifier:
    _, b, c = ports
    return Classifier([Rule("low", proto="udp", dport=(0, 99), to=b), Rule("high", proto="udp", to=c)], ports=ports)


def packet_rates(runs: int) -> list[Row]:
    """Packets a second checked end to end."""
    rows = []
    with Infra() as infra, infra.lab("bench") as lab:
        for name, device, least in devices(lab):
            with device:
                model = policy(device.ports)
                device.install(model)
                some = packets(device.ports[0])
                checked(device, model, some)  # imports, and the frames are built
                progress(name)
                rates, singles = [], []
                for _ in range(runs):
                    rates.append(per_second(BATCH, lambda: checked(device, model, some)))  # noqa: B023
                    few = some[:ONE_BY_ONE]
                    singles.append(per_second(ONE_BY_ONE, lambda: one_by_one(device, model, few)))  # noqa: B023
                met = statistics.median(rates) >= least
                rows.append(Row(f"checked in batches behind sentinels: {name}", "/s", rates, f"{least} /s", met))
                rows.append(Row(f"checked one by one, {NEGATIVE_S:g} s for each negative: {name}", "/s", singles))
    return [*rows, oracle(runs)]


def oracle(runs: int) -> Row:
    with RteAcl(ports=("p1", "p2", "p3"), outputs=("p1", "p2", "p3")) as acl:
        acl.install(policy(acl.ports))
        some = packets("p1")
        rates = [per_second(BATCH, lambda: acl.classify_all(some)) for _ in range(runs)]
    assert statistics.median(rates) > 0
    return Row("verdicts of librte_acl, keys made in Python", "/s", rates)
