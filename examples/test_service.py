"""A service as a cluster gives it: a name, a virtual address, back ends that share the work; and a firewall."""

from __future__ import annotations

import pytest

from pytest_infra import (
    CheckFailed,
    assert_balanced,
    assert_reachable,
    assert_resolves,
    assert_unreachable,
    partition,
)

pytestmark = pytest.mark.infra_requires("dnsmasq", "nft", "ip", "nginx")

NGINX = """
user root root; daemon off; master_process off; pid /tmp/{name}.pid; error_log stderr; worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path /tmp/{name}; proxy_temp_path /tmp/{name}; fastcgi_temp_path /tmp/{name};
    uwsgi_temp_path /tmp/{name}; scgi_temp_path /tmp/{name};
    server {{ listen 8080; location / {{ return 200 "{name}\\n"; }} }}
}}
"""


@pytest.fixture
def cluster(lab, tmp_path):
    """A client, three web servers, a name server: all that a pod sees of a cluster."""
    switch, dns = lab.bridge(), lab.dns("dns")
    client = lab.host("client", dns=dns, search=["prod.svc.cluster.local", "svc.cluster.local", "cluster.local"])
    servers = [lab.host(f"web{number}", isolate=["mount"]) for number in (1, 2, 3)]
    for node in (dns, client, *servers):
        lab.link(node, switch)
    web = lab.service("web", [(server, 8080) for server in servers], port=80, on=[client])
    dns.update({"web.prod.svc.cluster.local": web})
    for server in servers:
        config = tmp_path / f"{server.name}.conf"
        config.write_text(NGINX.format(name=f"nginx-{server.name}").replace("/tmp/", f"{tmp_path}/"))
        server.spawn(["nginx", "-c", config])
    for server in servers:
        assert_reachable(client, server, protocol="tcp", port=8080, within="20 s")
    return client, servers, web, dns


def test_the_name_leads_to_all_servers(cluster):
    client, servers, web, _ = cluster
    for name in ("web", "web.prod", "web.prod.svc.cluster.local"):
        assert_resolves(client, name, to=web)
    answers = {client.run(["curl", "-s", "http://web/"]).stdout for _ in servers}
    assert answers == {f"nginx-{server.name}\n" for server in servers}
    assert assert_balanced(client, web, count=30).connections == {f"{server.name}:8080": 10 for server in servers}
    assert "dnat to" in web.rules(client)[0].text


def test_outside_of_the_cluster_there_is_no_such_service(cluster, lab):
    _, _, web, dns = cluster
    outsider = lab.host("outsider", dns=dns)
    lab.link(outsider, lab.switches["sw1"])
    assert_resolves(outsider, "web", to=[])  # it has no search domains
    with pytest.raises(CheckFailed, match="outsider does not know the service"):
        assert_balanced(outsider, web)


def test_a_server_that_is_cut_off_is_taken_out(cluster):
    client, servers, web, _ = cluster
    with partition([client], [servers[0]]):
        with pytest.raises(CheckFailed, match=r"connections to web .* fail"):
            assert_balanced(client, web, count=15)
        web.set_backends([(server, 8080) for server in servers[1:]])
        assert_balanced(client, web, count=10)


FIREWALL = """
table inet firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "eth0" accept comment "from the inside"
        ct status dnat accept comment "what is forwarded"
    }
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "eth1" tcp dport 8080 dnat ip to SERVER:80
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "eth1" masquerade
    }
}
"""


def test_a_firewall_with_a_port_forward(lab):
    inside, firewall, outside = lab.host("inside"), lab.router("fw"), lab.host("outside", routes=False)
    lab.link(inside, firewall, ip="10.0.0.2/24", peer_ip="10.0.0.1/24")
    lab.link(firewall, outside, ip="203.0.113.1/24", peer_ip="203.0.113.2/24")
    firewall.nft(FIREWALL.replace("SERVER", "10.0.0.2"))
    assert_reachable(inside, outside)  # only by masquerading: outside has no route back
    assert_unreachable(outside, "10.0.0.2")
    with pytest.raises(CheckFailed, match=r"203\.0\.113\.1 TCP port 8080 is closed"):
        assert_reachable(outside, "203.0.113.1", protocol="tcp", port=8080)
    inside.spawn(["python3", "-c", "import http.server as h; h.HTTPServer(('', 80), h.SimpleHTTPRequestHandler)"
                                   ".serve_forever()"])  # fmt: skip
    assert_reachable(outside, "203.0.113.1", protocol="tcp", port=8080, within="30 s")
