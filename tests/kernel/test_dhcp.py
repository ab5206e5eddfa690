"""Addresses by DHCP, from dnsmasq."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_infra import BadInput, CheckFailed, Lab, assert_reachable, assert_unreachable, until
from pytest_infra.core.process import Process

pytestmark = pytest.mark.infra_requires("dnsmasq")


@pytest.fixture
def office(lab: Lab) -> tuple[Any, Any, Any]:
    """Server and router with a client behind a switch, and a host on its far side."""
    router, client, far, switch = lab.router("r"), lab.host("client"), lab.host("far"), lab.bridge()
    lab.link(router, switch, ip="10.0.0.1/24")
    lab.link(client, switch, ip=[])
    lab.link(router, far, ip="10.0.9.1/24", peer_ip="10.0.9.2/24")
    return router, client, far


@contextmanager
def dnsmasq(node: Any, pool: str = "10.0.0.50,10.0.0.60,1h", *more: str) -> Iterator[Process]:
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--dhcp-leasefile=/dev/null", "--port=0"]
    argv += ["--user=root", "--log-facility=-", "--log-dhcp", "--no-ping", f"--dhcp-range={pool}", *more]
    with node.spawn(argv) as server:
        server.wait_for("DHCP, IP range")
        yield server


def test_an_address_a_route_and_what_else_the_server_says(office: tuple[Any, Any, Any]) -> None:
    router, client, far = office
    with dnsmasq(router, "10.0.0.50,10.0.0.60,1h", "--dhcp-option=6,10.0.0.9", "--domain=example.org"):
        report = client.dhcp()
        offer = report.offer
    assert report.ok
    assert 50 <= int(report.address.ip) & 0xFF <= 60
    assert report.address.network.prefixlen == 24
    assert (offer.routers, offer.dns, offer.domain) == (("10.0.0.1",), ("10.0.0.9",), "example.org")
    assert (offer.server, offer.lease_s) == ("10.0.0.1", 3600)
    assert report.address in client.ports[0].addresses
    assert_reachable(client, far)
    assert_reachable(far, client)
    client.ports[0].down()
    assert_unreachable(far, client)
    client.ports[0].up()
    assert_reachable(far, client)


def test_it_waits_for_a_server_that_is_late(office: tuple[Any, Any, Any]) -> None:
    router, client, _ = office
    with pytest.raises(CheckFailed, match="client:eth0 got no address by DHCP"):
        client.dhcp(within="300 ms")
    assert not [item for item in client.addresses if item.ip.version == 4 and item.interface == "eth0"]
    with dnsmasq(router):
        assert client.dhcp(within="20 s").ok


def test_a_pool_that_is_exhausted(lab: Lab, office: tuple[Any, Any, Any]) -> None:
    router, client, _ = office
    second = lab.host("second")
    lab.link(second, next(iter(lab.switches.values())), ip=[])
    with dnsmasq(router, "10.0.0.50,10.0.0.50,1h") as server:
        assert str(client.dhcp().address.ip) == "10.0.0.50"
        with pytest.raises(CheckFailed, match="no server has answered: none is there, it has no address left"):
            second.dhcp(within="1 s")
        until(lambda: "no address available" in server.stderr, within_s=5, what="the server's word")


def test_which_link(lab: Lab, office: tuple[Any, Any, Any]) -> None:
    router, client, far = office
    with pytest.raises(BadInput, match="r has 2 ports to choose from; name a link"):
        router.dhcp()
    with pytest.raises(BadInput, match="client has 0 ports there; name a link"):
        client.dhcp(far.ports[0].link)
    with pytest.raises(BadInput, match="does not begin with a number"):
        client.dhcp(within="soon")
