"""Ready networks, topology files and graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import networkx
import pytest

from pytest_infra import BadInput, Lab, assert_all_reachable, assert_reachable
from pytest_infra.session import Infra

SYSCTLS = "{net.ipv4.ip_default_ttl: 99, net.ipv4.ip_local_port_range: 2000 3000}"
FILE = """\
name: two-racks
topology:
  kinds:
    linux:
      image: alpine:3
  nodes:
    r1:
      kind: linux
      sysctls:
        net.ipv4.ip_forward: 1
      exec:
        - ip address add 10.0.1.1/24 dev eth1
        - ip address add 10.0.2.1/24 dev eth2
    a:
      exec:
        - ip address add 10.0.1.10/24 dev eth1
        - ip route add default via 10.0.1.1
    b:
      kind: linux
      sysctls: {net.ipv4.ip_default_ttl: 99, net.ipv4.ip_local_port_range: 2000 3000}
      exec:
        - ip address add 10.0.2.10/24 dev eth1
        - ip route add default via 10.0.2.1
    br1:
      kind: bridge
    sw2:
      kind: ovs-bridge
  links:
    - endpoints: ["r1:eth1", "br1:br1-r1"]
    - endpoints: ["br1:br1-a", "a:eth1"]
      mtu: 1400
    - type: veth
      endpoints:
        - node: b
          interface: eth1
          mac: 02:00:00:00:00:0b
        - node: sw2
          interface: sw2-b
    - endpoints: ["sw2:sw2-r1", "r1:eth2"]
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.infra_requires("ip")
def test_a_file_of_containerlab(lab: Lab, tmp_path: Path) -> None:
    lab.load(written(tmp_path / "two.clab.yml", FILE))
    a, b = lab.node("a"), lab.node("b")
    assert_reachable(a, "10.0.2.10")
    assert b.interfaces["eth1"].mac == "02:00:00:00:00:0b"
    assert a.interfaces["eth1"].mtu == 1400
    assert sorted(lab.switches) == ["br1", "sw2"]
    assert lab.node("r1").kind == "router"
    assert b.sysctl["net.ipv4.ip_default_ttl"] == "99"
    assert b.sysctl["net.ipv4.ip_local_port_range"].split() == ["2000", "3000"]


@pytest.mark.infra_requires("ip")
def test_what_is_saved_is_loaded_again(infra: Infra, lab: Lab, tmp_path: Path) -> None:
    lab.chain(2)
    lab.star(2, switch=lab.ovs("sw"))
    lab.save(tmp_path / "saved.clab.yml")
    with infra.lab() as again:
        again.load(tmp_path / "saved.clab.yml")
        assert networkx.utils.graphs_equal(_shape(lab), _shape(again))
        address = lab.node("h2").ports[0].addresses[0].ip
        assert_reachable(again.node("h1"), str(address))
        assert_reachable(again.node("h3"), str(lab.node("h4").ports[0].addresses[1].ip))


def _shape(lab: Lab) -> networkx.MultiGraph:
    graph = networkx.MultiGraph()
    graph.add_nodes_from((name, {"kind": data["kind"]}) for name, data in lab.graph().nodes(data=True))
    graph.add_edges_from(tuple(sorted(edge)) for edge in lab.graph().edges())
    return graph


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("kind: bridge", "kind: ceos", r"line 25: kind 'ceos' is not supported; known are linux, bridge, ovs-bridge"),
        ("    a:\n", "    a:\n      startup-config: x\n", r"line 15: node 'a' with 'startup-config' is not supported"),
        ('"a:eth1"]', '"c:eth1"]', r"line 30: endpoint 'c:eth1' is not NODE:INTERFACE; nodes are r1, a, b, br1, sw2"),
        ('"a:eth1"]', '"a"]', r"line 30: endpoint 'a' is not NODE:INTERFACE"),
        ('["br1:br1-a", "a:eth1"]', '["a:eth1"]', r"line 30: a link has two endpoints, not 1"),
        ("type: veth", "type: host", r"line 32: a link of the type 'host' is not supported"),
        ("mtu: 1400", "mtu: 14", r"line 30: mtu 14 cannot be used"),
        ("via 10.0.2.1", "via 10.9.9.9", r"line 23: 'ip route add default via 10.9.9.9' in b ended with status 2"),
        ("  links:", "  cables:", r"line 28: a topology with 'cables' is not supported"),
        ("    a:\n", "    a:\n      mtu: 1400\n", r"line 15: node 'a' with 'mtu' is not supported"),
        ("default_ttl: 99", "default_ttl: 999", r"line 20: .*ip_default_ttl"),
        ("ip_default_ttl", "no_such", r"line 20: .*no_such"),
        ("default_ttl: 99", "default_ttl: [1]", r"line 20: the sysctl '.*ttl' is a number or a text, not \[1\]"),
        ("ipv4.ip_default_ttl", "ipv4.conf.default.rp_filter", r"line 20: the sysctl .* is not supported: it is for"),
        (SYSCTLS, "[x]", r"line 20: 'sysctls' is a mapping, not \['x'\]"),
        ("- ip route", "- 'echo \"x'\n        - ip route", r"line 17: 'echo \"x' is no command: No closing quotation"),
        ("- ip route", "- ''\n        - ip route", r"line 17: '' is no command"),
        ("kind: bridge", "kind: bridge\n      exec: [ls]", r"line 26: 'exec' of a bridge is not supported"),
        ("topology:", "topology: [", r"line \d+: not YAML"),
        ("    a:\n", "    a:\n      kind: linux\n    a:\n", r"line 16: 'a' is there twice, first in line 14"),
    ],
)
@pytest.mark.infra_requires("ip")
def test_a_file_that_is_wrong_names_the_line(lab: Lab, tmp_path: Path, old: str, new: str, why: str) -> None:
    assert old in FILE
    with pytest.raises(BadInput, match=why):
        lab.load(written(tmp_path / "wrong.clab.yml", FILE.replace(old, new, 1)))


def test_files_that_are_none(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        lab.load(tmp_path / "none.yml")
    with pytest.raises(BadInput, match="is empty"):
        lab.load(written(tmp_path / "empty.yml", ""))
    with pytest.raises(BadInput, match="has a 'topology'"):
        lab.load(written(tmp_path / "bare.yml", "name: x\n"))
    assert not lab.nodes


def test_what_a_file_cannot_say(lab: Lab, tmp_path: Path) -> None:
    lab.link(lab.host("a"), lab.ovs("sw"), vlan=10)
    with pytest.raises(BadInput, match=r"cannot say what a:eth0 -- sw:sw-p1 is \(declared at test_topologies.py:\d+\)"):
        lab.save(tmp_path / "x.yml")
    assert not (tmp_path / "x.yml").exists()


@pytest.mark.parametrize(
    ("declare", "why"),
    [
        (lambda lab, a, sw: a.ports[0].link.ask({"loss": "5 %"}), "how a:eth0 -- sw:sw-p1 is impaired"),
        (lambda lab, a, sw: lab.bridge("tree", spanning_tree=True), "that tree has a spanning tree"),
        (lambda lab, a, sw: lab.ovs("tree", spanning_tree="rstp"), "that tree has a spanning tree"),
        (lambda lab, a, sw: lab.ovs("told", controller="tcp:192.0.2.1:6653"), "that told has a controller"),
        (lambda lab, a, sw: lab.bridge("inner", host=a), "that inner is in a"),
        (lambda lab, a, sw: lab.router("r1", daemons=["ospfd"]), "what <.*r1.*> is"),
        (lambda lab, a, sw: lab.host("c", isolate=["uts"]), "what <.*c.*> is"),
        (lambda lab, a, sw: lab.ovs("fast", dpdk=True), "that fast is on DPDK"),
        (lambda lab, a, sw: lab.vm("guest"), "what <.*guest.*> is"),
    ],
)
def test_what_a_file_cannot_say_either(lab: Lab, tmp_path: Path, declare: Callable[..., object], why: str) -> None:
    a, sw = lab.host("a"), lab.bridge("sw")
    lab.link(a, sw)
    declare(lab, a, sw)
    with pytest.raises(BadInput, match=f"a topology file cannot say {why}"):
        lab.save(tmp_path / "x.yml")
    assert not (tmp_path / "x.yml").exists()


def test_graphs(lab: Lab) -> None:
    nodes = lab.add_graph(networkx.petersen_graph())
    assert len(nodes) == 10
    assert_all_reachable(lab, within="20 s")
    assert networkx.is_isomorphic(networkx.Graph(lab.graph()), networkx.petersen_graph())
    with pytest.raises(BadInput, match="a networkx graph is wanted"):
        lab.add_graph([1, 2])
    with pytest.raises(BadInput, match=r"edge 1 -- 2: .*weight"):
        lab.add_graph(networkx.Graph([(1, 2, {"weight": 3})]))


def test_ready_networks(lab: Lab) -> None:
    tree = lab.fat_tree(4)
    assert (len(tree.routers), len(tree.hosts), len(tree.links)) == (20, 16, 32)
    clos = lab.leaf_spine(spines=2, leaves=3, hosts=6)
    assert (len(clos.routers), len(clos.switches), len(clos.hosts), len(clos.links)) == (5, 3, 6, 6)
    chance = lab.random_graph(6, 8, seed=3)
    assert len(chance.links) == 8
    for part in (tree, clos, chance):
        assert_all_reachable(part.hosts, within="30 s")
    assert_all_reachable(tree.hosts, pairs=20, family="ipv6", within="30 s")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("chain", {"routers": 0}),
        ("ring", {"routers": 2}),
        ("star", {"hosts": 0}),
        ("fat_tree", {"k": 3}),
        ("fat_tree", {"k": 18}),
        ("leaf_spine", {"spines": 0, "leaves": 1, "hosts": 1}),
        ("random_graph", {"routers": 4, "links": 2}),
        ("random_graph", {"routers": 4, "links": 7}),
        ("random_graph", {"routers": True, "links": 1}),
    ],
)
def test_networks_that_cannot_be(lab: Lab, name: str, arguments: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="cannot be used"):
        getattr(lab, name)(**arguments)
    assert not lab.nodes
