"""Connection tracking: the model's states are those of Open vSwitch and of nftables on a router."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pytest_infra.checks.track import assert_tracks
from pytest_infra.core.errors import BadInput, CheckFailed, Unavailable
from pytest_infra.packet.classifier import Classifier
from pytest_infra.packet.install_nft import NftIngress
from pytest_infra.packet.install_ovs import OvsFlows
from pytest_infra.packet.install_router import NftRouter
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.probed import Probed
from pytest_infra.packet.rule import Rule
from pytest_infra.packet.tracking import Tracked, error_about
from pytest_infra.session import Infra

IN, OUT = "10.1.0.5", "10.2.0.9"


@pytest.fixture(params=["ovs", "nft"], scope="module")
def probed(session: Infra, request: pytest.FixtureRequest) -> Iterator[Probed]:
    with session.lab() as lab:
        if request.param == "ovs":
            switch = lab.ovs("sw1")
            for name in ("a", "b"):
                lab.link(lab.host(name), switch, ip=[])
            lab.up()
            device: OvsFlows | NftRouter = OvsFlows(switch)
        else:
            box = lab.host("firewall")
            for name in ("inside", "outside"):
                lab.link(box, lab.host(name), ip=[], peer_ip=[])
            lab.up()
            device = NftRouter(box, {"eth0": ["10.1.0.0/16", "fd00:1::/64"], "eth1": ["10.2.0.0/16", "fd00:2::/64"]})
        with Probed(device, rules=True) as started:
            yield started


class World:
    """Packets between inside and outside of a device."""

    def __init__(self, device: Probed) -> None:
        self.inside, self.outside = device.ports
        filters = "forward" in device.outputs
        self.to_inside, self.to_outside = ("forward",) * 2 if filters else (self.inside, self.outside)

    def policy(self) -> Classifier:
        """Connections may begin inside; what belongs to one may pass."""
        back = {"in_port": self.outside, "to": self.to_inside}
        rules = [
            Rule("broken", ct_state="invalid", drop=True),
            Rule("back", ct_state="established", **back),  # type: ignore[arg-type]
            Rule("errors", ct_state="related", **back),  # type: ignore[arg-type]
            Rule("out again", in_port=self.inside, ct_state="established,related", to=self.to_outside),
            Rule("out", in_port=self.inside, ct_state="new", to=self.to_outside),
        ]
        return Classifier(rules, ports=(self.inside, self.outside))

    def out(self, **fields: object) -> Packet:
        return Packet(in_port=self.inside, src=IN, dst=OUT, **fields)  # type: ignore[arg-type]

    def back(self, **fields: object) -> Packet:
        return Packet(in_port=self.outside, src=OUT, dst=IN, **fields)  # type: ignore[arg-type]


UDP = {"proto": "udp", "sport": 1000, "dport": 53}
REPLY = {"proto": "udp", "sport": 53, "dport": 1000}


def rules_of(report: object) -> list[str | None]:
    return [step.wanted.rule for step in report.steps]  # type: ignore[attr-defined]


def test_udp(probed: Probed) -> None:
    world = World(probed)
    packets = [world.back(**REPLY), world.out(**UDP), world.out(**UDP), world.back(**REPLY), world.out(**UDP)]
    packets += [world.back(**{**REPLY, "sport": 54}), world.back(**REPLY)]
    report = assert_tracks(probed, world.policy(), packets)
    assert rules_of(report) == ["default", "out", "out", "back", "out again", "default", "back"]


def test_tcp(probed: Probed) -> None:
    world = World(probed)
    there, here = {"proto": "tcp", "sport": 1000, "dport": 80}, {"proto": "tcp", "sport": 80, "dport": 1000}
    packets = [
        world.back(**here, tcp_flags="syn ack"),
        world.out(**there, tcp_flags="syn"),
        world.back(**here, tcp_flags="syn ack"),
        world.out(**there, tcp_flags="ack"),
        world.back(**here, tcp_flags="ack psh"),
        world.back(**{**here, "dport": 1001}, tcp_flags="syn"),
    ]
    report = assert_tracks(probed, world.policy(), packets)
    assert rules_of(report) == ["broken", "out", "back", "out again", "back", "default"]


THERE, HERE = {"proto": "tcp", "sport": 1000, "dport": 80}, {"proto": "tcp", "sport": 80, "dport": 1000}


def tcp(world: World, *steps: str) -> list[Packet]:
    """Packets of one connection: ``> syn`` goes out, ``< syn ack`` comes back."""
    ways = {">": (world.out, THERE), "<": (world.back, HERE)}
    return [ways[step[0]][0](**ways[step[0]][1], tcp_flags=step[2:]) for step in steps]


OPENING = ("> syn", "< syn ack", "> ack")


def test_tcp_ends_by_fin_and_begins_anew(probed: Probed) -> None:
    world = World(probed)
    packets = tcp(world, *OPENING, "> fin ack", "< ack", "< ack psh", "< fin ack", "> ack", "> syn", "< syn ack")
    report = assert_tracks(probed, world.policy(), packets)
    assert rules_of(report)[3:] == ["out again", "back", "back", "back", "out again", "out", "back"]


def test_tcp_that_is_refused_begins_anew(probed: Probed) -> None:
    world = World(probed)
    report = assert_tracks(probed, world.policy(), tcp(world, "> syn", "< rst ack", "> syn", "< syn ack", "> ack"))
    assert rules_of(report) == ["out", "back", "out", "back", "out again"]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["> rst"], "of a connection that is not known"),
        (["> fin ack"], "of a connection that is not known"),
        (["> syn", "> fin ack"], "FIN of a connection that is not established"),
        ([*OPENING, "< rst ack"], "a RST is judged by its sequence number"),
        (["> syn", "< rst ack", "< rst ack"], "only a SYN may follow"),
        ([*OPENING, "> fin ack", "> syn"], "only a SYN may follow, once the connection is over"),
    ],
)
def test_endings_about_which_trackers_differ(probed: Probed, steps: list[str], words: str) -> None:
    world = World(probed)
    with pytest.raises(BadInput, match=words):
        assert_tracks(probed, world.policy(), tcp(world, *steps))


class Swallowing(Probed):
    """Swallows the answer that refuses a connection, and so all RST."""

    def install(self, classifier: Classifier) -> None:
        first = Rule("no refusals", in_port=self.ports[1], proto="tcp", tcp_flags="rst", drop=True)
        super().install(Classifier([first, *classifier.rules], ports=classifier.ports))


def test_a_refusal_that_is_swallowed_is_found(probed: Probed) -> None:
    world = World(probed)
    with Swallowing(probed.device, rules=True) as wrong, pytest.raises(CheckFailed) as error:
        assert_tracks(wrong, world.policy(), tcp(world, "> syn", "< rst ack", "> syn"))
    assert "disagree about packet 2: went nowhere" in str(error.value)


def test_ipv6(probed: Probed) -> None:
    """UDP, echo and errors."""
    world = World(probed)
    there, here = {"src": "fd00:1::5", "dst": "fd00:2::9"}, {"src": "fd00:2::9", "dst": "fd00:1::5"}
    ask = Packet(in_port=world.inside, **UDP, **there)  # type: ignore[arg-type]
    unreachable = Packet(in_port=world.outside, proto="icmpv6", icmp_type=1, icmp_code=4, **here)  # type: ignore[arg-type]
    ping = Packet(in_port=world.inside, proto="icmpv6", icmp_type=128, **there)  # type: ignore[arg-type]
    pong = Packet(in_port=world.outside, proto="icmpv6", icmp_type=129, **here)  # type: ignore[arg-type]
    answer = Packet(in_port=world.outside, **REPLY, **here)  # type: ignore[arg-type]
    packets = [answer, error_about(unreachable, ask), ask, error_about(unreachable, ask), answer, ask, pong, ping, pong]
    report = assert_tracks(probed, world.policy(), packets)
    rules = ["default", "broken", "out", "errors", "back", "out again", "broken", "out", "back"]
    assert rules_of(report) == rules


def test_echo(probed: Probed) -> None:
    world = World(probed)
    ask, answer = {"proto": "icmp", "icmp_type": 8}, {"proto": "icmp", "icmp_type": 0}
    packets = [world.back(**answer), world.out(**ask), world.back(**answer), world.out(**ask), world.back(**ask)]
    report = assert_tracks(probed, world.policy(), packets[:4])
    assert rules_of(report) == ["broken", "out", "back", "out again"]


def test_an_icmp_error_is_related_only_to_a_connection_that_is_known(probed: Probed) -> None:
    world = World(probed)
    unreachable = world.back(proto="icmp", icmp_type=3, icmp_code=3)
    packets = [
        error_about(unreachable, world.out(**UDP)),
        world.out(**UDP),
        error_about(unreachable, world.out(**UDP)),
        error_about(unreachable, world.out(**{**UDP, "sport": 2000})),
    ]
    report = assert_tracks(probed, world.policy(), packets)
    assert rules_of(report) == ["broken", "out", "errors", "broken"]


def test_a_packet_that_is_dropped_makes_no_connection(probed: Probed) -> None:
    world = World(probed)
    rules = [Rule("no dns", proto="udp", dport=53, ct_state="new", drop=True), *world.policy().rules]
    policy = Classifier(rules, ports=probed.ports)
    report = assert_tracks(probed, policy, [world.out(**UDP), world.back(**REPLY), world.out(**UDP)])
    assert rules_of(report) == ["no dns", "default", "no dns"]


class Forgetful(Probed):
    """Installs rules that let back in what does not belong to a connection."""

    def install(self, classifier: Classifier) -> None:
        rules = [
            replace(rule, ct_state="new,established") if rule.name == "back" else rule for rule in classifier.rules
        ]
        super().install(Classifier(rules, ports=classifier.ports))


def test_a_hole_is_found(probed: Probed) -> None:
    world = World(probed)
    with Forgetful(probed.device, rules=True) as wrong, pytest.raises(CheckFailed) as error:
        assert_tracks(wrong, world.policy(), [world.out(**UDP), world.back(**{**REPLY, "sport": 99})])
    assert "disagree about packet 2: went to" in str(error.value)
    assert "'back' +1" in str(error.value)


def test_a_router_is_asked_about_ip_only(session: Infra) -> None:
    with session.lab() as lab:
        box = lab.host("box")
        lab.link(box, lab.host("x"), ip=[], peer_ip=[])
        lab.up()
        with pytest.raises(BadInput, match="is asked about IP packets only"):
            NftRouter(box, {}).addressed(Packet(in_port="eth0", eth_type="arp"))


def test_what_proves_nothing_and_what_is_not_known(probed: Probed) -> None:
    world = World(probed)
    with pytest.raises(BadInput, match="nothing would be proven"):
        assert_tracks(probed, Classifier([Rule("all", drop=True)]), [world.out(**UDP)])
    with pytest.raises(BadInput, match=r"make it with error_about\(\)"):
        assert_tracks(probed, world.policy(), [world.back(proto="icmp", icmp_type=3)])
    with pytest.raises(BadInput, match="there are new, related, established, invalid"):
        Rule("r", ct_state="old", drop=True)


def test_an_ingress_chain_knows_no_connections(session: Infra) -> None:
    with session.lab() as lab:
        box = lab.host("box")
        lab.link(box, lab.host("x"), ip=[], peer_ip=[])
        lab.up()
        with pytest.raises(Unavailable, match="it cannot do ct_state of rule 'back'"):
            NftIngress(box).install(Classifier([Rule("back", ct_state="established", to="eth0")]))


def test_the_model_forgets() -> None:
    model = Tracked(Classifier([Rule("back", ct_state="established", to="a")]))
    assert model.classify_all([Packet(**UDP)])[0].rule == "default"  # type: ignore[arg-type]
    model.forget()
    assert model.classify_all([Packet(**REPLY)])[0].rule == "default"  # type: ignore[arg-type]
