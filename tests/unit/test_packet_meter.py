"""The meters, against traces worked by hand from the RFCs' own rules, and against what must hold for any trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.core.errors import BadInput
from pytest_infra.packet.meter import Arrival, Colour, OvsMeter, SrTcm, TrTcm2698, TrTcm4115

MS = 10**6
LETTERS = {"g": Colour.GREEN, "y": Colour.YELLOW, "r": Colour.RED}


def trace(*packets):
    """(milliseconds, bytes[, colour letter]) …"""
    return [
        Arrival(packet[0] * MS, packet[1], LETTERS[packet[2]] if packet[2:] else Colour.GREEN) for packet in packets
    ]


def letters(colours):
    return "".join(colour.value[0] for colour in colours)


# 8 kbit/s is one byte a millisecond, so a trace in milliseconds is worked out in the head.
# srTCM (RFC 2697): the tokens come to C first, and to E only while C is full.
SR = SrTcm("8 kbit/s", cbs=100, ebs=50, packet_bytes=50)
SR_AWARE = SrTcm("8 kbit/s", cbs=100, ebs=50, colour_aware=True, packet_bytes=50)
# trTCM (RFC 2698): green takes from P and C, yellow from P only.
TR = TrTcm2698("8 kbit/s", 100, "16 kbit/s", 150, packet_bytes=50)
TR_AWARE = TrTcm2698("8 kbit/s", 100, "16 kbit/s", 150, colour_aware=True, packet_bytes=50)
# trTCM (RFC 4115): green takes from C only, yellow from E only; strictly more tokens than bytes are wanted.
FR = TrTcm4115("8 kbit/s", 100, "16 kbit/s", 100, packet_bytes=50)
FR_AWARE = TrTcm4115("8 kbit/s", 100, "16 kbit/s", 100, colour_aware=True, packet_bytes=50)


@pytest.mark.parametrize(
    ("profile", "packets", "wanted"),
    [
        # C 100: 60 left 40; 40 left 0; then E 50: 50 left 0; then nothing is left.
        (SR, [(0, 60), (0, 40), (0, 50), (0, 1)], "ggyr"),
        # As many tokens as bytes are enough (Tc(t) - B >= 0): 100 bytes pass a bucket of 100.
        (SR, [(0, 100)], "g"),
        # C and E empty at 0; 60 ms bring 60 to C; 70 is too much, 60 fits; E is still empty.
        (SR, [(0, 100), (0, 50), (60, 70), (60, 60), (60, 1)], "gyrgr"),
        # 100 ms fill C, 30 more bring 30 to E: 100 green, 30 yellow, then nothing.
        (SR, [(0, 100), (0, 50), (130, 100), (130, 30), (130, 1)], "gygyr"),
        # A burst never grows beyond CBS and EBS, however long the pause.
        (SR, [(10_000, 100), (10_000, 50), (10_000, 1)], "gyr"),
        # Aware: yellow may use E only; red stays red and takes nothing.
        (SR_AWARE, [(0, 50, "y"), (0, 1, "y"), (0, 10, "r"), (0, 100, "g"), (0, 1, "g")], "yrrgr"),
        # Aware, green that finds C too small takes from E.
        (SR_AWARE, [(0, 80, "g"), (0, 40, "g"), (0, 20, "g"), (0, 20, "y")], "gygr"),
        # Blind: the colour that the packet has is not looked at.
        (SR, [(0, 50, "r"), (0, 50, "y")], "gg"),
        # P 150, C 100: 60 green (90, 40); 50 yellow (40, 40); 40 green (0, 0); 1 red.
        (TR, [(0, 60), (0, 50), (0, 40), (0, 1)], "gygr"),
        # 100 green (P 50, C 0); 50 yellow (P 0); 20 ms: P 40, C 20; 20 green (20, 0); 20 yellow (0, 0); 1 red.
        (TR, [(0, 100), (0, 50), (20, 20), (20, 20), (20, 1)], "gygyr"),
        # A packet larger than P holds is red although C holds it: P is asked first.
        (TR, [(0, 50), (0, 50), (0, 50), (25, 51), (25, 50), (25, 1)], "ggyryr"),
        # Aware: yellow takes from P only, so green still finds C full; red takes nothing.
        (TR_AWARE, [(0, 50, "y"), (0, 150, "r"), (0, 100, "g"), (0, 1, "g")], "yrgr"),
        (TR_AWARE, [(0, 150, "y"), (0, 1, "g")], "yr"),
        # 100 tokens are not enough for 100 bytes (Tc(t) - B > 0), 99 are green and leave 1.
        (FR, [(0, 100), (0, 99), (0, 1), (0, 98), (0, 1), (0, 1)], "rgyyrr"),
        # C and E fill apart from each other: 10 ms bring 10 to C and 20 to E.
        (FR, [(0, 99), (0, 99), (10, 10), (10, 10), (10, 10), (10, 1)], "gygyyr"),
        # Aware: yellow takes from E only and leaves C to green; red stays red.
        (FR_AWARE, [(0, 99, "y"), (0, 1, "y"), (0, 50, "r"), (0, 99, "g"), (0, 1, "g")], "yrrgr"),
        # Open vSwitch, 10 packets a second, burst 5: five pass, then one in 100 ms, and a burst again after 0.5 s.
        (OvsMeter(10, 5), [(at, 60) for at in [0] * 6 + [99, 100, 100, 200] + [700] * 6], "gggggrrgrggggggr"),
        # 8 kbit/s and a burst of 1 kbit: 125 bytes; then one byte in a millisecond.
        (OvsMeter(8, 1, "kbps"), [(0, 100), (0, 26), (0, 25), (10, 11), (10, 10)], "grgrg"),
        # Without a burst it holds what comes in a second.
        (OvsMeter(3, 0), [(0, 60)] * 4, "gggr"),
    ],
)  # fmt: skip
def test_a_trace_worked_by_hand(profile, packets, wanted):
    assert letters(profile.colours(trace(*packets))) == wanted


def test_tokens_come_at_the_ticks_of_one_clock():
    # One byte a second: the second token comes at 2 s, although the bucket was full until 1.5 s.
    profile = SrTcm(8, cbs=1, ebs=0, packet_bytes=1)
    assert letters(profile.colours(trace((1500, 1), (1999, 1), (2000, 1)))) == "grg"


def test_no_rounding_error_builds_up():
    # 7 bit/s is one byte in 8/7 s: 7 of them in 8 s, 7 million in 8 million seconds.
    profile = SrTcm(7, cbs=7_000_000, ebs=0, packet_bytes=1)
    empty = Arrival(0, 7_000_000)
    steps = [Arrival(number * 10**9, 7_000_000) for number in range(1, 999)]
    last = Arrival(8 * 10**6 * 10**9 - 1, 7_000_000), Arrival(8 * 10**6 * 10**9, 7_000_000)
    assert letters(profile.colours([empty, *steps, *last])) == "g" + "r" * 999 + "g"


PACKETS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 60), st.sampled_from("gyr")), min_size=1, max_size=40
).map(lambda steps: [(sum(step[0] for step in steps[: place + 1]), *step[1:]) for place, step in enumerate(steps)])


@pytest.mark.parametrize("profile", [SR, SR_AWARE, TR, TR_AWARE, FR, FR_AWARE])
@given(packets=PACKETS)
def test_what_passes_green_is_never_more_than_burst_and_rate(profile, packets):
    arrivals = trace(*packets)
    colours = profile.colours(arrivals)
    green = [(packet.at_ns, packet.size_bytes) for packet, c in zip(arrivals, colours, strict=True) if c == "green"]
    for first in range(len(green)):
        total = 0
        for at_ns, size in green[first:]:
            total += size
            assert total <= 100 + (at_ns - green[first][0]) // MS + 1


@pytest.mark.parametrize(("blind", "aware"), [(SR, SR_AWARE), (TR, TR_AWARE), (FR, FR_AWARE)])
@given(packets=PACKETS)
def test_awareness_matters_only_where_packets_are_coloured(blind, aware, packets):
    green = trace(*[packet[:2] for packet in packets])
    assert blind.colours(trace(*packets)) == blind.colours(green) == aware.colours(green)
    severity = {"green": 0, "yellow": 1, "red": 2}
    for packet, colour in zip(trace(*packets), aware.colours(trace(*packets)), strict=True):
        assert severity[colour.value] >= severity[packet.colour.value]  # no packet gets a better colour


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: SrTcm("1 Mbit/s", cbs=1000, ebs=0), "cbs is 1000 bytes, less than a packet of 1500"),
        (lambda: SrTcm("1 Mbit/s", cbs=0, ebs=0), "cbs and ebs are 0"),
        (lambda: SrTcm("1 Mbit", cbs="2 kB", ebs=64, packet_bytes=65), "ebs is 64 bytes"),
        (lambda: SrTcm("fast", cbs=2000, ebs=0), "rate 'fast'"),
        (lambda: SrTcm(0.5, cbs=2000, ebs=0), "whole number of bits"),
        (lambda: TrTcm2698("2 Mbit/s", 2000, "1 Mbit/s", 2000), "pir 1 Mbit/s is below cir 2 Mbit/s"),
        (lambda: TrTcm2698("1 Mbit/s", 2000, "1 Mbit/s", 0), "pbs is 0"),
        (lambda: TrTcm4115("1 Mbit/s", 2000, "1 Mbit/s", 100), "ebs is 100 bytes"),
        (lambda: OvsMeter(0, 5), "rate is 0"),
        (lambda: OvsMeter(1, -1), "burst is -1"),
        (lambda: OvsMeter(1, 5, "pps"), "allowed are 'pktps' and 'kbps'"),
        (lambda: Arrival(-1, 5), "at 0 ns or later"),
        (lambda: SR.colours([Arrival(5, 1), Arrival(4, 1)]), "put them in order of time"),
    ],
)
def test_bad_input_gets_one_clear_error(made, words):
    with pytest.raises(BadInput) as error:
        made()
    assert words in str(error.value)
