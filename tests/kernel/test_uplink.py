"""Uplinks: a node reaches the outside on request, what that changes is undone, and without it nothing leaves.

The outside is always a namespace of the test's own: no packet is sent to the machine's network.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from pytest_infra import BadInput, Unavailable, assert_reachable, assert_unreachable
from pytest_infra.core.wait import until
from pytest_infra.net.masquerade import forget
from pytest_infra.net.uplink import PASTA, SLIRP

pytestmark = pytest.mark.infra_requires("nft", "ip")
FAR = "203.0.113.9"


@pytest.fixture
def world(infra):
    """Another lab, which is the outside: a gateway, and a server behind it that knows the gateway only."""
    with infra.lab("world") as world:
        gateway, server = world.host("gateway"), world.host("server")
        world.link(gateway, server, ip="203.0.113.1/24", peer_ip=f"{FAR}/24")
        gateway.run(["ip", "route", "add", "default", "via", FAR])  # pasta wants one
        yield gateway, server


def state(gateway):
    tables = gateway.run(["nft", "list", "ruleset"]).stdout
    return tables, gateway.sysctl["net.ipv4.ip_forward"], sorted(gateway.interfaces), gateway.routes


def refusals(node, address):
    """What connecting there ends in."""
    with pytest.raises(OSError, match=r"refused|unreachable|timed out") as error:
        node.call(socket.create_connection, (address, 9), 2.0)
    return error.value


@pytest.fixture(params=["masquerade", "pasta", "slirp4netns"])
def via(request):
    if missing := {"pasta": PASTA, "slirp4netns": SLIRP}.get(request.param):
        missing.demand()
    return request.param


def test_a_node_reaches_the_outside_and_its_lab(infra, world, via):
    gateway, server = world
    before = state(gateway)
    listener = server.call(socket.create_server, (FAR, 7))
    with infra.lab() as lab, listener:
        a, router, b = lab.host("a"), lab.router("r"), lab.host("b")
        lab.link(a, router)
        lab.link(router, b)
        lab.uplink(a, outside=gateway, via=via)
        with a.call(socket.create_connection, (FAR, 7), 5.0) as connection:
            peer, address = listener.accept()
            peer.close()
            assert address[0] == "203.0.113.1"  # nobody outside sees the lab's addresses
            assert connection.getpeername() == (FAR, 7)
        assert_reachable(a, b)
        assert isinstance(refusals(b, FAR), OSError)  # the others of the lab are where they were
        assert lab.describe()["nodes"][0]["uplink"] == via
    assert state(gateway) == before


def test_without_an_uplink_nothing_leaves(infra, world):
    gateway, server = world
    with infra.lab() as lab:
        a, router = lab.host("a"), lab.router("r")
        lab.link(a, router)
        lab.link(router, lab.host("b"))
        before = server.interfaces["eth0"], state(gateway)
        for address in (FAR, "203.0.113.1"):
            assert_unreachable(a, address, within="100 ms")
            refusals(a, address)
        assert (server.interfaces["eth0"], state(gateway)) == before
        spaces = {os.stat(f"/proc/self/fd/{node.namespace.fd}").st_ino for node in (a, router)}
        assert os.stat("/proc/self/ns/net").st_ino not in spaces
        for node in (a, router):  # every interface is the lab's: there is nothing by which a packet could leave
            assert set(node.interfaces) == {"lo", *(port.name for port in node.ports)}


def test_what_a_node_forwards_does_not_go_out(infra, world):
    gateway, _ = world
    with infra.lab() as lab:
        a, router, b = lab.host("a"), lab.router("r"), lab.host("b")
        lab.link(a, router)
        lab.link(router, b)
        lab.uplink(router, outside=gateway, via="masquerade")
        assert_reachable(router, FAR)
        assert_unreachable(a, FAR, within="200 ms")
        (rule,) = [rule for rule in router.nft_rules if rule.comment == "an uplink is for the node itself"]
        assert rule.packets > 0
        assert_reachable(a, b)


@pytest.mark.parametrize("guards", [("node",), ("outside",), ("flushed",), ()])
def test_each_guard_of_an_uplink_is_enough(infra, world, guards):
    """The node drops what it would forward, and so does the outside; without both it would go out."""
    gateway, server = world
    server.nft("table ip t {\n chain c {\n type filter hook input priority 0; ip saddr 198.18.0.0/15 counter\n }\n}\n")
    with infra.lab() as lab:
        router, behind = lab.router("r"), lab.host("behind")
        lab.link(router, behind)
        lab.link(router, lab.host("other"))
        lab.uplink(router, outside=gateway, via="masquerade")
        lab.up()
        (outside,) = {rule.table for rule in gateway.nft_rules}
        if "flushed" in guards:
            router.nft("flush ruleset\n")  # spares what the lab has there
        elif "node" not in guards:
            router.run(["nft", "flush", "chain", "inet", "infra-uplink", "forward"])
        if "outside" not in guards:
            gateway.run(["nft", "flush", "chain", "ip", outside, "forward"])
        assert_unreachable(behind, FAR, within="100 ms")
    (rule,) = server.nft_rules
    assert bool(rule.packets) is not bool(guards)


def test_its_subnet_is_free_in_the_node_and_in_the_lab_too(infra, world):
    with infra.lab() as lab:
        a, b, c = lab.host("a"), lab.router("b"), lab.host("c")
        link = lab.link(a, b, ip="100.64.0.1/30", peer_ip="100.64.0.2/30")
        lab.link(b, c, ip="100.64.0.5/30", peer_ip="100.64.0.6/30")
        lab.up()
        a.run(["ip", "route", "add", "100.64.0.8/29", "dev", "eth0"])
        lab.uplink(a, outside=world[0], via="masquerade")
        assert_reachable(a, FAR)
        (mine,) = [str(item.ip) for item in a.addresses if item.interface == "uplink" and item.ip.version == 4]
        assert mine == "100.64.0.18/30"
        link.down()
        assert_unreachable(a, b, within="100 ms")


def test_the_last_uplink_turns_forwarding_off(infra, world):
    gateway, _ = world
    before = state(gateway)
    with infra.lab() as lab:
        a = lab.host("a")
        lab.uplink(a, outside=gateway, via="masquerade")
        lab.up()
        with infra.lab() as other:
            b = other.host("b")
            other.uplink(b, outside=gateway, via="masquerade")
            assert_reachable(b, FAR)
        assert gateway.sysctl["net.ipv4.ip_forward"] == "1"
        assert_reachable(a, FAR)
    assert state(gateway) == before


def test_forwarding_that_was_on_stays_on(infra, world):
    gateway, _ = world
    gateway.sysctl["net.ipv4.ip_forward"] = "1"
    with infra.lab() as lab:
        lab.uplink(lab.host("a"), outside=gateway, via="masquerade")
        lab.up()
    assert gateway.sysctl["net.ipv4.ip_forward"] == "1"


SESSION = """
import sys
from pytest_infra.session import Infra
with Infra() as infra, infra.lab() as lab:
    a = lab.host("a")
    lab.uplink(a, outside=sys.argv[1], via="masquerade")
    lab.up()
    print("up", flush=True)
    sys.stdin.read()
"""


def test_the_wire_goes_with_a_session_that_was_killed(world):
    gateway, _ = world
    before = state(gateway)
    path = f"/proc/{os.getpid()}/fd/{gateway.namespace.fd}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SESSION, path], **pipes) as child:
        assert child.stdout.readline() == b"up\n"
        during = state(gateway)
        assert during[1] == "1"
        assert len(during[2]) == len(before[2]) + 1
        child.send_signal(signal.SIGKILL)
    # The namespace has no name and no process: only this one's descriptor, which another process finds in no list.
    until(lambda: len(gateway.interfaces) == len(before[2]), within_s=10, what="the wire is gone")


def test_all_is_undone_after_sigkill(world):
    """Where a process lives in the outside, as on the machine: the reaper finds it."""
    gateway, _ = world
    before = state(gateway)
    gateway.spawn(["sleep", "60"])
    path = f"/proc/{os.getpid()}/fd/{gateway.namespace.fd}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SESSION, path], **pipes) as child:
        assert child.stdout.readline() == b"up\n"
        assert state(gateway) != before
        child.send_signal(signal.SIGKILL)
    until(lambda: state(gateway) == before, within_s=10, what="all is as before")


def test_a_namespace_that_is_gone_needs_no_undoing():
    before = sorted(os.listdir("/proc/self/fd"))
    forget(1, "infra-up000000")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be(infra, lab, world, monkeypatch):
    a, gateway = lab.host("a"), world[0]
    for wrong, words in (
        ({"via": "magic"}, "no uplink via 'magic'; there are pasta, slirp4netns, masquerade"),
        ({"outside": "/no/such"}, "neither a host nor the path"),
        ({"outside": 7}, "neither a host nor the path"),
        ({"outside": a}, "cannot be its own outside"),
    ):
        with pytest.raises(BadInput, match=words):
            lab.uplink(a, **wrong)
    with pytest.raises(BadInput, match="a host or router is wanted"):
        lab.uplink(lab.bridge("sw"), outside=gateway)
    with pytest.raises(BadInput, match="is not a node of the lab"):
        lab.uplink(gateway)
    lab.uplink(a, outside=gateway, via="masquerade")
    with pytest.raises(BadInput, match="has an uplink already"):
        lab.uplink(a, outside=gateway)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("pytest_infra.core.requirement._EXTRA_PATH", "/nowhere")
    with pytest.raises(Unavailable, match="pasta is not installed"):
        lab.uplink(lab.host("b"), outside=gateway, via="pasta")
