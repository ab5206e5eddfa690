"""One policy, stated once, and proven on three real classifiers: Open vSwitch, nftables and DPDK's librte_acl.

inside ── p1 ┌──────────┐ p2 ── outside
             │ firewall │
             └──────────┘ p3 ── dmz
"""

from dataclasses import replace

import pytest

from pytest_infra import CheckFailed, assert_agrees, assert_classified, assert_dropped
from pytest_infra.packet import Classifier, NftIngress, OvsFlows, Packet, Probed, RteAcl, Rule, audit

RULES = [
    Rule("web", in_port="inside", proto="tcp", dport=(80, 443), to="outside"),
    Rule("dns", in_port="inside", proto="udp", dport=53, to="dmz", set={"eth_dst": "02:00:00:00:00:53"}),
    Rule("no new", in_port="outside", proto="tcp", tcp_flags="syn,!ack", drop=True),
    Rule("answers", in_port="outside", proto="tcp", sport=(80, 443), dst="10.0.0.0/8", to="inside"),
]


def named(ports):
    """The policy for a device whose ports have other names."""
    names = dict(zip(("inside", "outside", "dmz"), ports, strict=True))
    rules = [replace(rule, in_port=names[rule.in_port], to=rule.to and names[rule.to]) for rule in RULES]
    return Classifier(rules, ports=ports)


@pytest.fixture
def firewall(lab, request):
    if request.param == "ovs":
        switch = lab.ovs("firewall")
        for name in ("inside", "outside", "dmz"):
            lab.link(lab.host(name), switch, ip=[])
        lab.up()
        return OvsFlows(switch)
    box = lab.host("firewall")
    for name in ("inside", "outside", "dmz"):
        lab.link(box, lab.host(name), ip=[], peer_ip=[])
    lab.up()
    return NftIngress(box)


both = pytest.mark.parametrize("firewall", ["ovs", "nft"], indirect=True)


def test_every_rule_can_decide():
    assert audit(named(["p1", "p2", "p3"])).ok


def test_a_rule_behind_a_wider_one_is_reported():
    rules = [Rule("all web", proto="tcp", dport=(1, 1024), to="a"), Rule("no telnet", proto="tcp", dport=23, drop=True)]
    assert "'no telnet' never decides: its packets are taken by 'all web'" in audit(Classifier(rules)).explain()


@both
def test_real_packets_go_where_the_policy_says(firewall):
    policy = named(firewall.ports)
    firewall.install(policy)
    with Probed(firewall) as device:
        inside, _, dmz = device.ports
        ask = Packet(in_port=inside, proto="udp", dport=53)
        assert_classified(device, ask, into=dmz, changed={"eth_dst": "02:00:00:00:00:53"})
        assert_agrees(device, policy)


@both
def test_the_intended_rule_did_it(firewall):
    firewall.install(named(firewall.ports))
    inside, outside, _ = firewall.ports
    with Probed(firewall, rules=True) as device:
        assert_classified(device, Packet(in_port=inside, proto="tcp", dport=443), into=outside, via_rule="web")
        assert_dropped(device, Packet(in_port=outside, proto="tcp", sport=80, tcp_flags="syn"), by="no new")


@both
def test_an_end_that_is_off_by_one_is_found_and_made_small(firewall):
    right = named(firewall.ports)
    web, *others = right.rules
    firewall.install(Classifier([replace(web, dport=(80, 444)), *others], ports=right.ports))
    with Probed(firewall) as device, pytest.raises(CheckFailed, match="disagree") as error:
        assert_agrees(device, right)
    assert "dport=444" in str(error.value)


def test_librte_acl_takes_the_same_policy():
    policy = named(["p1", "p2", "p3"])
    with RteAcl(outputs=policy.ports, ports=policy.ports) as acl:
        acl.install(policy)
        assert_agrees(acl, policy)
        assert_dropped(acl, Packet(in_port="p2", proto="tcp", sport=80, tcp_flags="syn"), by="no new")
