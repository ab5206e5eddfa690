"""Names, services, rule sets, files of a host's own: real dnsmasq, nftables and nginx-like servers."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pytest_infra import BadInput, CheckFailed, assert_balanced, assert_resolves
from pytest_infra.checks.resolve import measure_resolve
from pytest_infra.net.virtual_service import ruleset

pytestmark = [pytest.mark.infra_requires("nft", "ip")]
SEARCH = ["prod.svc.cluster.local", "svc.cluster.local"]


@contextmanager
def listening(*nodes, port=8080):
    """Servers that take connections and close them."""
    servers = [node.call(socket.create_server, ("", port), backlog=64) for node in nodes]

    def serve(server):
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    threads = [threading.Thread(target=serve, args=(server,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
        for thread in threads:
            thread.join()


@pytest.fixture
def cluster(lab):
    """A client, a name server and two back ends of the service web, on one switch; and somebody outside of it."""
    switch, dns = lab.bridge(), lab.dns("dns")
    client = lab.host("client", dns=dns, search=SEARCH)
    backends = [lab.host("b1"), lab.host("b2")]
    outside = lab.host("outside")
    for node in (dns, client, *backends, outside):
        lab.link(node, switch)
    web = lab.service("web", [(node, 8080) for node in backends], port=80, on=[client])
    dns.update({"web.prod.svc.cluster.local": web, "*.apps.example.org": "10.1.2.3", "b1.example.org": backends[0]})
    return client, dns, web, backends, outside


@pytest.mark.infra_requires("dnsmasq")
def test_a_server_that_refuses_the_other_kind_of_address(lab):
    """With no server behind it dnsmasq refuses the question for IPv6, which no program takes amiss."""
    server, client = lab.host("server"), lab.host("client", dns="10.0.0.1")
    lab.link(server, client, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    options = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file=",
    ]
    server.spawn(["dnsmasq", *options, "--host-record=one.test,10.3.3.3"])
    assert_resolves(client, "one.test", to="10.3.3.3", within="10 s")
    with pytest.raises(CheckFailed, match="resolves elsewhere"):
        assert_resolves(client, "one.test", to="10.3.3.4")
    with pytest.raises(CheckFailed, match="does not resolve: refused"):
        assert_resolves(client, "two.test", to="10.3.3.3")


@pytest.mark.infra_requires("dnsmasq")
def test_names_that_are_refused_change_nothing(lab):
    dns, bare = lab.dns("dns"), lab.host("bare")
    client = lab.host("client", dns=dns)
    lab.link(dns, client)
    lab.link(bare, lab.host(), ip=[], peer_ip=[])
    dns.update({"x.test": "10.9.9.9"})
    assert_resolves(client, "x.test", to="10.9.9.9", within="10 s")
    with pytest.raises(BadInput, match=r"bad\.test stands for .*, which has no address"):
        dns.update({"bad.test": bare})
    assert_resolves(client, "x.test", to="10.9.9.9")
    dns.update({"y.test": "10.9.9.8"})
    assert_resolves(client, "y.test", to="10.9.9.8")
    assert "bad.test" not in dns.records


@pytest.mark.infra_requires("dnsmasq")
def test_a_name_resolves_in_the_cluster_only(cluster):
    client, dns, web, (b1, _), outside = cluster
    assert assert_resolves(client, "web", to=web).full_name == "web.prod.svc.cluster.local"
    assert_resolves(client, "web.prod", to=web.address)
    assert_resolves(client, "web.prod.svc.cluster.local", to=[web])
    assert_resolves(client, "any.apps.example.org", to="10.1.2.3")
    assert_resolves(client, "b1.example.org", to=b1)  # IPv4 and IPv6
    assert_resolves(client, "nothing.example.org", to=[])
    with pytest.raises(CheckFailed, match=r"it cannot be told whether .* resolves: no answer"):
        assert_resolves(outside, "nothing.example.org", to=[])
    with pytest.raises(CheckFailed, match=r"outside: web\S* does not resolve: no answer"):
        assert_resolves(outside, "web.prod.svc.cluster.local", to=web)
    assert "web.prod.svc.cluster.local is" in dns.log()
    assert web.address in client.run(["getent", "hosts", "web"]).stdout  # as any program of it does


@pytest.mark.infra_requires("dnsmasq")
def test_a_name_changes_and_a_check_waits_for_it(cluster):
    client, dns, web, _, _ = cluster
    assert_resolves(client, "web", to=web)
    later = threading.Timer(0.2, dns.update, [{"web.prod.svc.cluster.local": "10.9.9.9"}])
    later.start()
    assert_resolves(client, "web", to="10.9.9.9", within="30 s")
    later.join()
    with pytest.raises(CheckFailed, match=r"web resolves elsewhere, to 10\.9\.9\.9"):
        assert_resolves(client, "web", to=web, within="50 ms")


def test_connections_are_spread_and_counted(cluster):
    client, _, web, (b1, b2), outside = cluster
    with listening(b1, b2):
        report = assert_balanced(client, web, count=20)
        assert report.connections == {"b1:8080": 10, "b2:8080": 10}
        with pytest.raises(CheckFailed, match="outside does not know the service"):
            assert_balanced(outside, web, count=10)
        web.set_backends([(b1, 8080)])
        assert assert_balanced(client, web, count=6).connections == {"b1:8080": 6}
    assert [rule.comment for rule in web.rules(client) if rule.comment] == ["server 0"]
    assert web.describe()["backends"] == ["b1:8080"]


def test_a_service_with_a_dead_back_end_or_none(cluster, lab):
    client, _, web, (b1, _), _ = cluster
    with listening(b1), pytest.raises(CheckFailed, match=r"10 of 20 connections .* fail") as caught:
        assert_balanced(client, web, count=20)
    assert "10 connection refused" in str(caught.value)
    assert "the back end b2:8080: nothing listens on TCP port 8080 of b2" in str(caught.value)
    with pytest.raises(BadInput, match="5 for each"):
        assert_balanced(client, web, count=9)
    with pytest.raises(BadInput, match="has no IPv4 address"):
        web.set_backends([lab.host("new")])
    assert web.describe()["backends"] == ["b1:8080", "b2:8080"]
    web.set_backends([])
    with pytest.raises(CheckFailed, match="the service has no back ends"):
        assert_balanced(client, web, count=5)


def test_a_service_outlives_a_flush(cluster):
    client, _, web, (b1, b2), _ = cluster
    client.nft("flush ruleset\n")
    with listening(b1, b2):
        assert assert_balanced(client, web, count=10).ok


def test_connections_that_go_past_the_service(cluster):
    client, _, web, (b1, b2), _ = cluster
    other = f"tcp dport 80 numgen inc mod 3 0-1 dnat to {b1.ports[0].addresses[0].ip}:8080"
    client.nft(f"table ip x {{\n chain o {{\n type nat hook output priority -150\n {other}\n }}\n}}\n")
    with (
        listening(b1, b2),
        pytest.raises(CheckFailed, match=r"32 of 48 connections .* went past the service") as caught,
    ):
        assert_balanced(client, web, count=48)
    assert "client has another rule that translates: 'tcp dport 80 numgen" in str(caught.value)


def test_a_service_behind_a_router(lab):
    client, router, server = lab.host("client"), lab.router("r"), lab.host("server")
    lab.link(client, router)
    lab.link(router, server)
    lab.link(router, lab.host("far"))  # a second subnet: the client's route is a default route
    web = lab.service("web", [server], port=80, on=[router])
    with listening(server, port=80):
        assert assert_balanced(client, web, count=5).connections == {"server:80": 5}
    assert client.nft_rules == []


def test_a_router_translates_for_a_client_beside_the_servers(lab):
    """Their answers would not come by the router, if it did not translate the client's address too."""
    switch, router = lab.bridge(), lab.router("r")
    client, servers = lab.host("client"), [lab.host("s1"), lab.host("s2")]
    for node in (router, client, *servers):
        lab.link(node, switch)
    lab.link(router, lab.host("far"))
    web = lab.service("web", servers, port=80, on=[router])
    with listening(*servers, port=80):
        assert assert_balanced(client, web, count=10).connections == {"s1:80": 5, "s2:80": 5}
        assert assert_balanced(lab.node("far"), web, count=10).ok
    rules = [rule.text for rule in web.rules(router) if rule.chain == "postrouting"]
    assert len(rules) == 1
    assert "masquerade" in rules[0]


def test_a_number_is_no_rule_set_and_the_file_that_it_names_stays_open(lab):
    with open("/etc/hostname", encoding="utf-8") as file:
        with pytest.raises(BadInput, match=r"rule set \d+ cannot be used; a text, or the pathlib.Path of a file"):
            lab.host().nft(file.fileno())
        with pytest.raises(BadInput, match=r"config \d+ cannot be used"):
            lab.router(daemons=["ospfd"], config=file.fileno())
        assert file.read()


def test_a_host_that_comes_later_knows_the_service_and_has_a_name(lab):
    switch, dns = lab.bridge(), lab.dns("dns", domain="lab.test")
    server, early = lab.host("server"), lab.host("early", dns=dns)
    for node in (dns, server, early):
        lab.link(node, switch)
    web = lab.service("web", [server], port=80)
    lab.up()
    later = lab.host("later", dns=dns)
    assert web.rules(later)  # before it has a link
    lab.link(later, switch)
    with listening(server, port=80):
        assert assert_balanced(later, web, count=5).connections == {"server:80": 5}
    assert_resolves(early, "later.lab.test", to=later)
    assert_resolves(later, "server.lab.test", to=server)
    lab.link(server, switch)
    assert_resolves(early, "server.lab.test", to=server)  # its second address among them
    assert "later.lab.test" in dns.log()


def test_a_service_that_comes_later_and_a_link_that_flaps(lab):
    switch = lab.bridge()
    client, server = lab.host("client"), lab.host("server")
    for node in (client, server):
        lab.link(node, switch)
    lab.up()
    web = lab.service("web", [server], port=80)
    with listening(server, port=80):
        assert_balanced(client, web, count=5)
        client.ports[0].down()
        with pytest.raises(CheckFailed, match="network is unreachable"):
            assert_balanced(client, web, count=5)
        client.ports[0].up()  # its routes come back, that to the service among them
        assert_balanced(client, web, count=5)


@pytest.mark.parametrize("knows", ["far", "nobody"])
def test_a_router_on_the_way_translates_for_those_who_do_not_know_the_service(lab, knows):
    client, near, far, server = lab.host("client"), lab.router("near"), lab.router("far"), lab.host("server")
    lab.link(client, near)
    lab.link(near, far)
    lab.link(far, server)
    lab.link(client, lab.router("dead_end"))  # the client has no default route
    lab.link(lab.node("dead_end"), lab.host("nobody"))
    web = lab.service("web", [server], port=80, on=[lab.node(knows)])
    with listening(server, port=80):
        if knows == "far":
            assert assert_balanced(client, web, count=5).connections == {"server:80": 5}
            assert assert_balanced(far, lab.service("own", [server], port=80), count=5).ok  # a router asks itself
        else:  # the failing twin: no router knows it, and so no route leads there
            with pytest.raises(CheckFailed, match="network is unreachable"):
                assert_balanced(client, web, count=5)


def test_rule_sets_are_loaded_whole_or_not_at_all(lab, tmp_path):
    host = lab.host()
    rule = 'tcp dport 22 counter drop comment "ssh"'
    good = f"table inet t {{\n chain c {{\n  type filter hook input priority 0\n  {rule}\n }}\n}}\n"
    (tmp_path / "rules.nft").write_text(good)
    host.nft(tmp_path / "rules.nft")
    (rule,) = host.nft_rules
    assert (rule.family, rule.table, rule.chain, rule.packets, rule.comment) == ("inet", "t", "c", 0, "ssh")
    assert rule.text.startswith("tcp dport 22 counter")
    with pytest.raises(BadInput, match=r"nft refuses the rule set in line 2, 'chain \{', at '\{': syntax error"):
        host.nft("table inet u {\n chain {\n }\n}\n")
    with pytest.raises(BadInput, match="line 4, 'ip saddr 300"):
        host.nft("table ip u {\n chain c {\n  tcp dport 1 drop\n  ip saddr 300.0.0.1 drop\n }\n}\n")
    assert [rule.table for rule in host.nft_rules] == ["t"]
    with pytest.raises(BadInput, match="neither a text nor a file"):
        host.nft(tmp_path / "missing")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("tcp dprot 22 drop", "in line 3, 'tcp dprot 22 drop', at 'dprot': syntax error"),
        ("type filter hook inptu priority 0", "in line 3, .*, at 'inptu': unknown chain hook"),
        ("ip saddr 10.0.0.0/33 drop", "in line 3, .*, at '10.0.0.0/33': Prefix length 33 is invalid"),
        ("tcp dport 99999 drop", "in line 3, .*, at '99999': Service out of range"),
        ("jump nowhere", "in line 3, 'jump nowhere', at 'nowhere': .*there is no such table, chain, set or object"),
        ("tcp dport 22 drop }", "in line 3"),
        ("type nat hook forward priority 0", "in line 2, .*such as this type of chain at this hook"),
        ("tcp dport 80 dnat ip to 10.0.0.1:http80", "in line 3, .*, at 'http80': Could not resolve service"),
        ('include "/no/such/file"', "in line 3, .*File not found: /no/such/file"),
    ],
)
def test_a_rule_set_that_is_wrong_names_its_line(lab, rule, words):
    with pytest.raises(BadInput, match=f"nft refuses the rule set {words}"):
        lab.host().nft(f"table inet t {{\n chain c {{\n  {rule}\n }}\n}}\n")
    with pytest.raises(BadInput, match="nft refuses the rule set at its end, line 3: syntax error"):
        lab.host().nft("table inet t {\n chain c {\n")


def test_files_of_a_host_are_seen_in_it_only(lab):
    mine = lab.host("mine", files={"/etc/hostname": "mine\n", "/etc/hosts": "10.0.0.9 nine\n"}, clock_offset="1 h")
    other = lab.host("other")
    lab.link(mine, other)
    assert mine.run(["cat", "/etc/hostname"]).stdout == "mine\n"
    assert mine.run(["getent", "hosts", "nine"]).stdout.split() == ["10.0.0.9", "nine"]
    assert mine.call(Path("/etc/hostname").read_text) == "mine\n"
    assert other.run(["cat", "/etc/hostname"]).stdout != "mine\n"


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda lab: lab.host(files={"etc/hosts": ""}), "absolute path"),
        (lambda lab: lab.host(files={"/no/such/file": ""}), "absolute path of a file of this machine"),
        (lambda lab: lab.host(files=["/etc/hosts"]), "files says which path has which text"),
        (lambda lab: lab.host(files={"/etc/hosts": "x" * 100_001}), "at most 100000 bytes"),
        (lambda lab: lab.host(files={"/etc/hosts": "\0"}), "without NUL"),
        (lambda lab: lab.host(dns="nobody"), "neither a node of the lab nor an address"),
        (lambda lab: lab.host(search="example.org"), "search is a list"),
        (lambda lab: lab.host(search=["-x"]), "no domain name"),
        (lambda lab: lab.dns(records={"a b": "10.0.0.1"}), "no domain name"),
        (lambda lab: lab.dns(records={"a": "nowhere"}), "an address or a node"),
        (lambda lab: lab.dns(records={"a": 7}), "an address or a node"),
        (lambda lab: lab.dns(records={"x" * 64: "10.0.0.1"}), "no domain name"),
        (lambda lab: lab.service("Web", [], port=80), "small letters"),
        (lambda lab: lab.service("web", [], port=0), "from 1 to 65535"),
        (lambda lab: lab.service("web", [], port=80, protocol="sctp"), "'tcp' or 'udp'"),
        (lambda lab: lab.service("web", [], port=80, address="fd00::1"), "one of IPv4"),
        (lambda lab: lab.service("web", [None], port=80), "a back end is a node"),
        (lambda lab: [lab.service("web", [], port=port) for port in (80, 81)], "taken by another service"),
        (lambda lab: lab.service("web", [(lab.host("b"), 70000)], port=80), "from 1 to 65535"),
        (lambda lab: (b := lab.host("c")) and lab.service("web", [b, b], port=80), "named twice"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_made(lab, declare, words):
    with pytest.raises(BadInput, match=words):
        declare(lab)
    lab.up()


def test_a_name_that_cannot_be_looked_up(lab):
    with pytest.raises(BadInput, match="no domain name"):
        measure_resolve(lab.host(), "a..b")


def test_the_rules_of_a_service_as_text(snapshot):
    assert ruleset("service-web", "10.96.0.1", "tcp", 80, [("10.0.0.2", 8080), ("10.0.0.3", 80)]) == snapshot
    assert ruleset("service-web", "10.96.0.1", "udp", 53, []) == snapshot
    beside = [IPv4Network("10.0.0.0/24")]
    assert ruleset("service-web", "10.96.0.1", "tcp", 80, [("10.0.0.2", 80)], beside) == snapshot
