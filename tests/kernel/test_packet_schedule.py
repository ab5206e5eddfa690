"""Real schedulers: shares in a tree of five levels, who gets what a class leaves, strict priority, the rate."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_infra.checks.schedule import Departure, assert_link_shares, assert_priority, assert_shaped
from pytest_infra.core.emulation import EMULATED
from pytest_infra.core.errors import BadInput, CheckFailed, Unavailable
from pytest_infra.lab import Lab
from pytest_infra.packet.hierarchy import LinkClass, Scheduler
from pytest_infra.packet.wire import decode
from pytest_infra.session import Infra

pytestmark = pytest.mark.stock_kernel

RATE = "4 Mbit/s" if EMULATED in os.environ else "20 Mbit/s"  # less than the sender can: all classes have more to send
PAYLOAD = 1000
FIRST_PORT = 5000
TREE = LinkClass(
    "link",
    1,
    (
        LinkClass("gold", 3, (LinkClass("g1", 1), LinkClass("g2", 1))),
        LinkClass("rest", 1, (LinkClass("r1", 1, (LinkClass("r2", 1, (LinkClass("deep", 1), LinkClass("low", 1))),)),)),
    ),
)


@pytest.fixture
def lab(session: Infra) -> Iterator[Lab]:
    with session.lab() as started:
        yield started


def flood(to: str, priorities: Sequence[int], frames: int) -> None:
    """As many datagrams of each class to a port of its own, each by a thread: a socket whose buffer is full waits."""
    sockets = []
    try:
        for priority in priorities:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
        with ThreadPoolExecutor(len(sockets)) as threads:
            for place, sock in enumerate(sockets):
                threads.submit(send, sock, (to, FIRST_PORT + place), frames)
    finally:
        for sock in sockets:
            sock.close()


def send(sock: socket.socket, to: tuple[str, int], frames: int) -> None:
    for _ in range(frames):
        sock.sendto(bytes(PAYLOAD), to)


def departures(lab: Lab, root: LinkClass, leaves: Sequence[str], frames: int, **options: object) -> list[Departure]:
    """What leaves while all the classes have more to send: the first `frames`."""
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, ip="198.18.0.1/30", peer_ip="198.18.0.2/30")
    lab.up()
    scheduler = Scheduler(a, link.a.name, root, rate=RATE, **options)  # type: ignore[arg-type]
    capture = lab.capture(link.b, "udp", memory="32 MiB")
    a.call(flood, "198.18.0.2", [scheduler.priority(leaf) for leaf in leaves], frames)
    seen = capture.wait(frames, within="30 s")
    names = {FIRST_PORT + place: leaf for place, leaf in enumerate(leaves)}
    found = []
    for frame in seen:
        port = decode(frame.data).dport
        assert port is not None
        found.append(Departure(frame.time_ns, frame.length, names[port]))
    return found


def test_shares_in_a_tree_of_five_levels(lab: Lab) -> None:
    assert TREE.depth == 5
    assert TREE.shares() == {"g1": 0.375, "g2": 0.375, "deep": 0.125, "low": 0.125}
    left = departures(lab, TREE, list(TREE.shares()), 800)[100:]
    assert_link_shares(left, TREE.shares())


def test_the_rate(lab: Lab) -> None:
    left = departures(lab, TREE, list(TREE.shares()), 800)[100:]
    assert_shaped(left, rate=RATE, burst=40_000, tolerance=0.1)
    with pytest.raises(CheckFailed):
        assert_shaped(left, rate="30 Mbit/s", burst=40_000, tolerance=0.1)


def test_what_a_class_leaves_goes_to_its_siblings(lab: Lab) -> None:
    """Without one of gold's two classes, the other one gets all of gold's share, and nobody else any of it."""
    left = departures(lab, TREE, ["g1", "deep", "low"], 800)[100:]
    assert_link_shares(left, {"g1": 6, "deep": 1, "low": 1})


@pytest.mark.parametrize("kind", ["htb", "drr"])
def test_weights(lab: Lab, kind: str) -> None:
    root = LinkClass("link", 1, (LinkClass("gold", 3), LinkClass("silver", 1)))
    left = departures(lab, root, ["gold", "silver"], 800, kind=kind)[100:]
    assert_link_shares(left, {"gold": 3, "silver": 1})
    with pytest.raises(CheckFailed, match=r"class (gold gets 7|silver gets 2)\d"):
        assert_link_shares(left, {"gold": 1, "silver": 1})


def test_strict_priority(lab: Lab) -> None:
    """What was sent before all classes had something waiting is left out: a burst passes at once."""
    root = LinkClass("link", 1, (LinkClass("voice"), LinkClass("video"), LinkClass("bulk")))
    left = departures(lab, root, ["bulk", "video", "voice"], 900, strict=True)
    begin = next(place for place in range(50, len(left)) if left[place].name == "voice")
    assert_priority(left[begin : begin + 500], ["voice", "video", "bulk"], under_way=60)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LinkClass("x", 0), "a whole number from 1 up"),
        (lambda: LinkClass("x", 1, (LinkClass("x"),)), "several classes are called x"),
        (lambda: LinkClass("top", 1, (TREE,)), "has 6 levels; at most 5"),
        (lambda: Scheduler(None, "eth0", TREE, rate=RATE, kind="wfq"), "allowed are 'htb' and 'drr'"),
        (lambda: Scheduler(None, "eth0", TREE, rate=RATE, kind="drr"), "drr has no priorities and no levels"),
    ],
)
def test_bad_input(make: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make()  # type: ignore[operator]


def test_what_the_kernel_lacks_is_said(lab: Lab) -> None:
    a = lab.host("a")
    lab.link(a, lab.host("b"))
    with pytest.raises(Unavailable, match="tc refuses it"):
        Scheduler(a, "eth7", TREE, rate=RATE)
