"""Packets as bytes, compared with scapy's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from pytest_infra.core.errors import BadInput
from pytest_infra.packet.classifier import Classifier
from pytest_infra.packet.packet import Packet
from pytest_infra.packet.rule import Rule
from pytest_infra.packet.strategies import near, policies
from pytest_infra.packet.wire import SMALLEST_FRAME, checksum, decode, encode

PAYLOAD = b"forty bytes that say nothing at all here"
ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
FOUR = IP(src="198.18.0.1", dst="198.18.0.2", id=0, flags="DF")
SIX = IPv6(src="2001:2::1", dst="2001:2::2", hlim=64)


@pytest.mark.parametrize(
    ("packet", "layers"),
    [
        (Packet(proto="udp", sport=7, dport=9), ETHERNET / FOUR / UDP(sport=7, dport=9)),
        (
            Packet(proto="tcp", sport=7, dport=9, tcp_flags="syn ack", dscp=46, ecn=1, ttl=3),
            ETHERNET
            / IP(src="198.18.0.1", dst="198.18.0.2", id=0, flags="DF", tos=46 << 2 | 1, ttl=3)
            / TCP(sport=7, dport=9, flags="SA", seq=1, ack=1, window=0xFFFF),
        ),
        (Packet(proto="icmp", icmp_type=8), ETHERNET / FOUR / ICMP(id=1, seq=1)),
        (Packet(proto="udp", src="2001:2::1"), ETHERNET / SIX / UDP(sport=0, dport=0)),
        (Packet(proto="icmpv6", icmp_type=128), ETHERNET / SIX / ICMPv6EchoRequest(id=1, seq=1)),
        (
            Packet(vlan=5, pcp=3, proto=253),
            ETHERNET / Dot1Q(vlan=5, prio=3) / IP(src="198.18.0.1", dst="198.18.0.2", id=0, flags="DF", proto=253),
        ),
    ],
    ids=["udp", "tcp", "icmp", "udp6", "icmpv6", "vlan"],
)
def test_a_frame_is_what_scapy_makes(packet, layers):
    assert encode(packet, PAYLOAD).hex() == bytes(layers / Raw(PAYLOAD)).hex()


@given(st.data())
def test_a_frame_can_be_read_back(data):
    policy = data.draw(policies(ports=("p1",)))
    packet = data.draw(near(policy))
    frame = encode(packet, data.draw(st.binary(max_size=80)))
    assert len(frame) >= SMALLEST_FRAME
    again = decode(frame, packet.in_port)
    assert again == Packet.from_values(packet.values | {"tunnel_id": 0}, packet.in_port)


@given(st.data())
def test_scapy_finds_the_checksums_right(data):
    packet = data.draw(near(Classifier([Rule("r", proto=data.draw(st.sampled_from(["udp", "tcp", "icmp"])), to="a")])))
    frame = Ether(encode(packet, data.draw(st.binary(max_size=70))))
    again = frame.copy()
    for layer in (IP, UDP, TCP, ICMP):
        if layer in again:
            again[layer].chksum = None
    assert bytes(Ether(bytes(again))) == bytes(frame)


def test_a_frame_ends_with_its_payload():
    assert encode(Packet(proto="udp"), b"end").endswith(b"\0end")
    assert encode(Packet(payload=b"own")).endswith(b"own")


def test_the_example_of_rfc_1071():
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (encode(Packet(proto="udp"))[:30], "cut short"),
        (encode(Packet(vlan=3)).replace(b"\x88\xb5", b"\x81\x00"), "two VLAN tags"),
        (bytes(ETHERNET / IP(frag=1)), "fragments"),
        (bytes(ETHERNET / IP(options=[b"\x01"] * 4)), "options"),
    ],
)
def test_frames_that_have_no_name(frame, words):
    with pytest.raises(BadInput, match=words):
        decode(frame)


def test_a_packet_can_be_too_long():
    with pytest.raises(BadInput, match="an IP packet has at most 65535"):
        encode(Packet(proto="udp"), bytes(65508))
