"""What a failed check of a real device says: where the packet went, which counters moved, why the kernel dropped it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from syrupy.assertion import SnapshotAssertion

from pytest_infra.checks.agree import assert_agrees
from pytest_infra.checks.classify import assert_classified, assert_dropped
from pytest_infra.checks.track import assert_tracks
from pytest_infra.core.errors import CheckFailed
from pytest_infra.core.evidence import attached
from pytest_infra.packet.classifier import Classifier
from pytest_infra.packet.install_nft import NftIngress
from pytest_infra.packet.install_ovs import OvsFlows
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.probed import Probed
from pytest_infra.packet.rule import Rule
from pytest_infra.session import Infra

ASK = Packet(in_port="eth0", proto="udp", dport=53)


@pytest.fixture
def nft(session: Infra) -> Iterator[Probed]:
    with session.lab() as lab:
        box = lab.host("firewall")
        for name in ("inside", "outside"):
            lab.link(box, lab.host(name), ip=[], peer_ip=[])
        lab.up()
        for node in lab.nodes.values():
            node.sysctl["net.ipv6.conf.all.disable_ipv6"] = "1"  # what they would send moves counters, too
        rules = [Rule("no udp", proto="udp", dport=(50, 60), drop=True), Rule("all", in_port="eth0", to="eth1")]
        with Probed(NftIngress(box), rules=True) as probed:
            probed.install(Classifier(rules, ports=probed.ports))
            yield probed


def plain(text: str) -> str:
    """The text without what differs from one machine to the next."""
    text = re.sub(r"dropped it: [A-Z_, ]+ \(", "dropped it: <reason> (", text)
    return re.sub(r"  kernel .*\n", "", text)


def test_a_packet_that_a_rule_drops(nft: Probed, snapshot: SnapshotAssertion) -> None:
    with pytest.raises(CheckFailed) as error:
        assert_classified(nft, ASK, into="eth1", via_rule="all")
    (pcap,) = attached(error.value)
    assert pcap.name == "packet.pcapng"
    assert plain(str(error.value)) == snapshot


def test_the_kernels_own_reason(nft: Probed) -> None:
    from pytest_infra.checks.drop_reason import DropReasons

    with DropReasons() as reasons:
        pass
    if reasons.blind:
        pytest.skip(f"the kernel's reasons cannot be read here: {reasons.blind}")
    with pytest.raises(CheckFailed, match=r"kernel +dropped it: \w*NETFILTER\w*"):
        assert_classified(nft, ASK, into="eth1")


def test_a_packet_that_is_not_dropped(nft: Probed, snapshot: SnapshotAssertion) -> None:
    with pytest.raises(CheckFailed) as error:
        assert_dropped(nft, Packet(in_port="eth0", proto="tcp", dport=22), by="no ssh")
    assert plain(str(error.value)) == snapshot


def test_a_device_with_other_rules(nft: Probed, snapshot: SnapshotAssertion) -> None:
    right = [Rule("no udp", proto="udp", dport=(50, 59), drop=True), Rule("all", in_port="eth0", to="eth1")]
    with pytest.raises(CheckFailed) as error:
        assert_agrees(nft, Classifier(right, ports=nft.ports), seed=1)
    assert re.sub(r"within \d+ packets?", "within <count>", plain(str(error.value))) == snapshot


def test_a_trace(session: Infra, snapshot: SnapshotAssertion) -> None:
    with session.lab() as lab:
        switch = lab.ovs("sw1")
        for name in ("a", "b"):
            lab.link(lab.host(name), switch, ip=[])
        lab.up()
        device = OvsFlows(switch)
        device.install(Classifier([Rule("udp", proto="udp", drop=True)], ports=device.ports))
        with pytest.raises(CheckFailed) as error:
            assert_classified(device, Packet(in_port="sw1-p1", proto="udp", dport=53), into="sw1-p2", via_rule="dns")
    assert plain(str(error.value)) == snapshot


def test_a_connection_that_is_not_known(session: Infra, snapshot: SnapshotAssertion) -> None:
    class Open(OvsFlows):
        """Lets in what nobody asked for."""

        def install(self, classifier: Classifier) -> None:
            super().install(Classifier([Rule("back", in_port="sw1-p2", to="sw1-p1"), *classifier.rules[1:]]))

    with session.lab() as lab:
        switch = lab.ovs("sw1")
        for name in ("a", "b"):
            lab.link(lab.host(name), switch, ip=[])
        lab.up()
        rules = [
            Rule("back", in_port="sw1-p2", ct_state="established", to="sw1-p1"),
            Rule("out", in_port="sw1-p1", ct_state="new", to="sw1-p2"),
        ]
        ask = Packet(in_port="sw1-p1", proto="udp", src="198.18.0.1", dst="198.18.0.2", sport=1000, dport=53)
        other = Packet(in_port="sw1-p2", proto="udp", src="198.18.0.2", dst="198.18.0.1", sport=99, dport=1000)
        policy = Classifier(rules, ports=("sw1-p1", "sw1-p2"))
        with Probed(Open(switch), rules=True) as device, pytest.raises(CheckFailed) as error:
            assert_tracks(device, policy, [ask, other])
    assert plain(str(error.value)) == snapshot
