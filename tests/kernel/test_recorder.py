"""The latest frames of every namespace, whatever passes, and nothing left of it."""

from __future__ import annotations

import socket
import struct
from itertools import pairwise

import pytest

from pytest_infra import Infra, assert_reachable
from pytest_infra.core.wait import until
from pytest_infra.net import recorder
from pytest_infra.net.tape import Tape

pytestmark = pytest.mark.infra


@pytest.fixture(scope="module")
def recording():
    with Infra(record=True) as session:
        yield session


def frames(lab):
    owners = (*lab.nodes.values(), *lab.switches.values())
    names = {(owner.namespace, port.name): str(port) for owner in owners for port in owner.ports}
    spaces = {owner.namespace for owner in owners}
    return lab._services.recorder.frames(spaces, names)


def pair(lab, switch="bridge"):
    a, b, sw = lab.host("a"), lab.host("b"), getattr(lab, switch)("sw1")
    lab.link(a, sw, ip="10.0.0.1/24")
    lab.link(b, sw, ip="10.0.0.2/24")
    lab.up()
    return a, b


def send(node, first, count, size=1000):
    def work():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for number in range(first, first + count):
                sock.sendto(struct.pack("!I", number).ljust(size, b"x"), ("10.0.0.2", 9))

    node.call(work)


def numbers(lab, interface):
    """The numbers of the datagrams that were recorded at an interface."""
    return [
        struct.unpack("!I", item.data[42:46])[0]
        for item in frames(lab)
        if item.interface == interface and item.data[12:14] == b"\x08\x00" and item.data[23] == 17
    ]


@pytest.mark.parametrize("switch", ["bridge", pytest.param("ovs", marks=pytest.mark.infra_requires("ovs"))])
def test_a_packet_is_seen_at_every_interface_on_its_way(recording, switch):
    with recording.lab() as lab:
        a, b = pair(lab, switch)
        assert_reachable(a, b)
        requests = [item for item in frames(lab) if item.data[12:14] == b"\x08\x00" and item.data[34:35] == b"\x08"]
        assert [item.interface for item in requests] == ["a:eth0", "sw1:sw1-p1", "sw1:sw1-p2", "b:eth0"]
        assert [item.outgoing for item in requests] == [True, False, True, False]


def tape(recording, node):
    return recording._services.recorder._tapes[node.namespace]


def test_the_latest_frames_are_kept_however_many_there_are(recording):
    with recording.lab() as lab:
        a, b = pair(lab)
        for first in range(0, 8000, 100):
            send(a, first, 100)
            until(lambda: not tape(recording, b).full, within_s=10, what="another reel")
        found = numbers(lab, "b:eth0")
        assert found == list(range(found[0], 8000))
        assert 100 < len(found) < 8000
        assert recording._services.recorder.lost([b.namespace]) == 0


def test_frames_that_come_too_quickly_are_missing_and_counted(recording, monkeypatch):
    monkeypatch.setattr(Tape, "wind", lambda self: [])
    with recording.lab() as lab:
        a, b = pair(lab)
        send(a, 0, 6000)
        assert recording._services.recorder.lost([b.namespace]) > 0
        content = {artifact.name: artifact.content for artifact in lab.diagnose()}["captures/all.pcapng"]
        assert b" frames are missing in between" in content


def test_frames_can_be_looked_at_again(recording):
    with recording.lab() as lab:
        a, _ = pair(lab)
        send(a, 7, 1)
        assert numbers(lab, "b:eth0") == numbers(lab, "b:eth0") == [7]


def test_a_tag_that_the_kernel_took_out_is_in_its_place(recording):
    tagged = bytes.fromhex("02000000000102000000000281000005") + b"\x08\x00" + bytes(50)
    with recording.lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b)

        def work():
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
                sock.sendto(tagged, ("eth0", 0))

        a.call(work)
        assert [item.data for item in frames(lab) if item.interface == "b:eth0" and item.data[12] == 0x81] == [tagged]


def test_a_few_frames_are_there_at_once(recording):
    with recording.lab() as lab:
        a, _ = pair(lab)
        for number in range(50):
            send(a, number, 1)
            assert numbers(lab, "b:eth0")[-1] == number


def test_long_frames_are_cut_off_and_say_so(recording):
    with recording.lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24", mtu=9000)
        send(a, 7, 1, size=5000)
        (found,) = [item for item in frames(lab) if item.interface == "b:eth0" and item.length > 5000]
        assert len(found.data) == 2048
        assert found.length == 5042


def test_the_loopback_and_interfaces_of_others_have_names(recording):
    with recording.lab() as lab:
        a = lab.host("a")
        lab.link(a, lab.host("b"), ip="10.0.0.1/24")

        def work():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", ("127.0.0.1", 9))

        a.call(work)
        assert "a:lo" in {item.interface for item in frames(lab)}


def test_evidence_has_them_with_a_comment_at_the_failure(recording):
    with recording.lab() as lab:
        a, b = pair(lab)
        assert_reachable(a, b)
        lab.journal.note = "test_x failed here"
        content = {artifact.name: artifact.content for artifact in lab.diagnose()}["captures/all.pcapng"]
        assert content.count(b"test_x failed here") == 2
        for name in (b"a:eth0", b"b:eth0", b"sw1:sw1-p1", b"sw1:sw1-p2"):
            assert name in content


def test_without_being_asked_nothing_is_recorded(lab):
    pair(lab)
    assert lab._services.recorder is None
    assert "captures/all.pcapng" not in {artifact.name for artifact in lab.diagnose()}


def test_many_labs_one_after_the_other_leave_nothing(recording, nothing_left):
    for _ in range(20):
        with recording.lab() as lab:
            pair(lab)
    assert recording._services.recorder._tapes == {}


def test_a_session_with_its_recorder_leaves_nothing(nothing_left):
    with Infra(record=True) as session, session.lab() as lab:
        a, b = pair(lab)
        assert_reachable(a, b)


def test_tapes_get_smaller_where_there_are_many(recording, monkeypatch):
    monkeypatch.setattr(recorder, "_BYTES_OF_ALL", 8 << 20)
    with recording.lab() as lab:
        hosts = [lab.host() for _ in range(40)]
        for a, b in pairwise(hosts):
            lab.link(a, b)
        lab.up()
        sizes = [item._buffer_bytes for item in recording._services.recorder._tapes.values()]
        assert (sizes[:3], sizes[-1]) == ([4 << 20, 4 << 20, (8 << 20) // 3], 256 << 10)
