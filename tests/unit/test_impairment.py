"""What a link does to frames, as data: what is taken, how it is made, and what the relay decides."""

from __future__ import annotations

import pytest

from pytest_infra.core.errors import BadInput
from pytest_infra.core.units import fraction
from pytest_infra.net.impair import choose_way
from pytest_infra.net.impairment import Impairment, parse_impairment
from pytest_infra.net.relay import divert_line
from pytest_infra.net.relay_main import Direction
from pytest_infra.net.tc import loss_line, netem_lines, tbf_line


@pytest.mark.parametrize(
    ("value", "expected"), [("5 %", 0.05), ("0.5%", 0.005), (0.25, 0.25), (1, 1.0), ("100 %", 1.0)]
)
def test_a_fraction(value, expected):
    assert fraction(value) == pytest.approx(expected)


@pytest.mark.parametrize("value", ["101 %", 1.5, -0.1, "5 pct", "many", True, float("nan"), None])
def test_what_is_no_fraction(value):
    with pytest.raises(BadInput, match="fraction"):
        fraction(value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rate": "fast"}, r"^rate: rate 'fast' does not begin with a number"),
        ({"rate": "50 M"}, r"^rate: .*unknown unit 'M'"),
        ({"rate": "1 bit/s"}, r"^rate '1 bit/s' cannot be used: allowed are 8 kbit/s to 100 Gbit/s$"),
        ({"rate": 0}, r"^rate 0 cannot be used: allowed are"),
        ({"delay": "-1 ms"}, r"^delay: .*from 0 up"),
        ({"delay": "2 min"}, r"^delay '2 min' cannot be used: at most 60 s is allowed$"),
        ({"jitter": "1 ms"}, r"^jitter '1 ms' cannot be used: it is more than the delay"),
        ({"delay": "1 ms", "jitter": "2 ms"}, r"give a delay of at least 2 ms$"),
        ({"loss": 5}, r"^loss: fraction 5 is more than the whole; 0 to 1 is allowed, or 0 % to 100 %$"),
        ({"loss": "5"}, r"^loss: fraction '5' is more than the whole"),
        ({"duplicate": "x"}, r"^duplicate: fraction 'x' does not begin with a number"),
        ({"corrupt": -1}, r"^corrupt: .*from 0 up"),
        ({"reorder": "5 %"}, r"^reorder needs a delay"),
    ],
)
def test_bad_values(values, words):
    with pytest.raises(BadInput, match=words):
        parse_impairment(values)


def test_what_is_taken():
    wanted = parse_impairment({"rate": "50 Mbit/s", "delay": "20 ms", "jitter": 0, "loss": "5 %", "reorder": None})
    assert wanted == Impairment(rate_bps=50e6, delay_s=0.02, loss=0.05)
    assert str(wanted) == "rate 50 Mbit/s (layer 2), delay 20 ms, loss 5 %"
    assert wanted.describe() == {"rate_bps": 50e6, "delay_s": 0.02, "loss": 0.05}
    assert not parse_impairment({"loss": 0, "delay": None})


@pytest.mark.parametrize(
    ("values", "netem", "way"),
    [
        ({}, True, ""),
        ({"rate": 1e6}, True, "tbf"),
        ({"rate": 1e6}, False, "tbf"),
        ({"loss": 0.1}, True, "netem"),
        ({"loss": 0.1}, False, "bpf"),
        ({"loss": 0.1, "rate": 1e6}, False, "bpf"),
        ({"delay": 0.1}, True, "netem"),
        ({"delay": 0.1, "loss": 0.1}, False, "relay"),
        ({"duplicate": 0.1}, False, "relay"),
        ({"corrupt": 0.1}, False, "relay"),
    ],
)
def test_the_way(values, netem, way):
    assert choose_way(parse_impairment(values), netem) == way


def test_the_lines_for_the_kernel():
    wanted = parse_impairment(
        {"rate": "10 Mbit/s", "delay": "20 ms", "jitter": "5 ms", "loss": "1 %", "reorder": "25 %", "corrupt": 0.001}
    )
    assert netem_lines("eth0", wanted, 1500) == [
        "qdisc replace dev eth0 root handle 1: netem limit 100000 delay 20000.000us 5000.000us loss 1.000000% "
        "corrupt 0.100000% reorder 25.000000%",
        "qdisc replace dev eth0 parent 1:1 handle 2: tbf rate 10000000bit burst 3036 limit 175000",
    ]
    assert tbf_line("eth0", "root", parse_impairment({"rate": "1 Gbit/s"}), 1500) == (
        "qdisc replace dev eth0 root handle 2: tbf rate 1000000000bit burst 250000 limit 12500000"
    )
    half = loss_line("eth0", 0.5)
    assert half.endswith("direct-action bytecode '4,32 0 0 4294963256,53 1 0 2147483648,6 0 0 4,6 0 0 4294967295'")
    assert loss_line("eth0", 1.0).endswith("direct-action bytecode '1,6 0 0 4'")
    assert "mirred egress redirect dev relay7" in divert_line("eth0", "relay7")


def relayed(wanted: dict[str, float], frames: int = 2000) -> tuple[Direction, list[tuple[int, bytes]]]:
    """What the relay holds after so many frames, which all came at time 0."""
    direction = Direction(-1, -1)
    direction.wanted = wanted
    for number in range(frames):
        direction.accept(number.to_bytes(8, "big") * 8, 0)
    return direction, [(at, frame) for at, _, frame in sorted(direction._waiting)]


def test_the_relay_delays():
    _, held = relayed({"delay_s": 0.02}, 10)
    assert [at for at, _ in held] == [20_000_000] * 10
    assert [int.from_bytes(frame[:8], "big") for _, frame in held] == list(range(10))


def test_the_relay_spreads_delays_evenly():
    _, held = relayed({"delay_s": 0.02, "jitter_s": 0.01})
    times = [at / 1e6 for at, _ in held]
    assert 10 <= times[0] < 10.2
    assert 29.8 < times[-1] <= 30
    assert 19 < times[1000] < 21


def test_the_relay_lets_some_overtake():
    _, held = relayed({"delay_s": 0.02, "reorder": 0.25})
    assert 400 < sum(at == 0 for at, _ in held) < 600
    assert {at for at, _ in held} == {0, 20_000_000}


def test_the_relay_loses_and_doubles():
    direction, held = relayed({"loss": 0.1})
    assert direction.counts["lost"] == 2000 - len(held)
    assert 130 < direction.counts["lost"] < 270
    direction, held = relayed({"duplicate": 0.5})
    assert direction.counts["doubled"] == len(held) - 2000
    assert 880 < direction.counts["doubled"] < 1120


def test_the_relay_changes_one_bit():
    direction, held = relayed({"corrupt": 0.5})
    wrong = 0
    for number, (_, frame) in enumerate(held):
        bits = int.from_bytes(frame, "big") ^ int.from_bytes(number.to_bytes(8, "big") * 8, "big")
        assert bits.bit_count() <= 1
        wrong += bits.bit_count()
    assert wrong == direction.counts["corrupted"]
    assert 880 < wrong < 1120


def test_the_relay_holds_only_so_much():
    direction = Direction(-1, -1)
    direction.wanted = {"delay_s": 60.0}
    frame = bytes(65536)
    for _ in range(5000):
        direction.accept(frame, 0)
    assert direction.counts["dropped"] == 5000 - 4096
