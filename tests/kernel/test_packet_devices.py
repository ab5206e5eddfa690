"""Real classifiers do what the model says: Open vSwitch, nftables and librte_acl, by trace and by packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pytest_infra.checks.agree import assert_agrees, assert_installs
from pytest_infra.checks.classify import assert_classified, assert_dropped
from pytest_infra.checks.survive import assert_survives
from pytest_infra.core.errors import BadInput, CheckFailed, Unavailable
from pytest_infra.lab import Lab
from pytest_infra.packet.classifier import Classifier
from pytest_infra.packet.install_acl import RteAcl
from pytest_infra.packet.install_nft import NftIngress
from pytest_infra.packet.install_ovs import OvsFlows
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.police import Police
from pytest_infra.packet.probe import SentinelLost
from pytest_infra.packet.probed import External, Probed
from pytest_infra.packet.rule import Rule
from pytest_infra.session import Infra


@pytest.fixture(scope="module")
def lab(session: Infra) -> Iterator[Lab]:
    with session.lab() as started:
        yield started


@pytest.fixture(scope="module")
def ovs(lab: Lab) -> OvsFlows:
    switch = lab.ovs("sw1")
    for name in ("a", "b", "c"):
        lab.link(lab.host(name), switch, ip=[])
    lab.up()
    return OvsFlows(switch)


@pytest.fixture(scope="module")
def nft(lab: Lab) -> NftIngress:
    dut = lab.host("dut")
    for name in ("x", "y", "z"):
        lab.link(dut, lab.host(name), ip=[], peer_ip=[])
    lab.up()
    return NftIngress(dut)


@pytest.fixture(scope="module")
def acl() -> Iterator[RteAcl]:
    with RteAcl(ports=("p1", "p2")) as started:
        yield started


@pytest.fixture(params=["ovs", "nft"])
def device(request: pytest.FixtureRequest) -> OvsFlows | NftIngress:
    found: OvsFlows | NftIngress = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def probed(device: OvsFlows | NftIngress) -> Iterator[Probed]:
    with Probed(device) as started:
        yield started


def policy(device: OvsFlows | NftIngress) -> Classifier:
    _, b, c = device.ports
    return Classifier(
        [
            Rule("dns", proto="udp", dport=53, to=b),
            Rule("voice", proto="udp", dport="16384-32767", dscp="EF", to=c),
            Rule("no ssh", proto="tcp", dport=22, drop=True),
            Rule("v6", src="2001:db8::/32", to=c, set={"eth_dst": "02:00:00:00:00:77"}),
            Rule("guest", vlan=30, to=c),
            Rule("syn", proto="tcp", tcp_flags="syn,!ack", to=b),
        ],
        ports=device.ports,
    )


def test_random_policies_on_open_vswitch_by_trace(ovs: OvsFlows) -> None:
    report = assert_installs(ovs, examples=40)
    assert report.packets > 500


def test_random_policies_on_librte_acl(acl: RteAcl) -> None:
    report = assert_installs(acl, examples=60)
    assert report.packets > 500


def test_random_policies_by_packets(probed: Probed) -> None:
    report = assert_installs(probed, examples=15)
    assert report.packets > 100


MARKS = "set_field:46->ip_dscp"
SABOTAGE = {
    "a tag is added": f"{MARKS},push_vlan:0x8100,set_field:4101->vlan_vid,output:2",
    "congestion is told": f"{MARKS},set_field:3->ip_ecn,output:2",
    "it is marked when it has left": f"output:2,{MARKS}",
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_a_packet_that_is_changed_otherwise_is_seen_by_trace(ovs: OvsFlows, what: str) -> None:
    first, second, third = ovs.ports[:3]
    voice = Rule("voice", in_port=first, proto="udp", dport=(100, 200), to=second, set={"dscp": "EF"})
    policy = Classifier([voice, Rule("rest", in_port=first, to=third)], ports=ovs.ports)
    ovs.install(policy)
    packet = Packet(in_port=first, proto="udp", dport=100)
    assert_classified(ovs, packet, into=second, via_rule="voice", changed={"dscp": 46})
    flow = f"cookie=1,priority=65000,in_port=1,udp,udp_dst=100,actions={SABOTAGE[what]}"
    ovs.bridge.ofctl(["-O", "OpenFlow15", "add-flow", ovs.bridge.name, flow])
    with pytest.raises(CheckFailed):
        assert_classified(ovs, packet, into=second, via_rule="voice", changed={"dscp": 46})
    with pytest.raises(CheckFailed):
        assert_agrees(ovs, policy)


def test_a_rate_is_no_port_in_a_trace(ovs: OvsFlows) -> None:
    police = Police("800 kbit/s", 100_000)
    policy = Classifier([Rule("voice", in_port=ovs.ports[0], to=ovs.ports[1], police=police)], ports=ovs.ports)
    ovs.install(policy)
    assert_agrees(ovs, policy)


def test_one_policy_on_all_devices_and_between_them(ovs: OvsFlows, acl: RteAcl) -> None:
    rules = [Rule("low", proto="udp", dport="1-1023", to="sw1-p2"), Rule("ten", src="10.0.0.0/8", to="sw1-p3")]
    model = Classifier(rules, ports=ovs.ports)
    ovs.install(model)
    acl.install(model)
    assert_agrees(ovs, model)
    assert_agrees(acl, model)
    assert_agrees(ovs, acl)


def test_packets_go_where_the_model_says_and_come_back_by_the_port_they_came_from(probed: Probed) -> None:
    a, b, c = probed.ports
    model = policy(probed.device)
    probed.install(model)
    assert_agrees(probed, model, examples=400, batch=100)
    assert_classified(probed, Packet(in_port=a, proto="udp", dport=53), into=b, changed={})
    assert_classified(probed, Packet(in_port=b, proto="udp", dport=53), into=b, changed={})
    changed = {"eth_dst": "02:00:00:00:00:77"}
    assert_classified(probed, Packet(in_port=a, src="2001:db8::1"), into=c, changed=changed)
    assert_classified(probed, Packet(in_port=a, vlan=30, pcp=5), into=c, changed={})
    assert_dropped(probed, Packet(in_port=a, proto="tcp", dport=22, tcp_flags="syn"))


def test_the_rule_is_told_by_its_counter(device: OvsFlows | NftIngress) -> None:
    a, b, _ = device.ports
    device.install(policy(device))
    with Probed(device, rules=True) as probed:
        assert_classified(probed, Packet(in_port=a, proto="udp", dport=53), into=b, via_rule="dns")
        assert_dropped(probed, Packet(in_port=a, proto="tcp", dport=22, tcp_flags="syn"), by="no ssh")
        assert_dropped(probed, Packet(in_port=a, proto="tcp", dport=23), by="default")
        with pytest.raises(CheckFailed, match="rule 'syn', wanted 'dns'"):
            assert_classified(probed, Packet(in_port=a, proto="tcp", tcp_flags="syn"), into=b, via_rule="dns")


def test_an_off_by_one_is_found_with_real_packets(probed: Probed) -> None:
    right = policy(probed.device)
    probed.install(Classifier([replace(right.rules[0], dport=(53, 54)), *right.rules[1:]], ports=right.ports))
    with pytest.raises(CheckFailed) as error:
        assert_agrees(probed, right)
    assert "dport=54" in str(error.value)


def test_open_vswitch_sets_fields_queue_and_mark(ovs: OvsFlows) -> None:
    a, b, _ = ovs.ports
    four = {"dscp": 46, "ttl": 9, "src": "10.0.0.9", "dst": "10.0.0.8", "sport": 7, "dport": 8}
    six = {"src": "2001:db8::9", "dport": 9, "eth_src": "02:00:00:00:00:55"}
    model = Classifier(
        [
            Rule("four", proto="udp", src="198.18.0.0/15", to=b, set=four, queue=2, mark=5),
            Rule("six", proto="tcp", src="2001:2::/48", to=b, set=six),
        ],
        ports=ovs.ports,
    )
    ovs.install(model)
    packet = Packet(in_port=a, proto="udp", dport=53)
    assert_classified(ovs, packet, into=b, via_rule="four", queue=2, mark=5, changed=four)
    assert_classified(ovs, Packet(in_port=a, proto="tcp", src="2001:2::5"), into=b, via_rule="six", changed=six)
    assert_agrees(ovs, model)
    with Probed(ovs) as probed:
        assert_agrees(probed, model)


def test_classes_stand_for_ports(ovs: OvsFlows, nft: NftIngress) -> None:
    for made in (OvsFlows(ovs.bridge, {"gold": "sw1-p2", "silver": "sw1-p3"}), NftIngress(nft.node, {"gold": "eth1"})):
        with Probed(made) as probed:
            probed.install(Classifier([Rule("voice", proto="udp", dscp="EF", to="gold")], ports=made.ports))
            assert_classified(probed, Packet(in_port=made.ports[0], proto="udp", dscp="EF"), into="gold")
    with pytest.raises(BadInput, match="has no port sw1-p9"):
        OvsFlows(ovs.bridge, {"gold": "sw1-p9"})


@pytest.mark.parametrize(
    "rule",
    [
        Rule("t", tunnel_id=5, to="eth1"),
        Rule("t", proto="udp", to="eth1", set={"dport": 5}),
        Rule("t", to="eth1", queue=1),
    ],
)
def test_what_nftables_cannot_do_here_is_said_and_nothing_is_changed(nft: NftIngress, rule: Rule) -> None:
    before = nft.node.run(["nft", "list", "ruleset"]).stdout
    with pytest.raises(Unavailable, match=r"it cannot do .* of rule 't'"):
        nft.install(Classifier([rule]))
    assert nft.node.run(["nft", "list", "ruleset"]).stdout == before


def test_a_destination_that_is_not_there(device: OvsFlows | NftIngress) -> None:
    with pytest.raises(BadInput, match="no port or class 'mars'"):
        device.install(Classifier([Rule("m", to="mars")]))


def test_a_packet_with_the_sentinels_ethertype_is_a_packet_like_any_other(probed: Probed) -> None:
    a, b, _ = probed.ports
    probed.install(Classifier([Rule("all", in_port=a, to=b)], ports=probed.ports))
    assert_classified(probed, Packet(in_port=a, eth_type=0x88B6), into=b, changed={})


def test_a_device_that_swallows_the_sentinel_is_no_proof_of_a_drop(lab: Lab, nft: NftIngress) -> None:
    nft.node.run(["nft", "flush", "ruleset"])
    with Probed(nft) as probed, pytest.raises(SentinelLost, match="did not come out of"):
        probed.classify_all([Packet(in_port="eth0", proto="udp")])


NOT_LOOKED_AT = {  # seen on Open vSwitch 3.1 and on Linux 6.18: neither checks these before it forwards
    "ovs": {"bad IPv4 checksum", "UDP length below its header", "the source is a group address", "IP version 5"},
    "nft": {
        "bad IPv4 checksum",
        "UDP length below its header",
        "the source is a group address",
        "overlapping fragments",
    },
}


def test_malformed_frames_are_not_forwarded_and_kill_nobody(
    probed: Probed,
) -> None:
    a, b, _ = probed.ports
    probed.install(Classifier([Rule("some", proto="udp", dport=1024, to=b)], ports=probed.ports))
    whole = Packet(in_port=a, proto="udp", dport=1024)
    with pytest.raises(CheckFailed, match="forwards malformed frames") as error:
        assert_survives(probed, whole)
    assert "bad IPv4 checksum: came out of " + b in str(error.value)
    may = NOT_LOOKED_AT["ovs" if "vSwitch" in probed.name else "nft"]
    assert assert_survives(probed, whole, may_forward=may).frames > 60
    with pytest.raises(BadInput, match="although it is whole"):
        assert_survives(probed, Packet(in_port=a, proto="udp", dport=1025))


def test_a_device_of_ones_own(lab: Lab) -> None:
    """A Linux bridge as a black box: it floods a broadcast, and takes a frame for a known address to one port."""
    bridge = lab.bridge("sw2")
    hosts = [lab.host(name) for name in ("k", "l", "m")]
    for host in hosts:
        lab.link(host, bridge, ip=[])
    lab.up()
    box = External("the bridge", {port.name: port.peer for port in bridge.ports}, quiet_s=0.05)
    with Probed(box) as probed:
        one, two, three = probed.ports
        (flooded,) = probed.classify_all([Packet(in_port=one, eth_dst="ff:ff:ff:ff:ff:ff")])
        assert flooded.to == (two, three)
        probed.classify_all([Packet(in_port=two, eth_src="02:00:00:00:00:22")])
        assert_classified(probed, Packet(in_port=one, eth_dst="02:00:00:00:00:22"), into=two, changed={})
        with pytest.raises(BadInput, match="has no counters"):
            Probed(box, rules=True)
