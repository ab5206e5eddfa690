"""What the kernel classifies with: XDP, tc's bpf, flower and u32, a bridge with nftables. Each is asked by packets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pytest_infra.checks.agree import assert_agrees, assert_installs
from pytest_infra.checks.classify import assert_classified, assert_dropped
from pytest_infra.checks.survive import assert_survives
from pytest_infra.core.errors import BadInput, Unavailable
from pytest_infra.lab import Lab
from pytest_infra.packet.classifier import Classifier
from pytest_infra.packet.ingress import IngressDevice
from pytest_infra.packet.install_bpf import TcBpf, XdpIngress
from pytest_infra.packet.install_bridge import FORWARD, NftBridge
from pytest_infra.packet.install_tc import TcFilters, TcFlower, TcU32
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.probed import Probed
from pytest_infra.packet.rule import Rule
from pytest_infra.session import Infra

POLICIES = int(os.environ.get("INFRA_POLICIES", "8"))
KINDS: tuple[type[IngressDevice], ...] = (XdpIngress, TcBpf, TcFlower, TcU32)
MAC = "02:00:00:00:00:77"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Infra() as session, session.lab() as started:
        yield started


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.what)
def device(lab: Lab, request: pytest.FixtureRequest) -> IngressDevice:
    """A node of three ports; a skip where the kernel lacks the classifier."""
    kind: type[IngressDevice] = request.param
    box = lab.host(f"box{KINDS.index(kind)}")
    for number in range(3):
        lab.link(box, lab.host(f"{box.name}-{number}"), ip=[], peer_ip=[])
    lab.up()
    return kind(box)


@pytest.fixture(scope="module")
def bridge(lab: Lab) -> NftBridge:
    switch = lab.bridge("br1")
    for number in range(3):
        lab.link(lab.host(f"h{number}"), switch, ip=[])
    lab.up()
    return NftBridge(switch)


@pytest.mark.timeout(60 + 5 * POLICIES)
def test_random_policies(device: IngressDevice) -> None:
    with Probed(device) as probed:
        report = assert_installs(probed, examples=POLICIES)
    assert report.policies >= POLICIES


@pytest.mark.stock_kernel
def test_the_rule_is_told_by_its_counter_and_sets_what_it_can(device: IngressDevice) -> None:
    a, b, c = device.ports
    rules = [
        Rule("dns", in_port=a, proto="udp", dport=53, to=b, set={"eth_dst": MAC}),
        Rule("no ssh", proto="tcp", dport=22, drop=True),
        Rule("v6", src="2001:db8::/32", to=c, set={"eth_src": MAC}),
    ]
    device.install(Classifier(rules, default=a, ports=device.ports))
    with Probed(device, rules=True) as probed:
        ask = Packet(in_port=a, proto="udp", dport=53)
        assert_classified(probed, ask, into=b, via_rule="dns", changed={"eth_dst": MAC})
        assert_dropped(probed, Packet(in_port=b, proto="tcp", dport=22), by="no ssh")
        assert_classified(probed, Packet(in_port=b, src="2001:db8::7"), into=c, via_rule="v6", changed={"eth_src": MAC})
        assert_classified(probed, Packet(in_port=b, proto="udp", dport=53), into=a, via_rule="default", changed={})


@pytest.mark.stock_kernel
def test_a_rule_that_all_packets_match_ends_the_policy(device: IngressDevice) -> None:
    a, b, c = device.ports
    rules = [Rule("two", in_port=a, to=b), Rule("all", to=c), Rule("never", proto="udp", to=a)]
    model = Classifier(rules, default=a, ports=device.ports)
    device.install(model)
    with Probed(device) as probed:
        assert_agrees(probed, model)


@pytest.mark.parametrize(
    ("rule", "lacking"),
    [(Rule("t", tunnel_id=5, to="eth1"), "tunnel_id"), (Rule("q", to="eth1", queue=2), "queue")],
    ids=["tunnel", "queue"],
)
def test_what_it_cannot_express_is_said_and_changes_nothing(device: IngressDevice, rule: Rule, lacking: str) -> None:
    a, b, _ = device.ports
    before = Classifier([Rule("all", in_port=a, to=b)], ports=device.ports)
    device.install(before)
    with pytest.raises(Unavailable, match=f"it cannot do {lacking} of rule"):
        device.install(Classifier([rule]))
    assert device.installed is before
    with Probed(device) as probed:
        assert_agrees(probed, before)


def test_no_such_destination(device: IngressDevice) -> None:
    with pytest.raises(BadInput, match="no port or class 'mars'"):
        device.install(Classifier([Rule("m", to="mars")]))


def test_wide_ranges_take_too_many_filters(device: IngressDevice) -> None:
    rule = Rule("wide", proto="udp", sport=(1, 65534), dport=(1, 65534), to="eth1")
    if isinstance(device, TcU32):
        with pytest.raises(Unavailable, match="more than 256 filters"):
            device.install(Classifier([rule]))
    elif isinstance(device, TcFilters):
        with pytest.raises(Unavailable, match="vlan='none' of rule 'untagged' without an eth_type"):
            device.install(Classifier([Rule("untagged", vlan="none", to="eth1")]))
    else:
        device.install(Classifier([rule], ports=device.ports))


MAY_FORWARD = {"bad IPv4 checksum", "the source is a group address"}
NOT_LOOKED_AT = {"UDP length below its header", "overlapping fragments", "total length beyond the frame"}


def test_malformed_frames(device: IngressDevice) -> None:
    """The programs drop all that is cut short or too long; filters of tc look only at what they compare."""
    a, b, _ = device.ports
    device.install(Classifier([Rule("some", proto="udp", dport=1024, to=b)], ports=device.ports))
    filters = isinstance(device, TcFilters)
    may = (
        MAY_FORWARD | NOT_LOOKED_AT | {"IP version 5", "total length below the header", "cut within the UDP header"}
        if filters
        else MAY_FORWARD
    )
    with Probed(device) as probed:
        assert assert_survives(probed, Packet(in_port=a, proto="udp", dport=1024), may_forward=may).frames > 60


@pytest.mark.timeout(60 + 5 * POLICIES)
def test_random_policies_on_a_bridge(bridge: NftBridge) -> None:
    with Probed(bridge) as probed:
        report = assert_installs(probed, examples=POLICIES)
    assert report.policies >= POLICIES


@pytest.mark.stock_kernel
def test_a_bridge_is_a_filter(bridge: NftBridge) -> None:
    a, b, _ = bridge.ports
    bridge.install(Classifier([Rule("dns", in_port=a, proto="udp", dport=53, to=FORWARD)], ports=bridge.ports))
    with Probed(bridge, rules=True) as probed:
        assert_classified(probed, Packet(in_port=a, proto="udp", dport=53), into=FORWARD, via_rule="dns", changed={})
        assert_dropped(probed, Packet(in_port=b, proto="udp", dport=53), by="default")
    with pytest.raises(BadInput, match="a filter has only 'forward'"):
        bridge.install(Classifier([Rule("dns", to=b)]))
    with pytest.raises(Unavailable, match="set eth_dst"):
        bridge.install(Classifier([Rule("dns", to=FORWARD, set={"eth_dst": MAC})]))
