"""The edge of a DiffServ network, stage by stage: classify and mark, police, schedule."""

import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_infra import (
    CheckFailed,
    assert_classified,
    assert_link_shares,
    assert_metered,
    assert_policed,
    assert_shaped,
    offer,
)
from pytest_infra.checks.schedule import Departure
from pytest_infra.packet import (
    Arrival,
    Classifier,
    LinkClass,
    OvsFlows,
    OvsMeter,
    OvsMeterDevice,
    Packet,
    Police,
    Probed,
    Rule,
    Scheduler,
    SrTcm,
)
from pytest_infra.packet.wire import decode

MS = 10**6


# -- classify and mark ------------------------------------------------------------------------------------------

VOICE = Packet(in_port="edge-p1", proto="udp", dport=17000)


@pytest.fixture
def edge(lab):
    switch = lab.ovs("edge")
    for name in ("customer", "core"):
        lab.link(lab.host(name), switch, ip=[])
    lab.up()
    return OvsFlows(switch)


def test_voice_is_marked_and_queued_by_the_rule_for_voice(edge):
    rules = [
        Rule("voice", in_port="edge-p1", proto="udp", dport="16384-32767", to="edge-p2", set={"dscp": "EF"}, queue=1),
        Rule("rest", in_port="edge-p1", to="edge-p2", queue=0),
    ]
    edge.install(Classifier(rules, ports=edge.ports))
    assert_classified(edge, VOICE, into="edge-p2", via_rule="voice", queue=1, changed={"dscp": 46})


def test_a_rule_that_takes_too_much_is_named(edge):
    rules = [
        Rule("udp", in_port="edge-p1", proto="udp", to="edge-p2"),
        Rule("voice", in_port="edge-p1", proto="udp", dport="16384-32767", to="edge-p2", set={"dscp": "EF"}),
    ]
    edge.install(Classifier(rules, ports=edge.ports))
    with pytest.raises(CheckFailed, match="rule 'voice' matches it too, but 'udp' comes before it"):
        assert_classified(edge, VOICE, into="edge-p2", via_rule="voice")


# -- police -----------------------------------------------------------------------------------------------------


def test_the_policer_is_exact_in_virtual_time():
    burst_then_pace = [Arrival(0, 60)] * 8 + [Arrival(at * MS, 60) for at in range(50, 1000, 50)]
    with OvsMeterDevice() as meter:
        assert_metered(meter, OvsMeter(rate=10, burst=5), burst_then_pace)


def test_the_policer_keeps_to_its_rate_in_real_time(edge):
    police = Police("2 Mbit/s", burst=10_000)
    edge.install(Classifier([Rule("voice", proto="udp", to="edge-p2", police=police)], ports=edge.ports))
    with Probed(edge) as device:
        seen = offer(device, VOICE, rate="12 Mbit/s", header_bytes=0)  # Open vSwitch's meters count whole frames
    assert_policed(seen, rate="2 Mbit/s", burst=10_000, tick="1 ms")


def test_a_three_colour_profile_can_be_worked_out_before_there_is_a_device():
    profile = SrTcm("1 Mbit/s", cbs=3000, ebs=3000)
    colours = profile.colours([Arrival(0, 1500)] * 5)
    assert [colour.value for colour in colours] == ["green", "green", "yellow", "yellow", "red"]


# -- schedule ---------------------------------------------------------------------------------------------------

GOLD, SILVER = 5001, 5002
FRAMES, PAYLOAD = 900, 1000


def flood(to, gold, silver):
    """More than the link takes, from both classes at once; SO_PRIORITY names the class (tc-htb(8))."""

    def send(sock, port):
        with sock:
            for number in range(FRAMES):
                sock.sendto(struct.pack("!I", number).ljust(PAYLOAD, b"\0"), (to, port))

    with ThreadPoolExecutor() as threads:  # a socket whose buffer is full waits, and the other one must not
        for priority, port in ((gold, GOLD), (silver, SILVER)):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
            threads.submit(send, sock, port)


def departures(lab, gold, silver):
    """What leaves a link of 20 Mbit/s that is shared by two classes, while both have more to send."""
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, ip="198.18.0.1/30", peer_ip="198.18.0.2/30")
    root = LinkClass("link", 1, (LinkClass("gold", gold), LinkClass("silver", silver)))
    scheduler = Scheduler(a, "eth0", root, rate="20 Mbit/s")
    capture = lab.capture(link.b, "udp", memory="32 MiB")
    a.call(flood, "198.18.0.2", scheduler.priority("gold"), scheduler.priority("silver"))
    seen = capture.wait(FRAMES, within="10 s")[100:]
    names = {GOLD: "gold", SILVER: "silver"}
    return [Departure(frame.time_ns, frame.length, names[decode(frame.data).dport]) for frame in seen]


def test_the_scheduler_gives_three_to_one_and_no_more_than_the_rate(lab):
    left = departures(lab, gold=3, silver=1)
    assert_link_shares(left, {"gold": 3, "silver": 1}, tolerance=0.05)
    assert_shaped(left, rate="20 Mbit/s", burst=40_000, tolerance=0.1)


def test_equal_shares_are_not_three_to_one(lab):
    with pytest.raises(CheckFailed, match=r"gets .* instead of"):
        assert_link_shares(departures(lab, gold=1, silver=1), {"gold": 3, "silver": 1})
