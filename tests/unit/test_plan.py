"""Addresses and routes as pure functions of what a lab declares: nothing here needs a privilege."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_infra.core.errors import BadInput, InfraError
from pytest_infra.lab import Lab
from pytest_infra.net.plan import AddressPlan, plan_routes, segments_of
from pytest_infra.net.switch import Switch
from pytest_infra.services import LabServices


class Sketch:
    """A lab that is declared and planned and never made."""

    def __init__(self) -> None:
        self.lab = Lab("sketch", LabServices(None, None, None))  # type: ignore[arg-type]
        self.routes: dict[Any, dict[Any, Any]] = {}

    def plan(self) -> Sketch:
        segments = segments_of(self.lab.links)
        self.lab._addresses.number(segments)
        self.routes = plan_routes(segments)
        return self

    def hosts(self, *names: str) -> list[Any]:
        return [self.lab.host(name) for name in names]

    def routers(self, *names: str) -> list[Any]:
        return [self.lab.router(name) for name in names]

    def table(self, node: Any) -> dict[str, str]:
        """A node's routes as text: destination and gateway."""
        return {str(network): str(hop.gateway) for network, hop in self.routes.get(node, {}).items()}

    def forward(self, source: Any, target: Any) -> list[str]:
        """The nodes that a packet passes from one node to an address, by the tables alone; fails where it is lost."""
        target, path, node = ip_address(str(target)), [source.name], source
        while not any(ip.ip == target for port in node.ports for ip in port.addresses):
            assert len(path) <= len(self.lab.nodes), f"a loop: {path}"
            assert node is source or node.forwards, f"{node.name} does not forward: {path}"
            node = self._next(node, target, path)
            path.append(node.name)
        return path

    def _next(self, node: Any, target: Any, path: list[str]) -> Any:
        here = [port for port in node.ports if any(target in ip.network for ip in port.addresses)]
        if here:
            wanted, port = target, here[0]
        else:
            table = self.routes.get(node, {})
            fitting = sorted((network for network in table if target in network), key=lambda item: item.prefixlen)
            assert fitting, f"no route to {target}: {path}, {self.table(node)}"
            hop = table[fitting[-1]]
            wanted, port = hop.gateway, hop.port
            assert port.node is node
            assert any(wanted in ip.network for ip in port.addresses), f"gateway {wanted} is not next to {port}"
        for segment in segments_of(self.lab.links):
            if port in segment.ports:
                owners = [one.node for one in segment.ports if any(ip.ip == wanted for ip in one.addresses)]
                assert owners, f"nobody on the segment of {port} has {wanted}: {path}"
                return owners[0]
        raise AssertionError(f"{port} is on no segment")

    def reaches_everything(self, versions: Iterable[int] = (4, 6)) -> None:
        ports = [port for node in self.lab.nodes.values() for port in node.ports]
        for node in self.lab.nodes.values():
            for ip in [ip for port in ports for ip in port.addresses if ip.version in versions]:
                self.forward(node, ip.ip)


@pytest.fixture
def sketch() -> Sketch:
    return Sketch()


def texts(port: Any) -> list[str]:
    return [str(ip) for ip in port.addresses]


# -- addresses ---------------------------------------------------------------------------------------------------


def test_a_wire_gets_one_subnet_of_each_version(sketch: Sketch) -> None:
    a, b = sketch.hosts("a", "b")
    link = sketch.lab.link(a, b)
    sketch.plan()
    four, six = zip(link.a.addresses, link.b.addresses, strict=True)
    assert [ip.version for ip in four + six] == [4, 4, 6, 6]
    for pair in (four, six):
        assert pair[0].network == pair[1].network
        assert pair[0].ip + 1 == pair[1].ip
        assert pair[0].ip == pair[0].network.network_address + 1
    assert four[0].network.subnet_of(ip_network("198.18.0.0/15"))
    assert six[0].network.subnet_of(ip_network("fd00::/8"))
    assert six[0].network.prefixlen == 64


def test_each_wire_has_subnets_of_its_own(sketch: Sketch) -> None:
    r = sketch.lab.router("r")
    for host in sketch.hosts(*(f"h{n}" for n in range(20))):
        sketch.lab.link(host, r)
    sketch.plan()
    networks = [ip.network for port in r.ports for ip in port.addresses]
    assert len(set(networks)) == 40
    for one, other in pairwise(sorted(n for n in networks if n.version == 4)):
        assert not one.overlaps(other)


def test_the_hosts_of_a_switch_share_a_subnet(sketch: Sketch) -> None:
    sw = sketch.lab.bridge("sw1")
    ports = [sketch.lab.link(host, sw).a for host in sketch.hosts("a", "b", "c")]
    sketch.plan()
    assert len({ip.network for port in ports for ip in port.addresses}) == 2
    assert [texts(port)[0] for port in ports] == ["198.18.0.1/24", "198.18.0.2/24", "198.18.0.3/24"]
    assert all(port.addresses == () for port in sw.ports)


def test_linked_switches_are_one_segment_in_whatever_order_they_are_linked(sketch: Sketch) -> None:
    s1, s2, s3 = (sketch.lab.bridge(f"s{n}") for n in (1, 2, 3))
    a, b, c = sketch.hosts("a", "b", "c")
    links = [sketch.lab.link(a, s1), sketch.lab.link(b, s3), sketch.lab.link(s2, s3), sketch.lab.link(s1, s2)]
    links.append(sketch.lab.link(c, s2))
    sketch.plan()
    assert len(segments_of(sketch.lab.links)) == 1
    assert [texts(node.ports[0])[0] for node in (a, b, c)] == ["198.18.0.1/24", "198.18.0.2/24", "198.18.0.3/24"]


def test_switches_that_are_not_linked_are_two_segments(sketch: Sketch) -> None:
    s1, s2 = sketch.lab.bridge("s1"), sketch.lab.bridge("s2")
    a, b = sketch.hosts("a", "b")
    sketch.lab.link(a, s1)
    sketch.lab.link(b, s2)
    sketch.plan()
    assert not {ip.network for ip in a.ports[0].addresses} & {ip.network for ip in b.ports[0].addresses}


def test_a_host_with_two_links_to_one_switch_has_two_addresses_of_its_subnet(sketch: Sketch) -> None:
    sw, a = sketch.lab.bridge("sw1"), sketch.lab.host("a")
    sketch.lab.link(a, sw)
    sketch.lab.link(a, sw)
    sketch.plan()
    assert [texts(port)[0] for port in a.ports] == ["198.18.0.1/24", "198.18.0.2/24"]


def test_automatic_addresses_come_from_the_subnets_that_are_given_on_the_segment(sketch: Sketch) -> None:
    sw = sketch.lab.bridge("sw1")
    a, b, c, d = sketch.hosts("a", "b", "c", "d")
    sketch.lab.link(a, sw)
    sketch.lab.link(b, sw, ip="10.1.0.1/24")
    sketch.lab.link(c, sw, ip=["10.1.0.3/24", "2001:db8::1/64"])
    sketch.lab.link(d, sw)
    sketch.plan()
    assert texts(a.ports[0]) == ["10.1.0.2/24", "2001:db8::2/64"]
    assert texts(d.ports[0]) == ["10.1.0.4/24", "2001:db8::3/64"]


def test_a_segment_with_ipv4_addresses_only_stays_so(sketch: Sketch) -> None:
    a, b = sketch.hosts("a", "b")
    link = sketch.lab.link(a, b, ip="192.0.2.1/24")
    sketch.plan()
    assert texts(link.b) == ["192.0.2.2/24"]


def test_an_empty_list_means_no_address_and_the_other_end_still_gets_one(sketch: Sketch) -> None:
    a, b = sketch.hosts("a", "b")
    link = sketch.lab.link(a, b, ip=[])
    sketch.plan()
    assert link.a.addresses == ()
    assert len(link.b.addresses) == 2


@pytest.mark.parametrize(
    ("given_", "chosen"),
    [
        ("10.0.0.1/30", "10.0.0.2/30"),
        ("10.0.0.2/30", "10.0.0.1/30"),
        ("10.0.0.0/31", "10.0.0.1/31"),
        ("10.0.0.1/31", "10.0.0.0/31"),
        ("2001:db8::/127", "2001:db8::1/127"),
        ("2001:db8::1/127", "2001:db8::/127"),
        ("2001:db8::1/126", "2001:db8::2/126"),
        ("2001:db8::1/64", "2001:db8::2/64"),
    ],
)
def test_the_peer_of_an_address_in_a_small_subnet(sketch: Sketch, given_: str, chosen: str) -> None:
    link = sketch.lab.link(*sketch.hosts("a", "b"), ip=given_)
    sketch.plan()
    assert texts(link.b) == [chosen]


@pytest.mark.parametrize(("subnet", "hosts"), [("10.0.0.1/30", 2), ("10.0.0.0/31", 2), ("10.0.0.1/29", 6)])
def test_a_full_subnet_is_refused_and_names_the_port_and_its_line(sketch: Sketch, subnet: str, hosts: int) -> None:
    sw = sketch.lab.bridge("sw1")
    sketch.lab.link(sketch.lab.host(), sw, ip=subnet)
    for _ in range(hosts - 1):
        sketch.lab.link(sketch.lab.host(), sw)
    sketch.plan()
    sketch.lab.link(sketch.lab.host("late"), sw)
    network = ip_interface(subnet).network
    with pytest.raises(BadInput, match=rf"subnet {network} has no address left for late:eth0 \(declared at test_plan"):
        sketch.plan()


def test_a_single_address_is_a_full_subnet(sketch: Sketch) -> None:
    sketch.lab.link(*sketch.hosts("a", "b"), ip="10.0.0.1/32")
    with pytest.raises(BadInput, match=r"10.0.0.1/32 has no address left for b:eth0"):
        sketch.plan()


@pytest.mark.parametrize(("count", "length"), [(1, 24), (254, 24), (255, 23), (510, 23), (511, 22), (1000, 22)])
def test_a_segment_gets_a_subnet_that_is_large_enough(sketch: Sketch, count: int, length: int) -> None:
    sw = sketch.lab.bridge("sw1")
    for _ in range(count):
        sketch.lab.link(sketch.lab.host(), sw)
    sketch.plan()
    ports = [node.ports[0] for node in sketch.lab.nodes.values()]
    assert len({port.addresses[0].ip for port in ports}) == count
    assert {port.addresses[0].network.prefixlen for port in ports} == {length}


def test_a_thousand_wires_have_subnets(sketch: Sketch) -> None:
    r = sketch.lab.router("r")
    for _ in range(1000):
        sketch.lab.link(sketch.lab.host(), r)
    segments = segments_of(sketch.lab.links)
    sketch.lab._addresses.number(segments)
    four = sorted(port.addresses[0].network for port in r.ports)
    assert len(set(four)) == 1000
    assert not any(one.overlaps(other) for one, other in pairwise(four))


def test_what_was_numbered_keeps_its_addresses(sketch: Sketch) -> None:
    sw = sketch.lab.bridge("sw1")
    a, b = sketch.hosts("a", "b")
    sketch.lab.link(a, sw)
    before = sketch.plan() and a.ports[0].addresses
    sketch.lab.link(b, sw)
    sketch.plan()
    assert a.ports[0].addresses == before
    assert b.ports[0].addresses[0].ip == before[0].ip + 1


def test_automatic_subnets_keep_clear_of_those_that_are_given(sketch: Sketch) -> None:
    a, b, c, d = sketch.hosts("a", "b", "c", "d")
    sketch.lab.link(a, b, ip="198.18.0.9/24")
    link = sketch.lab.link(c, d)
    sketch.plan()
    assert texts(link.a)[0] == "198.18.1.1/24"


def test_two_labs_have_different_ipv6_prefixes() -> None:
    found = set()
    for name in ("one", "two"):
        lab = Lab(name, LabServices(None, None, None))  # type: ignore[arg-type]
        link = lab.link(lab.host(), lab.host())
        lab._addresses.number(segments_of(lab.links))
        found.add(link.a.addresses[1].network)
    assert len(found) == 2


# -- what is refused ---------------------------------------------------------------------------------------------


def test_an_address_is_given_once_and_the_text_names_both(sketch: Sketch) -> None:
    a, b, c, d = sketch.hosts("a", "b", "c", "d")
    sketch.lab.link(a, b, ip="10.0.0.1/24")
    with pytest.raises(BadInput, match=r"address 10.0.0.1 for c:eth0 is taken: a:eth0 has it \(declared at test_plan"):
        sketch.lab.link(c, d, ip="10.0.0.1/24")


def test_an_automatic_address_cannot_be_asked_for_later(sketch: Sketch) -> None:
    sw = sketch.lab.bridge("sw1")
    a, b = sketch.hosts("a", "b")
    sketch.lab.link(a, sw)
    sketch.plan()
    with pytest.raises(BadInput, match=r"198.18.0.1 for b:eth0 is taken: a:eth0 has it"):
        sketch.lab.link(b, sw, ip="198.18.0.1/24")


def test_a_refused_link_leaves_nothing_behind(sketch: Sketch) -> None:
    a, b, c = sketch.hosts("a", "b", "c")
    sketch.lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    for _ in range(2):
        with pytest.raises(BadInput, match=r"10\.0\.0\.2 .*is taken"):
            sketch.lab.link(c, a, ip="10.0.0.3/24", peer_ip="10.0.0.2/24")
    assert (len(a.ports), len(c.ports), len(sketch.lab.links)) == (1, 0, 1)
    sketch.lab.link(c, sketch.lab.bridge(), ip="10.0.0.3/24")
    assert c.ports[0].name == "eth0"


@pytest.mark.parametrize("second", ["10.0.0.9/24", "10.0.0.129/25", "10.0.9.1/16"])
def test_overlapping_subnets_that_a_node_joins_are_refused(sketch: Sketch, second: str) -> None:
    r, a, b = sketch.lab.router("r"), *sketch.hosts("a", "b")
    sketch.lab.link(a, r, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    sketch.lab.link(b, r, ip=second)
    with pytest.raises(BadInput, match=r"^subnet 10\.0\.\S+ of \S+ \(declared at test_plan\.py:\d+\) overlaps 10\.0\."):
        sketch.plan()


def test_overlapping_subnets_that_only_a_chain_joins_are_refused(sketch: Sketch) -> None:
    a, b = sketch.hosts("a", "b")
    r = sketch.routers("r1", "r2", "r3")
    sketch.lab.link(a, r[0], ip="10.0.0.1/24")
    sketch.lab.link(r[0], r[1])
    sketch.lab.link(r[1], r[2])
    sketch.lab.link(b, r[2], ip="10.0.0.9/24")
    with pytest.raises(BadInput, match="overlaps"):
        sketch.plan()


def test_islands_may_use_the_same_subnet(sketch: Sketch) -> None:
    a, b, c, d = sketch.hosts("a", "b", "c", "d")
    sketch.lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    sketch.lab.link(c, d, ip="10.0.0.3/24", peer_ip="10.0.0.4/24")
    sketch.plan()
    assert [sketch.table(node) for node in (a, b, c, d)] == [{}] * 4


def test_one_segment_may_have_subnets_within_each_other(sketch: Sketch) -> None:
    a, b = sketch.hosts("a", "b")
    sketch.lab.link(a, b, ip="10.0.0.1/16", peer_ip="10.0.0.2/24")
    sketch.plan()
    assert [str(ip) for node in (a, b) for port in node.ports for ip in port.addresses] == [
        "10.0.0.1/16",
        "10.0.0.2/24",
    ]


def test_link_local_addresses_are_of_their_link_alone(sketch: Sketch) -> None:
    """RFC 4291 section 2.5.6, RFC 3927: fe80::1 may be on every link, and is never routed."""
    r, a, b = sketch.lab.router("r"), *sketch.hosts("a", "b")
    sketch.lab.link(a, r, ip=["10.0.1.2/24", "fe80::2/64"], peer_ip=["10.0.1.1/24", "fe80::1/64", "2001:db8:1::1/64"])
    sketch.lab.link(b, r, ip=["10.0.2.2/24", "fe80::2/64"], peer_ip=["fe80::1/64", "10.0.2.1/24", "169.254.0.1/16"])
    sketch.plan()
    assert sketch.table(a) == {"0.0.0.0/0": "10.0.1.1"}
    assert sketch.table(b) == {"0.0.0.0/0": "10.0.2.1"}


# -- routes ------------------------------------------------------------------------------------------------------


def chain(sketch: Sketch, length: int) -> tuple[Any, Any, list[Any]]:
    a, b = sketch.hosts("a", "b")
    routers = sketch.routers(*(f"r{n}" for n in range(1, length + 1)))
    for one, other in pairwise([a, *routers, b]):
        sketch.lab.link(one, other)
    sketch.plan()
    return a, b, routers


def test_hosts_without_a_router_have_no_routes(sketch: Sketch) -> None:
    a, b = sketch.hosts("a", "b")
    sketch.lab.link(a, b)
    sketch.plan()
    assert not sketch.table(a)
    assert not sketch.table(b)


def test_a_chain_of_routers(sketch: Sketch) -> None:
    a, b, routers = chain(sketch, 3)
    for index in (0, 1):
        assert sketch.forward(a, b.ports[0].addresses[index].ip) == ["a", "r1", "r2", "r3", "b"]
        assert sketch.forward(b, a.ports[0].addresses[index].ip) == ["b", "r3", "r2", "r1", "a"]
    sketch.reaches_everything()
    assert sketch.table(a) == {
        "0.0.0.0/0": str(routers[0].ports[0].addresses[0].ip),
        "::/0": str(routers[0].ports[0].addresses[1].ip),
    }
    assert len(sketch.table(routers[1])) == 4, "two subnets of each version are not next to r2"


def test_ipv6_is_routed_as_ipv4(sketch: Sketch) -> None:
    chain(sketch, 4)
    for node, table in sketch.routes.items():
        four = [(hop.port, hop.gateway) for network, hop in table.items() if network.version == 4]
        six = [(hop.port, hop.gateway) for network, hop in table.items() if network.version == 6]
        assert [port for port, _ in four] == [port for port, _ in six], node
        for (port, one), (_, other) in zip(four, six, strict=True):
            gateways = [ip.ip for near in port.link.ports for ip in near.addresses]
            assert one in gateways
            assert other in gateways


def test_a_ring_is_walked_the_short_way(sketch: Sketch) -> None:
    routers = sketch.routers(*(f"r{n}" for n in range(6)))
    for one, other in pairwise([*routers, routers[0]]):
        sketch.lab.link(one, other)
    a, b = sketch.hosts("a", "b")
    sketch.lab.link(a, routers[0])
    sketch.lab.link(b, routers[2])
    sketch.plan()
    assert sketch.forward(a, b.ports[0].addresses[0].ip) == ["a", "r0", "r1", "r2", "b"]
    assert sketch.forward(b, a.ports[0].addresses[1].ip) == ["b", "r2", "r1", "r0", "a"]
    sketch.reaches_everything()


def test_a_star(sketch: Sketch) -> None:
    middle = sketch.lab.router("m")
    for host in sketch.hosts("a", "b", "c", "d"):
        sketch.lab.link(host, middle)
    sketch.plan()
    assert not sketch.table(middle), "every subnet is next to it"
    for name in "abcd":
        assert len(sketch.table(sketch.lab.nodes[name])) == 2
    sketch.reaches_everything()


def test_a_host_with_two_ways_out_has_a_route_for_each_subnet(sketch: Sketch) -> None:
    a, left, right = sketch.hosts("a", "left", "right")
    r1, r2 = sketch.routers("r1", "r2")
    sketch.lab.link(a, r1, ip="10.1.0.2/24", peer_ip="10.1.0.1/24")
    sketch.lab.link(a, r2, ip="10.2.0.2/24", peer_ip="10.2.0.1/24")
    sketch.lab.link(left, r1, ip="10.3.0.2/24", peer_ip="10.3.0.1/24")
    sketch.lab.link(right, r2, ip="10.4.0.2/24", peer_ip="10.4.0.1/24")
    sketch.plan()
    assert sketch.table(a) == {"10.3.0.0/24": "10.1.0.1", "10.4.0.0/24": "10.2.0.1"}
    assert sketch.forward(a, "10.3.0.2") == ["a", "r1", "left"]
    assert sketch.forward(a, "10.4.0.2") == ["a", "r2", "right"]


def test_a_host_never_forwards(sketch: Sketch) -> None:
    a, b, c = sketch.hosts("a", "b", "c")
    sketch.lab.link(a, b, ip="10.1.0.1/24", peer_ip="10.1.0.2/24")
    sketch.lab.link(b, c, ip="10.2.0.1/24", peer_ip="10.2.0.2/24")
    sketch.plan()
    assert not sketch.table(a)
    assert not sketch.table(c)


def test_routes_false_leaves_a_node_without_routes_and_the_others_with_theirs(sketch: Sketch) -> None:
    a, b = sketch.lab.host("a", routes=False), sketch.lab.host("b")
    r = sketch.lab.router("r")
    sketch.lab.link(a, r)
    sketch.lab.link(b, r)
    sketch.plan()
    assert a not in sketch.routes
    assert sketch.table(b)


def test_the_gateway_is_next_to_the_host_where_a_wire_has_two_subnets(sketch: Sketch) -> None:
    sw, r = sketch.lab.bridge("sw1"), sketch.lab.router("r")
    a, b, c = sketch.hosts("a", "b", "c")
    sketch.lab.link(r, sw, ip=["10.1.0.1/24", "10.2.0.1/24"])
    sketch.lab.link(a, sw, ip="10.1.0.2/24")
    sketch.lab.link(b, sw, ip="10.2.0.2/24")
    sketch.lab.link(c, r, ip="10.3.0.2/24", peer_ip="10.3.0.1/24")
    sketch.plan()
    assert sketch.table(a) == {"0.0.0.0/0": "10.1.0.1"}
    assert sketch.table(b) == {"0.0.0.0/0": "10.2.0.1"}
    sketch.reaches_everything()


def test_a_gateway_that_a_host_cannot_reach_is_not_used(sketch: Sketch) -> None:
    sw, r = sketch.lab.bridge("sw1"), sketch.lab.router("r")
    a, c = sketch.hosts("a", "c")
    sketch.lab.link(r, sw, ip="10.1.0.1/24")
    sketch.lab.link(a, sw, ip="10.2.0.2/24")
    sketch.lab.link(c, r, ip="10.3.0.2/24", peer_ip="10.3.0.1/24")
    sketch.plan()
    assert not sketch.table(a)
    assert sketch.table(c) == {"0.0.0.0/0": "10.3.0.1"}


def test_a_router_that_is_added_later_brings_routes(sketch: Sketch) -> None:
    a, b = sketch.hosts("a", "b")
    sw = sketch.lab.bridge("sw1")
    sketch.lab.link(a, sw)
    sketch.plan()
    r = sketch.lab.router("r")
    sketch.lab.link(r, sw)
    sketch.lab.link(b, r)
    sketch.plan()
    assert sketch.forward(a, b.ports[0].addresses[0].ip) == ["a", "r", "b"]
    sketch.reaches_everything()


# -- properties --------------------------------------------------------------------------------------------------


@st.composite
def trees(draw: st.DrawFn) -> Sketch:
    """Routers as a tree, wired or by way of switches, each with some hosts."""
    sketch = Sketch()
    routers = [sketch.lab.router() for _ in range(draw(st.integers(1, 6)))]
    for number, router in enumerate(routers):
        if number:
            upper = routers[draw(st.integers(0, number - 1))]
            if draw(st.booleans()):
                sketch.lab.link(router, upper)
            else:
                switch = sketch.lab.bridge()
                sketch.lab.link(router, switch)
                sketch.lab.link(switch, upper)
        for _ in range(draw(st.integers(0, 2))):
            sketch.lab.link(sketch.lab.host(), draw(st.sampled_from([router, *sketch.lab.switches.values()])))
    return sketch.plan()


@given(trees())
def test_a_tree_of_routers_routes_everywhere(sketch: Sketch) -> None:
    sketch.reaches_everything()
    assert all(port.addresses for node in sketch.lab.nodes.values() for port in node.ports)


@settings(max_examples=50)
@given(trees(), st.data())
def test_a_tree_that_grows_routes_everywhere(sketch: Sketch, data: st.DataObject) -> None:
    routers = [node for node in sketch.lab.nodes.values() if node.forwards]
    before = {str(port): port.addresses for node in sketch.lab.nodes.values() for port in node.ports}
    late = sketch.lab.router("late")
    sketch.lab.link(late, data.draw(st.sampled_from(routers)))
    sketch.lab.link(late, sketch.lab.host("leaf"))
    sketch.plan().reaches_everything()
    assert before.items() <= {str(p): p.addresses for node in sketch.lab.nodes.values() for p in node.ports}.items()


@st.composite
def graphs(draw: st.DrawFn) -> Sketch:
    """Any nodes and switches, linked at random, with some addresses given."""
    sketch = Sketch()
    nodes: list[Any] = [sketch.lab.router() for _ in range(draw(st.integers(1, 5)))]
    nodes += [sketch.lab.bridge() for _ in range(draw(st.integers(0, 3)))]
    nodes += [sketch.lab.host() for _ in range(draw(st.integers(0, 4)))]
    pairs = st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)).filter(lambda pair: pair[0] is not pair[1])
    for number, (a, b) in enumerate(draw(st.lists(pairs, max_size=12))):
        both_switches = isinstance(a, Switch) and isinstance(b, Switch)
        given_ = draw(st.sampled_from([None, f"10.{number}.0.1/24", f"2001:db8:{number:x}::1/64"]))
        sketch.lab.link(a, b, ip=None if both_switches else given_)
    return sketch.plan()


@given(graphs())
def test_no_two_ports_share_an_address_or_a_mac_or_a_name(sketch: Sketch) -> None:
    ports = [port for link in sketch.lab.links for port in link.ports]
    addresses = [ip.ip for port in ports for ip in port.addresses]
    assert len(addresses) == len(set(addresses))
    assert len({port.mac for port in ports}) == len(ports)
    assert len({(port.node.name, port.name) for port in ports}) == len(ports)
    assert all(port.addresses or isinstance(port.node, Switch) for port in ports)


@given(graphs())
def test_every_planned_route_leads_to_its_subnet(sketch: Sketch) -> None:
    for node, table in sketch.routes.items():
        for network, hop in table.items():
            assert hop.port.node is node
            if network.prefixlen:
                target = next(
                    ip.ip
                    for other in sketch.lab.nodes.values()
                    for port in other.ports
                    for ip in port.addresses
                    if ip.network == network
                )
                assert len(sketch.forward(node, target)) > 1


@given(st.lists(st.sampled_from([1, 2, 5, 60, 254, 255]), min_size=1, max_size=4))
def test_automatic_subnets_never_overlap(sizes: list[int]) -> None:
    sketch = Sketch()
    for size in sizes:
        switch = sketch.lab.bridge()
        for _ in range(size):
            sketch.lab.link(sketch.lab.host(), switch)
    try:
        sketch.plan()
    except InfraError as error:
        raise AssertionError("four segments fit into the pool") from error
    networks = sorted({node.ports[0].addresses[0].network for node in sketch.lab.nodes.values()})
    assert len(networks) == len(sizes)
    assert not any(one.overlaps(other) for one, other in pairwise(networks))


def test_a_kernel_without_ipv6_gets_no_ipv6_addresses() -> None:
    sketch = Sketch()
    sketch.lab._addresses = AddressPlan(b"sketch", ipv6=False)
    a, b = sketch.hosts("a", "b")
    link = sketch.lab.link(a, b)
    sketch.plan()
    assert [[ip.version for ip in port.addresses] for port in link.ports] == [[4], [4]]
