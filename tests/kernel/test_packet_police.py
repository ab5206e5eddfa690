"""Real policers keep to their rate and burst: nftables, tc, Open vSwitch's meters, Open vSwitch on DPDK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from pytest_infra.checks.police import assert_policed, offer
from pytest_infra.core.errors import BadInput, CheckFailed, Unavailable
from pytest_infra.lab import Lab
from pytest_infra.net.ovs_dpdk import Policer
from pytest_infra.net.ovs_dpdk_bridge import OvsDpdkBridge
from pytest_infra.packet.classifier import Classifier
from pytest_infra.packet.ingress import IngressDevice
from pytest_infra.packet.install_bpf import XdpIngress
from pytest_infra.packet.install_nft import NftIngress
from pytest_infra.packet.install_ovs import OvsFlows
from pytest_infra.packet.install_tc import TcFlower, TcU32
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.police import Police
from pytest_infra.packet.probed import Probed
from pytest_infra.packet.rule import Rule
from pytest_infra.session import Infra

RATE, BURST = "800 kbit/s", 110_000  # nftables' bucket holds what comes in a second at least
OFFERED = "12 Mbit/s"
FRAME = 0  # bytes of a frame that Open vSwitch's meters do not count


@pytest.fixture
def lab(session: Infra) -> Iterator[Lab]:
    with session.lab() as started:
        yield started


def box(lab: Lab, kind: type[IngressDevice]) -> IngressDevice:
    node = lab.host("box")
    for name in ("x", "y"):
        lab.link(node, lab.host(name), ip=[], peer_ip=[])
    lab.up()
    return kind(node)


def switch(lab: Lab, dpdk: bool = False) -> OvsFlows:
    bridge = lab.ovs("sw1", dpdk=dpdk)
    for name in ("a", "b"):
        lab.link(lab.host(name), bridge, ip=[])
    lab.up()
    return OvsFlows(bridge)


def install(device: IngressDevice | OvsFlows, *rules: Rule) -> Packet:
    """Rules from the first port to the second one, and a packet for them."""
    device.install(Classifier(rules, ports=device.ports))
    return Packet(in_port=device.ports[0], proto="udp")


@pytest.mark.parametrize("kind", [NftIngress, TcFlower, TcU32])
def test_policers_of_the_kernel(lab: Lab, kind: type[IngressDevice]) -> None:
    device = box(lab, kind)
    packet = install(device, Rule("all", to=device.ports[1], police=Police(RATE, BURST)))
    with Probed(device) as probed:
        assert_policed(offer(probed, packet, rate=OFFERED), rate=RATE, burst=BURST)
        packet = install(device, Rule("all", to=device.ports[1], police=Police("4 Mbit/s", 510_000)))
        with pytest.raises(CheckFailed, match=r"the policer lets .* bytes too much through"):
            assert_policed(offer(probed, packet, rate=OFFERED), rate=RATE, burst=BURST)


def test_a_meter_of_open_vswitch(lab: Lab) -> None:
    device = switch(lab)
    packet = install(device, Rule("all", to="sw1-p2", police=Police("2 Mbit/s", 10_000)))
    with Probed(device) as probed:
        assert_policed(
            offer(probed, packet, rate=OFFERED, header_bytes=FRAME), rate="2 Mbit/s", burst=10_000, tick="1 ms"
        )


POLICERS = {
    "RFC 2697": (Policer("2 Mbit/s", 10_000), {"rate": "2 Mbit/s", "burst": 10_000}),
    "RFC 4115": (
        Policer("1 Mbit/s", 10_000, "1 Mbit/s", 20_000),
        {"rate": "1 Mbit/s", "burst": 10_000, "excess": ("1 Mbit/s", 20_000)},
    ),
}


@pytest.mark.parametrize("name", POLICERS)
def test_policers_of_open_vswitch_on_dpdk(lab: Lab, name: str) -> None:
    policer, wanted = POLICERS[name]
    device = switch(lab, dpdk=True)
    assert isinstance(device.bridge, OvsDpdkBridge)
    packet = install(device, Rule("all", in_port="sw1-p1", to="sw1-p2"))
    device.bridge.police(device.bridge.ports[1], policer)
    with Probed(device) as probed:
        assert_policed(offer(probed, packet, rate=OFFERED), **wanted)  # type: ignore[arg-type]
        device.bridge.police(device.bridge.ports[1], Policer("1 Mbit/s", 10_000))
        with pytest.raises(CheckFailed, match=r"the policer drops \d+ bytes too much"):
            assert_policed(offer(probed, packet, rate=OFFERED), **wanted)  # type: ignore[arg-type]


COLOURS = ("AF11", "AF12", "AF13")


@pytest.mark.parametrize("kind", [NftIngress])
@pytest.mark.parametrize("aware", [False, True], ids=["blind", "aware"])
def test_three_colours(lab: Lab, kind: type[IngressDevice], aware: bool) -> None:
    """Two buckets that know nothing of each other: RFC 4115. What was yellow cannot become green, and red stays out."""
    device = box(lab, kind)
    out = device.ports[1]
    rest = {"to": out, "proto": "udp"}
    packet = install(
        device,
        *([Rule("red", proto="udp", dscp="AF13", drop=True)] if aware else []),
        Rule(
            "green",
            **rest,
            dscp="AF11" if aware else None,
            set={"dscp": "AF11"},
            police=Police("400 kbit/s", 60_000, beyond="next"),
        ),
        Rule("yellow", **rest, set={"dscp": "AF12"}, police=Police("240 kbit/s", 40_000, beyond="next")),
    )
    coloured = [Packet(in_port=packet.in_port, proto="udp", dscp=colour) for colour in COLOURS]
    with Probed(device) as probed:
        seen = offer(probed, coloured if aware else packet, rate=OFFERED)
    green = seen.where(lambda after: after.dscp == 10)
    assert_policed(green, rate="400 kbit/s", burst=60_000)
    assert_policed(seen.where(lambda after: after.dscp == 12, beside=green), rate="240 kbit/s", burst=40_000)
    if aware:
        assert not any(item.passed for item in green.items[1::3]), "yellow became green"
        assert not any(item.passed for item in seen.items[2::3]), "red came through"


@pytest.mark.parametrize(
    ("police", "words"),
    [
        (Police("2 Mbit/s", 10_000), "holds at least what comes in a second"),
        (Police("801 bit/s", 10_000), "at whole bytes"),
    ],
)
def test_what_nftables_cannot_police_exactly(lab: Lab, police: Police, words: str) -> None:
    device = box(lab, NftIngress)
    with pytest.raises(Unavailable, match=words):
        install(device, Rule("all", to="eth1", police=police))


def test_what_others_cannot(lab: Lab) -> None:
    device = box(lab, XdpIngress)
    with pytest.raises(Unavailable, match="it cannot do police of rule 'all'"):
        install(device, Rule("all", to="eth1", police=Police(RATE, BURST)))
    other = switch(lab)
    for police, words in (
        (Police("1500 bit/s", 10_000), "whole kbit/s"),
        (Police(RATE, BURST, beyond="next"), "a meter drops what is beyond"),
    ):
        with pytest.raises(Unavailable, match=words):
            install(other, Rule("all", to="sw1-p2", police=police))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Police("1 Mbit/s", 1000), "less than a packet of 1500"),
        (lambda: Police(1, 2000), "at least 8 bit/s"),
        (lambda: Police(RATE, BURST, beyond="yellow"), "allowed are 'drop' and 'next'"),
        (lambda: Rule("r", drop=True, police=Police(RATE, BURST)), "it drops the packet, so police"),
    ],
)
def test_bad_input(make: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make()  # type: ignore[operator]


def test_offers_that_cannot_be_made(lab: Lab) -> None:
    device = box(lab, NftIngress)
    packet = install(device, Rule("all", to="eth1"))
    wrong: Sequence[tuple[dict[str, object], str]] = [
        ({"size": 30}, "has at least 58 bytes"),
        ({"rate": "100 kbit/s", "duration": "10 ms"}, "from 2 to 8000 can be"),
    ]
    with Probed(device) as probed:
        for arguments, words in wrong:
            with pytest.raises(BadInput, match=words):
                offer(probed, packet, **{"rate": OFFERED, **arguments})  # type: ignore[arg-type]
        whole = offer(probed, packet, rate="4 Mbit/s", duration="100 ms")
        with pytest.raises(BadInput, match="send more, or faster"):
            assert_policed(whole, rate=RATE, burst=BURST)
