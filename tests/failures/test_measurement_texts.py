"""What a failed measurement says: the check passes, its twin fails or cannot tell, and this is the text.

The texts are in __snapshots__; ``pytest --snapshot-update`` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from pytest_infra import (
    CheckFailed,
    Inconclusive,
    assert_jitter,
    assert_latency,
    assert_loss,
    assert_rate,
    assert_ratio,
    assert_throughput,
    measure_throughput,
)
from pytest_infra.checks.compare import forget_noise
from pytest_infra.checks.find_rate import RateReport
from pytest_infra.checks.flow import Flow
from pytest_infra.checks.latency import LatencyReport
from pytest_infra.checks.loss import LossReport
from pytest_infra.checks.throughput import ThroughputReport
from pytest_infra.checks.verdict import Measured
from pytest_infra.lab import Lab
from pytest_infra.net.host import Host
from pytest_infra.net.link import Link

Pair = tuple[Host, Host, Link]
BUILT_IN = {"generator": "built-in", "duration": "500 ms"}


def normal(text: str) -> str:
    """The text without what differs from run to run."""
    head, *rows = text.split("\n")
    keep = ("  wanted", "  cause", "  next")
    rows = [row if row.startswith((*keep, "             a:")) else _masked(row) for row in rows]
    rows = [
        re.sub(", <n> invalid.*", "", row).replace("<n> to <n> packets", "<n> packets")
        for row in rows
        if "packets are lost on the way" not in row
    ]
    return "\n".join([_masked(head), *rows])


def _masked(text: str) -> str:
    text = re.sub(r"\b[\d.e+-]+ (us|ms|s|ns)\b", "<time>", text)
    text = re.sub(r"\b[\d.e+]+ ([kMG]?bit/s)", "<rate>", text)
    return re.sub(r"\b\d[\d.e+-]*(%?)", r"<n>\1", text)


def text_of(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The text of a failure; a machine that is too busy to tell is asked again."""
    for _ in range(10):
        with pytest.raises((CheckFailed, Inconclusive)) as failure:
            call(*arguments, **options)
        if isinstance(failure.value, CheckFailed):
            break
    assert isinstance(failure.value, CheckFailed), str(failure.value)
    return normal(str(failure.value))


@pytest.fixture
def pair(lab: Lab) -> Pair:
    a, b = lab.host("a"), lab.host("b")
    return a, b, lab.link(a, b)


# -- for real --------------------------------------------------------------------------------------------------------


def test_too_little_throughput(pair: Pair, snapshot: SnapshotAssertion) -> None:
    a, b, link = pair
    assert_throughput(a, b, at_least="1 Mbit/s", **BUILT_IN)
    link.impair(rate="10 Mbit/s")
    assert text_of(assert_throughput, a, b, at_least="50 Mbit/s", **BUILT_IN) == snapshot


def test_too_much_throughput(pair: Pair, snapshot: SnapshotAssertion) -> None:
    a, b, _ = pair
    assert text_of(assert_throughput, a, b, at_most="10 Mbit/s", layer="L2", **BUILT_IN) == snapshot


def test_latency(pair: Pair, snapshot: SnapshotAssertion) -> None:
    a, b, link = pair
    link.impair(delay="20 ms")
    assert_latency(a, b, p50="200 ms", least="38 ms")
    assert text_of(assert_latency, a, b, p50="5 ms", count=30) == snapshot(name="too high")
    assert text_of(assert_latency, a, b, least="5 s", one_way=True, count=30) == snapshot(name="too low")
    link.clear()
    assert text_of(assert_latency, a, b, least="5 ms", count=30) == snapshot(name="too low without a delay")
    link.down()
    assert text_of(assert_latency, a, b, p50="5 ms", count=3, within="50 ms") == snapshot(name="nothing arrives")


def test_jitter(pair: Pair, snapshot: SnapshotAssertion) -> None:
    a, b, link = pair
    link.impair(delay="20 ms", jitter="15 ms")
    assert text_of(assert_jitter, a, b, at_most="500 us") == snapshot
    link.clear()
    assert text_of(assert_jitter, a, b, at_least="5 ms") == snapshot(name="too low without a jitter")


def test_loss(pair: Pair, snapshot: SnapshotAssertion) -> None:
    a, b, link = pair
    assert_loss(a, b, at_most=0)
    link.impair(loss="20 %")
    assert text_of(assert_loss, a, b, at_most="1 %", count=500) == snapshot(name="too much")
    text = text_of(assert_loss, a, b, expected="50 %", count=500)
    assert re.sub(r"chance of [\d.e-]+", "chance of <n>", text) == snapshot(name="another part")


def test_rate(pair: Pair, snapshot: SnapshotAssertion) -> None:
    a, b, link = pair
    link.impair(rate="2 Mbit/s")
    assert text_of(assert_rate, a, b, at_least="20 Mbit/s", width="30 %", trial="300 ms") == snapshot


def test_the_ratio_of_a_change(pair: Pair, snapshot: SnapshotAssertion) -> None:
    a, b, link = pair
    draws = iter([1.0, 1.02, 0.99, 1.01] * 50)
    forget_noise()
    with pytest.raises(CheckFailed) as failure:
        assert_ratio(lambda: next(draws), lambda: 1.3 * next(draws), metric="cost", at_most=1.1)
    assert str(failure.value) == snapshot(name="fail")
    forget_noise()
    wide = iter([1.0, 1.1, 1.3, 0.9, 0.8, 1.2, 1.05] * 50)
    with pytest.raises(Inconclusive) as unsure:
        assert_ratio(lambda: next(wide), lambda: next(wide), metric="cost", at_most=1.02)
    assert str(unsure.value) == snapshot(name="refused")
    forget_noise()
    rate = iter([replace(THROUGHPUT, payload_bps=value) for value in [1.0, 1.1, 1.3, 0.9, 0.8, 1.2, 1.05] * 50])
    with pytest.raises(Inconclusive, match=r"a wider bound, or assert_ratio by metric='cpu_per_packet_s'"):
        assert_ratio(lambda: next(rate), lambda: next(rate), metric="payload_bps", at_most=1.02)
    link.impair(rate="10 Mbit/s")
    report = measure_throughput(a, b, **BUILT_IN)  # type: ignore[arg-type]
    assert report.cpu_per_packet_s > 0


# -- what cannot be had on demand ------------------------------------------------------------------------------------

FLOW = Flow(payload_bytes=6_000_000, duration_s=1.0, packets=4144, retransmits=40, cpu_s=0.04, held_back=0.3, mss=1448)
THROUGHPUT = ThroughputReport("a", "b", "10.0.0.2", "tcp", 1, "iperf 3.12", FLOW, 48e6, 49.7e6, 50.2e6, 0, 0.97, 0.01)
LATENCY = LatencyReport("a", "b", "10.0.0.2", True, 4, (0.02, 0.02, 0.021, 0.03), (0.0, 0.001, 0.009))
LOSS = LossReport("a", "b", "10.0.0.2", sent=1000, lost=50, duplicates=0, reordered=2)
RATE = RateReport("a", "b", "10.0.0.2", 0.005, 1400, 1442, 4300.0, None, 4290.0, 4280.0, 4300.0, 9, 3, 9000.0)
FLAWS = ("in 3 the generator offered too little (7200 of 9000 packets/s at worst)",)


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(replace(THROUGHPUT, at_least_bps=60e6), id="throughput"),
        pytest.param(replace(THROUGHPUT, at_most_bps=60e6), id="throughput at most"),
        pytest.param(
            replace(THROUGHPUT, at_most_bps=60e6, payload_bps=0.0, flow=replace(FLOW, payload_bytes=0)), id="nothing"
        ),
        pytest.param(
            replace(LATENCY, bounds_s=(("p50", 0.01), ("p99", 0.02)), machine_s=(("p50", 0.012), ("p99", 0.03))),
            id="latency",
        ),
        pytest.param(replace(LATENCY, bounds_s=(("jitter", 0.01),)), id="jitter"),
        pytest.param(replace(LOSS, at_most=0.045), id="loss"),
        pytest.param(replace(RATE, at_least_bps=100e6, flaws=FLAWS, there=3, grace_s=0.01), id="rate"),
    ],
)
def test_what_cannot_be_told(report: Measured, snapshot: SnapshotAssertion) -> None:
    with pytest.raises(Inconclusive) as unsure:
        report.demand()
    assert str(unsure.value) == snapshot


def test_packets_that_took_forever(snapshot: SnapshotAssertion) -> None:
    with pytest.raises(CheckFailed) as failure:
        replace(LATENCY, sent=100, bounds_s=(("p50", 0.05),), machine_s=(("p50", 0.0001),)).demand()
    assert str(failure.value) == snapshot


def test_segments_that_were_sent_again(snapshot: SnapshotAssertion) -> None:
    with pytest.raises(CheckFailed) as failure:
        replace(THROUGHPUT, flow=replace(FLOW, held_back=0.0), at_least_bps=60e6).demand()
    assert str(failure.value) == snapshot
