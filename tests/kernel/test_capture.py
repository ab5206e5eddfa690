"""Captures: everything from the moment they are made, nothing else, and no sleep."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from pytest_infra import BadInput, Unavailable, WaitTimeout, assert_reachable
from pytest_infra.core.requirement import Absent
from pytest_infra.net import frame

pytestmark = pytest.mark.infra


@pytest.fixture
def pair(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    return a, b


def send(node, count, size=10, port=9):
    def work():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for number in range(count):
                sock.sendto(struct.pack("!I", number).ljust(size, b"x"), ("10.0.0.2", port))

    node.call(work)


def test_the_first_packet_after_it_was_made_is_there(lab, pair):
    a, b = pair
    for _ in range(20):
        with lab.capture(b.ports[0], "udp") as capture:
            send(a, 1)
            (found,) = capture.wait()
            assert found.interface == "b:eth0"
            assert not found.outgoing
            assert found.length == len(found.data) == 14 + 20 + 8 + 10


def test_both_directions_in_order_with_times(lab, pair):
    a, b = pair
    capture = lab.capture(a.ports[0], "icmp")
    assert_reachable(a, b, count=3)
    frames = capture.wait(6)
    assert [item.outgoing for item in frames] == [True, False] * 3
    assert [item.time_ns for item in frames] == sorted(item.time_ns for item in frames)
    assert capture.count == 6
    assert capture.lost == 0


def test_what_the_filter_refuses_is_not_there(lab, pair):
    a, b = pair
    capture = lab.capture(b.ports[0], "udp port 9")
    other = lab.capture(b.ports[0], "udp port 10")
    assert_reachable(a, b)
    send(a, 2)
    assert [item.data[42:46] for item in capture.wait(2)] == [struct.pack("!I", number) for number in range(2)]
    with pytest.raises(WaitTimeout, match=r"1 frames that match 'udp port 10' at b:eth0: 0 within 0.05 s"):
        other.wait(within=0.05)
    assert other.count == 0


def test_waiting_ends_with_the_packet_and_not_with_the_time(lab, pair):
    a, b = pair
    capture = lab.capture(b.ports[0], "udp")
    sender = threading.Timer(0.05, send, (a, 3))
    sender.start()
    found = capture.wait(3, within="20 s", where=lambda item: not item.outgoing)
    sender.join()
    assert len(found) == 3


def test_stopping_keeps_what_was_seen_and_takes_no_more(lab, pair):
    a, b = pair
    capture = lab.capture(b.ports[0], "udp")
    send(a, 3)
    capture.stop()
    send(a, 3)
    assert capture.count == 3
    assert "3 frames" in repr(capture)
    with pytest.raises(WaitTimeout, match="3 within 5 s; the capture has ended"):
        capture.wait(4, within="5 s")
    capture.clear()
    assert capture.frames == []


def test_it_ends_with_the_lab_and_leaves_nothing(infra, nothing_left):
    with infra.lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
        capture = lab.capture(b.ports[0], "udp")
        send(a, 5)
    assert capture.count == 5
    assert not capture.started


def test_a_full_ring_says_how_much_it_has_lost(lab, pair):
    a, b = pair
    capture = lab.capture(b.ports[0], "udp", memory="64 KiB")
    send(a, 100)
    assert capture.lost > 0
    assert capture.count + capture.lost == 100
    assert [struct.unpack("!I", item.data[42:46])[0] for item in capture.frames] == list(range(capture.count))
    send(a, 1)  # there is room again
    assert capture.frames[-1].data[42:46] == struct.pack("!I", 0)


def test_many_rounds_of_the_ring(lab, pair):
    a, b = pair
    capture = lab.capture(b.ports[0], "udp", memory="64 KiB")
    for _ in range(50):
        send(a, 7)
        assert len(capture.wait(7)) == 7
        capture.clear()
    assert capture.lost == 0


@pytest.mark.parametrize("mtu", [576, 1500, 9000])
def test_whole_frames_of_any_mtu(lab, mtu):
    a, b = lab.host(), lab.host()
    lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24", mtu=mtu)
    capture = lab.capture(b.ports[0], "udp")
    send(a, 1, size=mtu - 28)
    (found,) = capture.wait()
    assert found.length == len(found.data) == mtu + 14


def test_a_vlan_tag_is_in_its_place(lab, pair):
    a, b = pair
    capture = lab.capture(b.ports[0], "vlan 5 and arp")
    other = lab.capture(b.ports[0], "vlan 6")
    tagged = bytes.fromhex("ffffffffffff0200000000aa8100000508060001") + bytes(40)

    def work():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind(("eth0", 0))
            sock.send(tagged)

    a.call(work)
    (found,) = capture.wait()
    assert found.data == tagged
    assert other.count == 0


def test_packets_are_scapy_objects(lab, pair):
    from scapy.layers.inet import ICMP, IP

    a, b = pair
    capture = lab.capture(b.ports[0], "icmp")
    assert_reachable(a, b)
    capture.wait(2)
    request, reply = capture.packets
    assert request[IP].dst == reply[IP].src == "10.0.0.2"
    assert request[ICMP].type == 8
    assert request.sniffed_on == "b:eth0"


def test_without_scapy_it_is_unavailable(lab, pair, monkeypatch):
    monkeypatch.setattr(frame.SCAPY.__class__, "probe", lambda self: Absent("not there", "pip install it"))
    capture = lab.capture(pair[1].ports[0])
    with pytest.raises(Unavailable, match=r"scapy \(not there; pip install it\)"):
        _ = capture.packets


def test_a_switch_port(lab):
    a, b, sw = lab.host("a"), lab.host("b"), lab.bridge("sw1")
    lab.link(a, sw, ip="10.0.0.1/24")
    lab.link(b, sw, ip="10.0.0.2/24")
    capture = lab.capture(sw.ports[1], "icmp")
    assert_reachable(a, b)
    assert [item.outgoing for item in capture.wait(2)] == [True, False]


def test_a_capture_settles_the_lab_and_writes_a_file(lab, tmp_path):
    from scapy.utils import RawPcapNgReader

    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
    capture = lab.capture(link.b, "udp")
    send(a, 4)
    with RawPcapNgReader(str(capture.write(tmp_path / "c.pcapng"))) as reader:
        assert len(list(reader)) == 4


def test_what_cannot_be_captured(lab, infra, pair):
    a, _ = pair
    with pytest.raises(BadInput, match=r"a capture is taken at a port, such as .*; got <Host a>"):
        lab.capture(a)
    with pytest.raises(BadInput, match="'icpm' is not understood"):
        lab.capture(a.ports[0], "icpm")
    with pytest.raises(BadInput, match="a capture's memory is from 64 KiB to 1 GiB, not '1 KiB'"):
        lab.capture(a.ports[0], memory="1 KiB")
    with infra.lab() as other, pytest.raises(BadInput, match="<Host a> is not a node of the lab"):
        other.capture(a.ports[0])
