"""The autopsy over nodes that are made up: what no kernel gives easily, and that it never raises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from pytest_infra.checks.answer import Answer
from pytest_infra.checks.autopsy import Autopsy, Case, examine, view
from pytest_infra.checks.autopsy.sockets import ListeningSocket
from pytest_infra.checks.graph import node_having, nodes_of, owner_of, wires_from
from pytest_infra.checks.icmp import IcmpError
from pytest_infra.checks.outcome import Outcome
from pytest_infra.checks.rule_trace import RuleDrop
from pytest_infra.core.node import Address, Interface, Neighbour, Route


@dataclass(eq=False)
class FakePort:
    node: Any
    name: str
    addresses: tuple[Any, ...]
    declared_at: str = "test_x.py:1"
    mac: str = "02:00:00:00:00:01"
    mtu: int = 1500
    peer: Any = None


@dataclass(eq=False)
class FakeSwitch:
    name: str
    ports: list[FakePort] = field(default_factory=list)
    interfaces: dict[str, Interface] = field(default_factory=dict)


@dataclass(eq=False)
class FakeNode:
    name: str
    ports: list[FakePort] = field(default_factory=list)
    interfaces: dict[str, Interface] = field(default_factory=dict)
    addresses: list[Address] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    sysctl: dict[str, str] = field(default_factory=dict)

    def run(self, argv: list[str]) -> None:
        raise AssertionError("an autopsy runs nothing")

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def interface(name: str, **state: Any) -> Interface:
    return Interface(
        name=name,
        index=2,
        mac="02:00:00:00:00:01",
        mtu=1500,
        up=state.pop("up", True),
        carrier=state.pop("carrier", True),
        operstate="UP",
        **state,
    )


def attach(node: Any, name: str, *addresses: str) -> FakePort:
    port = FakePort(node, name, tuple(ip_interface(text) for text in addresses))
    node.ports.append(port)
    node.interfaces[name] = interface(name)
    for ip in port.addresses:
        node.addresses.append(Address(name, ip, "global"))
        node.routes.append(Route(ip_network(ip.network), name))
    return port


def wire(one: FakePort, other: FakePort) -> None:
    one.peer, other.peer = other, one


def pair() -> tuple[FakeNode, FakeNode]:
    a, b = FakeNode("a"), FakeNode("b")
    wire(attach(a, "eth0", "10.0.0.1/24"), attach(b, "eth0", "10.0.0.2/24"))
    return a, b


def why(a: FakeNode, b: FakeNode, **options: Any) -> Autopsy:
    settings: dict[str, Any] = {"protocol": "icmp", "port": None, "answer": Answer("silence"), **options}
    address = settings.pop("address", ip_address("10.0.0.2"))
    return examine(
        Case(source=a, destination=b, address=address, source_address=ip_address("10.0.0.1"), **settings)  # type: ignore[arg-type]
    )


def kind(autopsy: Autopsy) -> str | None:
    return autopsy.finding.kind if autopsy.finding else None


def test_nothing_wrong_is_said_so() -> None:
    autopsy = why(*pair())
    assert autopsy.finding is None
    assert dict(autopsy.rows())["cause"] == "not found: everything that was looked at is as it should be"
    assert autopsy.path == "a:eth0 -> b:eth0"
    assert autopsy.ruled_out == (
        "interface, carrier, addresses, route, neighbour of a",
        "interface, addresses, duplicate addresses, echo settings of b",
        "the same on the way back",
    )
    assert not autopsy.not_seen


def test_no_carrier_though_both_ends_are_up() -> None:
    a, b = pair()
    a.interfaces["eth0"] = interface("eth0", carrier=False)
    autopsy = why(a, b)
    assert kind(autopsy) == "no-carrier"
    assert autopsy.path == "a:eth0 NO CARRIER -> b:eth0"


def test_a_port_that_has_no_address_and_was_given_none() -> None:
    a, b = pair()
    a.ports[0].addresses = ()
    a.addresses.clear()
    assert kind(why(a, b)) == "no-address"


def test_a_duplicate_address() -> None:
    a, b = pair()
    b.addresses[0] = Address("eth0", ip_interface("10.0.0.2/24"), "global", duplicate=True)
    autopsy = why(a, b)
    assert kind(autopsy) == "address-unusable"
    assert autopsy.finding is not None
    assert "is used by somebody else too" in autopsy.finding.cause


def test_an_address_that_the_target_never_had() -> None:
    a, b = pair()
    assert kind(why(a, b, address=ip_address("10.0.0.3"))) in ("not-on-link", "no-address")


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        (Outcome("answered"), "intermittent"),
        (Outcome("lost", "request", "a:eth0", "b:eth0"), "dropped-between"),
        (Outcome("lost", "request", "a"), "filtered"),
        (Outcome("lost", "reply", "b"), "filtered"),
        (Outcome("lost", "reply", "a"), "filtered"),
        (Outcome("unproven", why="no frame passes"), None),
        (None, None),
    ],
)
def test_a_second_probe_is_the_last_witness(trace: Outcome | None, expected: str | None) -> None:
    assert kind(why(*pair(), trace=trace)) == expected


def refusal(sender: str) -> Answer:
    return Answer("icmp", sender, icmp=IcmpError(sender, 3, 3, 4))


def test_the_rules_of_the_source_are_named_and_no_route() -> None:
    a, b = pair()
    a.routes.clear()
    autopsy = why(a, b, answer=refusal("10.0.0.1"), protocol="udp", port=53)
    assert kind(autopsy) == "rejected"
    assert autopsy.finding is not None
    assert autopsy.finding.cause.startswith("the rules of a reject it: ICMP port unreachable from 10.0.0.1")


def test_a_socket_waits_only_where_somebody_has_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair()
    settings: dict[str, Any] = {"protocol": "tcp", "port": 80, "answer": Answer("reset", "10.0.0.2")}
    waiting = [ListeningSocket("tcp", ip_address("10.0.0.2"), 80)]
    for look, said in ((lambda: waiting, True), (lambda: 1 / 0, False)):
        monkeypatch.setattr(view, "read_listening", look)
        finding = why(a, b, **settings).finding
        assert finding is not None
        assert ("a socket of b waits there" in finding.cause) is said
    nobody = why(a, None, address=ip_address("10.96.0.1"), **settings).finding  # type: ignore[arg-type]
    assert nobody is not None
    assert "no node of the lab has that address" in nobody.cause
    assert "socket" not in nobody.cause


DROP = RuleDrop("b", "request", "inet", "t", "c", "icmp type echo-request drop", 4)


def test_a_rule_that_was_seen_to_drop_is_named() -> None:
    autopsy = why(*pair(), trace=Outcome("unproven", rules=(DROP,)))
    assert kind(autopsy) == "filtered"
    assert autopsy.finding is not None
    assert "the rule 'icmp type echo-request drop' (chain c of table inet t, handle 4)" in autopsy.finding.cause
    assert "nft delete rule inet t c handle 4, in b" in autopsy.finding.next


def test_the_kernels_reason_is_quoted() -> None:
    autopsy = why(*pair(), trace=Outcome("lost", "request", "b", reasons=("NETFILTER_DROP",)))
    assert dict(autopsy.rows())["kernel"] == "dropped it: NETFILTER_DROP (skb:kfree_skb)"


def test_what_a_suspicion_could_not_see_is_said() -> None:
    blind = ("the firewall rules of b: nft is not installed",)
    assert why(*pair(), trace=Outcome("lost", "request", "b", blind=blind)).not_seen == blind
    a, b = pair()
    a.interfaces["eth0"] = interface("eth0", up=False)
    assert not why(a, b, trace=Outcome("lost", "request", "b", blind=blind)).not_seen


def test_a_kernel_whose_reasons_cannot_be_read_is_said_to_be_so_also_beside_a_cause() -> None:
    blind = Outcome("lost", "request", "b", no_reasons="only root can read it")
    a, b = pair()
    a.interfaces["eth0"] = interface("eth0", up=False)
    for nodes in (pair(), (a, b)):
        autopsy = why(*nodes, trace=blind)
        assert autopsy.not_seen == ("the kernel's reason for the drop: only root can read it",)
        assert not dict(autopsy.rows())["kernel"]
    assert autopsy.finding is not None


def test_a_source_address_that_the_lab_did_not_give() -> None:
    a, b = pair()
    a.addresses.append(Address("lo", ip_interface("10.9.9.9/32"), "global"))
    case = Case(a, b, ip_address("10.0.0.2"), ip_address("10.9.9.9"), "icmp", None, Answer("silence"))  # type: ignore[arg-type]
    assert kind(examine(case)) == "wrong-source"


def test_an_answer_to_a_translated_address() -> None:
    autopsy = why(*pair(), trace=Outcome("lost", "reply", "b", arrived_from="10.9.9.9"))
    assert kind(autopsy) == "nat-no-return"
    assert autopsy.path.startswith("way back: b")


def test_what_cannot_be_read_is_said_and_hides_nothing() -> None:
    class Silent(FakeNode):
        @property
        def neighbours(self) -> list[Neighbour]:  # type: ignore[override]
            raise OSError("the node is gone")

        @neighbours.setter
        def neighbours(self, value: list[Neighbour]) -> None:
            pass

    a, b = Silent("a"), FakeNode("b")
    wire(attach(a, "eth0", "10.0.0.1/24"), attach(b, "eth0", "10.0.0.2/24"))
    b.sysctl["net.ipv4.icmp_echo_ignore_all"] = "1"
    autopsy = why(a, b)
    assert kind(autopsy) == "echo-ignored"
    assert autopsy.not_seen == ("neighbour of a: OSError: the node is gone",)
    assert "neighbour" not in autopsy.ruled_out[0]


def test_nodes_that_answer_nothing_at_all() -> None:
    class Dead(FakeNode):
        def __getattribute__(self, name: str) -> Any:
            if name in ("interfaces", "addresses", "routes", "neighbours", "sysctl"):
                raise RuntimeError("dead")
            return super().__getattribute__(name)

    a, b = Dead("a"), Dead("b")
    wire(FakePort(a, "eth0", ()), FakePort(b, "eth0", ()))
    autopsy = why(a, b)
    assert autopsy.finding is None
    assert autopsy.not_seen
    assert all("dead" in text for text in autopsy.not_seen)


def test_the_most_exact_route_decides_and_then_the_metric() -> None:
    a, _ = pair()
    a.routes += [
        Route(ip_network("10.0.0.0/24"), "eth0", metric=100, kind="blackhole"),
        Route(ip_network("10.0.0.2/32"), "eth0", kind="prohibit"),
        Route(ip_network("0.0.0.0/0"), "eth0", kind="unreachable"),
    ]
    assert kind(why(a, _)) == "prohibit-route"
    del a.routes[2]
    assert kind(why(a, _)) is None


def test_wires_lead_through_switches_and_rings_end() -> None:
    a, b = FakeNode("a"), FakeNode("b")
    one, two = FakeSwitch("s1"), FakeSwitch("s2")
    wire(attach(a, "eth0", "10.0.0.1/24"), _switch_port(one, "p1"))
    wire(_switch_port(one, "p2"), _switch_port(two, "p1"))
    wire(_switch_port(one, "p3"), _switch_port(two, "p2"))
    wire(attach(b, "eth0", "10.0.0.2/24"), _switch_port(two, "p3"))
    (found,) = wires_from(a.ports[0])  # type: ignore[arg-type]
    assert [f"{port.node.name}:{port.name}" for port in found.ports] == [
        "a:eth0",
        "s1:p1",
        "s1:p2",
        "s2:p1",
        "s2:p3",
        "b:eth0",
    ]
    assert [node.name for node in nodes_of(a)] == ["a", "b"]  # type: ignore[arg-type]


def _switch_port(switch: FakeSwitch, name: str) -> FakePort:
    port = FakePort(switch, name, ())
    switch.ports.append(port)
    switch.interfaces[name] = interface(name)
    return port


def test_an_address_is_found_by_plan_and_by_what_is_there() -> None:
    a, b = pair()
    assert owner_of(a, ip_address("10.0.0.2")) is b.ports[0]  # type: ignore[arg-type, comparison-overlap]
    assert owner_of(a, ip_address("10.0.0.7")) is None  # type: ignore[arg-type]
    b.addresses.append(Address("eth0", ip_interface("10.0.0.7/24"), "global"))
    assert node_having(a, ip_address("10.0.0.7")) is b  # type: ignore[arg-type, comparison-overlap]
    assert node_having(a, ip_address("10.0.0.8")) is None  # type: ignore[arg-type]
