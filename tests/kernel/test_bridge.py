"""The Linux bridge: it forwards, learns, stays out of the way, and shows itself."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from pytest_infra.core.errors import BadInput


def test_a_bridge_forwards_between_many_hosts(lab, echo):
    sw = lab.bridge()
    hosts = [lab.host() for _ in range(10)]
    for host in hosts:
        lab.link(host, sw)
    lab.up()
    for host in hosts:
        for other in hosts:
            assert echo(host, other.ports[0].addresses[0].ip) is not None
            assert echo(host, other.ports[0].addresses[1].ip) is not None


def test_the_first_packets_pass_without_spanning_tree(lab, ip):
    sw = lab.bridge("sw1")
    lab.link(lab.host("a"), sw)
    lab.up()
    (bridge,) = ip(Inside(sw), "link", "show", "sw1")
    assert bridge["linkinfo"]["info_data"]["stp_state"] == 0
    (port,) = ip(Inside(sw), "link", "show", "sw1-p1")
    assert port["linkinfo"]["info_slave_data"]["state"] == "forwarding"
    assert port["master"] == "sw1"


class Inside:
    """Runs iproute2 in a switch's namespace."""

    def __init__(self, switch) -> None:
        self.switch = switch

    def run(self, argv):
        import subprocess

        return self.switch.namespace.call(subprocess.run, argv, capture_output=True, text=True, check=True)


def test_a_switch_speaks_no_ip(lab, ip):
    sw = lab.bridge("sw1")
    a = lab.host("a")
    lab.link(a, sw)
    lab.up()
    for interface in ip(Inside(sw), "address"):
        if interface["ifname"] != "lo":
            assert interface["addr_info"] == [], interface["ifname"]


def test_ports_and_names(lab):
    sw = lab.bridge("sw1")
    for name in ("a", "b"):
        lab.link(lab.host(name), sw)
    lab.link(lab.host("c"), sw, peer_name="uplink")
    assert [port.name for port in sw.ports] == ["sw1-p1", "sw1-p2", "uplink"]
    assert set(sw.interfaces) == {"lo", "sw1", "sw1-p1", "sw1-p2", "uplink"}
    assert {item.master for name, item in sw.interfaces.items() if name not in ("lo", "sw1")} == {"sw1"}
    assert sw.show().splitlines() == [
        "bridge sw1",
        "    port sw1-p1: up, carrier, mtu 1500, to a:eth0",
        "    port sw1-p2: up, carrier, mtu 1500, to b:eth0",
        "    port uplink: up, carrier, mtu 1500, to c:eth0",
    ]


def test_show_says_what_is_down_or_gone(lab):
    sw = lab.bridge("sw1")
    links = [lab.link(lab.host(), sw) for _ in range(2)]
    links[0].down()
    links[1].a.node.run(["ip", "link", "delete", "eth0"])
    assert sw.show().splitlines()[1:] == [
        "    port sw1-p1: down, no carrier, mtu 1500, to h1:eth0",
        "    port sw1-p2: gone",
    ]
    artifact, *_ = sw.diagnose()
    assert (artifact.name, artifact.content) == ("sw1-show.txt", sw.show())


def test_a_bridge_without_ports(lab):
    sw = lab.bridge("sw1")
    assert set(sw.interfaces) == {"lo", "sw1"}
    assert sw.show() == "bridge sw1"


def test_a_long_name(lab, echo):
    sw = lab.bridge("fifteen-letters")
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, sw)
    lab.link(b, sw)
    assert echo(a, b.ports[0].addresses[0].ip) is not None
    assert all(len(port.name) <= 15 for port in sw.ports)
    assert len({port.name for port in sw.ports}) == 2


def test_frames_go_only_where_their_receiver_is(lab, echo):
    """After it has learnt where b is, the bridge sends nothing for b to c."""
    sw = lab.bridge()
    a, b, c = lab.host("a"), lab.host("b"), lab.host("c")
    for host in (a, b, c):
        lab.link(host, sw)
    assert echo(a, b.ports[0].addresses[0].ip) is not None
    heard = []
    ready, stop = threading.Event(), threading.Event()

    def listen():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3)) as tap:
            tap.bind(("eth0", 3))
            tap.settimeout(0.05)
            ready.set()
            while not stop.is_set():
                try:
                    frame = tap.recv(2048)
                except TimeoutError:
                    continue
                if frame[:6] == bytes.fromhex(b.ports[0].mac.replace(":", "")):
                    heard.append(frame)
                elif frame[12:14] == struct.pack("!H", 0x88B5):
                    stop.set()

    listener = threading.Thread(target=lambda: c.call(listen))
    listener.start()
    ready.wait(5)
    for _ in range(5):
        assert echo(a, b.ports[0].addresses[0].ip) is not None

    def sentinel():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as tap:
            tap.bind(("eth0", 0))
            tap.send(
                b"\xff" * 6 + bytes.fromhex(a.ports[0].mac.replace(":", "")) + struct.pack("!H", 0x88B5) + b"\0" * 46
            )

    a.call(sentinel)
    listener.join(10)
    assert not listener.is_alive(), "a frame to everybody, sent last, has arrived"
    assert heard == []


@pytest.mark.parametrize("options", [{"peer_ip": "10.0.0.1/24"}, {"peer_ip": ["10.0.0.1/24"]}])
def test_a_switch_takes_no_address(lab, options):
    with pytest.raises(BadInput, match=r"sw1 is a switch, its ports take no IP address; got .*10.0.0.1/24"):
        lab.link(lab.host("a"), lab.bridge("sw1"), **options)


@pytest.mark.parametrize("name", ["lo", "sw1"])
def test_a_port_cannot_be_called_as_a_device_that_is_there(lab, name):
    with pytest.raises(BadInput, match=rf"interface '{name}' of sw1 is taken: it is there from the start"):
        lab.link(lab.host("a"), lab.bridge("sw1"), peer_name=name)


@pytest.mark.parametrize("name", ["all", "default", "lo"])
def test_names_that_no_device_can_have(lab, name):
    with pytest.raises(BadInput):
        lab.bridge(name)
    assert lab.host(name).name == name
    lab.up()
