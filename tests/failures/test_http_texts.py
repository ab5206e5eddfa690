"""What assert_http and assert_resolves say: of the name, the way to the server, its port, and what it answers."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from breaking import nft, normal
from syrupy.assertion import SnapshotAssertion
from webserver import start_nginx

from pytest_infra import CheckFailed, assert_http, assert_reachable, assert_resolves, until
from pytest_infra.lab import Lab
from pytest_infra.net.host import Host
from pytest_infra.net.router import Router
from pytest_infra.session import Infra

pytestmark = [pytest.mark.infra_requires("nginx", "dnsmasq", "nft", "ip")]

SERVER = """
listen {listen};
location / {{ return 200 "hello\\n"; }}
location /down {{ return 503 "<html>\\n<h1>all back ends are down</h1>\\n</html>\\n"; }}
"""


@dataclass
class Net:
    """client - r1 - web, with a name server beside web; all of IPv4."""

    client: Host
    r1: Router
    web: Host
    dns: Any
    folder: Path
    open: list[socket.socket] = field(default_factory=list)

    def nginx(self, listen: str = "80") -> None:
        start_nginx(self.web, self.folder, SERVER.format(listen=listen))
        address, _, port = listen.rpartition(":")
        assert_reachable(
            self.web,
            {"": "10.0.2.80", "[::]": "::1"}.get(address, address),
            protocol="tcp",
            port=int(port),
            within="10 s",
        )

    def raw(self, content: bytes, close: bool) -> None:
        """A server that says this to the first connection."""
        server = self.web.call(socket.create_server, ("", 80))
        self.open.append(server)

        def serve() -> None:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(content)
            connection.close() if close else self.open.append(connection)

        threading.Thread(target=serve, daemon=True).start()


@pytest.fixture
def net(session: Infra, tmp_path: Path) -> Iterator[Net]:
    with session.lab("shop") as lab:
        yield from make(lab, tmp_path)


def make(lab: Lab, folder: Path) -> Iterator[Net]:
    dns, r1, web, switch = lab.dns("dns"), lab.router("r1"), lab.host("web"), lab.bridge("sw1")
    client = lab.host("client", dns=dns, search=["example.org"])
    lab.link(client, r1, ip="10.0.1.10/24", peer_ip="10.0.1.1/24")
    for node, ip in ((r1, "10.0.2.1/24"), (web, "10.0.2.80/24"), (dns, "10.0.2.53/24")):
        lab.link(node, switch, ip=ip)
    dns.update({"www.example.org": "10.0.2.80", "old.example.org": "10.0.1.1", "text.example.org": "2001:db8::1"})
    net = Net(client, r1, web, dns, folder)
    assert_resolves(client, "www", to=web)
    yield net
    for sock in net.open:
        sock.close()


URL = "http://10.0.2.80/"
HTTP: dict[str, tuple[Callable[[Net], object], str, dict[str, Any]]] = {
    "another status": (lambda net: net.nginx(), URL + "down", {}),
    "another body": (lambda net: net.nginx(), URL, {"contains": "good bye"}),
    "any of two statuses": (lambda net: net.nginx(), "http://www/", {"status": [301, 302]}),
    "port closed": (lambda net: None, URL, {}),
    "another port": (lambda net: net.nginx("8080"), URL, {}),
    "loopback only": (lambda net: net.nginx("127.0.0.1:80"), URL, {}),
    "the other family": (lambda net: net.nginx("[::]:80"), URL, {}),
    "interface down": (lambda net: net.web.ports[0].down(), URL, {}),
    "a firewall": (lambda net: nft(net.r1, "forward", "tcp dport 80 drop"), URL, {}),
    "a firewall that refuses": (lambda net: nft(net.r1, "forward", "tcp dport 80 reject"), URL, {}),
    "no route": (lambda net: net.client.run(["ip", "route", "del", "default"]), URL, {}),
    "no such name": (lambda net: None, "http://nothing/", {}),
    "no address of the family": (lambda net: None, "http://www/", {"family": "ipv6"}),
    "the name server is not reached": (lambda net: net.dns.ports[0].down(), "http://www/", {}),
    "no TLS": (lambda net: net.nginx("443"), "https://10.0.2.80/", {}),
    "silence": (lambda net: net.raw(b"", close=False), URL, {}),
    "half an answer": (lambda net: net.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel", close=False), URL, {}),
    "an answer cut off": (lambda net: net.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel", close=True), URL, {}),
    "closed without a word": (lambda net: net.raw(b"", close=True), URL, {}),
    "not HTTP": (lambda net: net.raw(b"SSH-2.0-OpenSSH_9.2\r\n", close=True), URL, {}),
}


@pytest.mark.parametrize("name", HTTP)
def test_http(net: Net, name: str, snapshot: SnapshotAssertion) -> None:
    breaking, url, options = HTTP[name]
    breaking(net)
    with pytest.raises(CheckFailed) as caught:
        assert_http(net.client, url, timeout="500 ms", **options)
    assert plain(str(caught.value)) == snapshot


def end(dns: Host) -> None:
    dns.run(["pkill", "dnsmasq"])
    until(lambda: not dns.processes[-1].running, within_s=20, what="it has ended")


RESOLVES: dict[str, tuple[Callable[[Net], object], str, Any]] = {
    "elsewhere": (lambda net: None, "old", "10.0.2.80"),
    "elsewhere, and nobody's": (lambda net: net.dns.update({"www.example.org": "192.0.2.1"}), "www", "10.0.2.80"),
    "the server has ended": (lambda net: end(net.dns), "www", None),
    "the way to it is down": (lambda net: net.client.ports[0].down(), "www", None),
    "a firewall before it": (lambda net: nft(net.r1, "forward", "udp dport 53 drop"), "www", "10.0.2.80"),
    "the server is stuck": (lambda net: net.dns.run(["pkill", "-STOP", "dnsmasq"]), "www", None),
    "a firewall, and none was wanted": (lambda net: nft(net.r1, "forward", "udp dport 53 drop"), "nothing", []),
}


@pytest.mark.parametrize("name", RESOLVES)
def test_resolves(net: Net, name: str, snapshot: SnapshotAssertion) -> None:
    breaking, asked, to = RESOLVES[name]
    breaking(net)
    with pytest.raises(CheckFailed) as caught:
        assert_resolves(net.client, asked, to=to)
    assert plain(str(caught.value)) == snapshot


def test_the_machines_name_server_is_not_in_the_lab(lab: Lab, snapshot: SnapshotAssertion) -> None:
    a = lab.host("a", files={"/etc/resolv.conf": "nameserver 192.0.2.53\n"})
    lab.link(a, lab.host("b"), ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    with pytest.raises(CheckFailed) as caught:
        assert_resolves(a, "www.example.org")
    assert plain(str(caught.value)) == snapshot


def plain(text: str) -> str:
    """Without versions of other people's software, words of OpenSSL, and what only root sees."""
    text = re.sub(r"^ +not seen +the kernel's reason for the drop: .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"nginx/[\d.]+", "nginx/<version>", normal(text))
    text = re.sub(r"dnsmasq\[\d+\]", "dnsmasq[<pid>]", text)
    return re.sub(r"measured   \[ssl.*", "measured   <words of OpenSSL>", text)
