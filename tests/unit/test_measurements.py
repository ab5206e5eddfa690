"""The statistics of measurements, verdicts, what iperf3 writes, and the search for a rate: without a network."""

from __future__ import annotations

import json
import math
import random
import socket
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

import pytest

from pytest_infra.checks import generator, loss, throughput
from pytest_infra.checks.compare import compare, decide, forget_noise, looks_of, smallest_effect
from pytest_infra.checks.find_rate import RateReport
from pytest_infra.checks.flow import Flow, header_bytes, merged
from pytest_infra.checks.iperf3 import parse_iperf3
from pytest_infra.checks.latency import LatencyReport
from pytest_infra.checks.loss import LossReport
from pytest_infra.checks.rate_search import Goal, Trial, classify, conditional_throughput, search
from pytest_infra.checks.resample import clopper_pearson, paired_interval, quantile, quantile_bounds, t_quantile
from pytest_infra.checks.stream import Stream
from pytest_infra.checks.target import Ends
from pytest_infra.checks.throughput import ThroughputReport
from pytest_infra.core.errors import BadInput, CheckFailed, Inconclusive, InfraError


def test_a_late_packet_and_a_lost_one_count_alike():
    """99 of 100 take at most a millisecond in both cases."""
    fine = [0.001] * 99
    assert quantile([*fine, 0.1], 0.99) == quantile([*fine, math.inf], 0.99) == 0.001
    assert quantile([*fine[1:], 0.1, 0.1], 0.99) == 0.1


def test_quantiles():
    assert quantile([1, 2, 3, 4], 0.5) == 2
    assert quantile([5], 0.99) == 5
    assert quantile(list(range(101)), 0.99) == 99
    most = [*range(1, 100), math.inf]
    assert quantile(most, 0.99) == 99
    assert quantile([*most[1:], math.inf], 0.99) == math.inf
    assert quantile([1, math.inf], 0.5) == 1
    assert quantile([1, math.inf, math.inf], 0.5) == math.inf


@pytest.mark.parametrize(
    ("share", "freedom", "expected"), [(0.975, 5, 2.5706), (0.995, 10, 3.1693), (0.9, 2, 1.8856), (0.975, 1, 12.706)]
)
def test_students_t(share, freedom, expected):
    assert t_quantile(share, freedom) == pytest.approx(expected, rel=1e-4)


def test_clopper_and_pearson():
    assert clopper_pearson(5, 100, 0.95) == pytest.approx((0.01643, 0.11284), abs=1e-5)
    assert clopper_pearson(0, 10, 0.95) == pytest.approx((0, 0.30850), abs=1e-5)
    assert clopper_pearson(10, 10, 0.95) == pytest.approx((0.69150, 1), abs=1e-5)


def test_the_bounds_of_a_quantile():
    assert quantile_bounds(list(range(100)), 0.5, 0.95) == (39, 60)
    assert quantile_bounds(list(range(10)), 0.99)[1] == math.inf


@pytest.mark.parametrize("count", [5, 10])
def test_the_interval_of_paired_ratios_holds_the_truth(count):
    draw = random.Random(7)
    missed = 0
    for seed in range(300):
        low, high = paired_interval([draw.gauss(0.1, 0.05) for _ in range(count)], 0.95, seed)
        missed += not low <= 0.1 <= high
    assert missed <= 30  # 5 % are wanted, 15 of 300


def test_one_value_far_off_does_not_decide():
    """Nor does leaving it out: the interval reaches the mean of all, so that what is rarely slow is not called fast."""
    logs = [0.0, 0.01, -0.01, 0.02, -0.02, 5.0]
    low, high = paired_interval(logs, 0.95)
    assert high == pytest.approx(sum(logs) / len(logs))
    assert -0.2 < low < 0


def test_a_change_that_is_slow_now_and_then_does_not_pass():
    """Three times slower in an eighth of all calls: 1.18 in the geometric mean."""
    for seed in range(10):
        draw = random.Random(seed)

        def measure(slow_in, draw=draw):
            return draw.gauss(1, 0.01) * (3 if draw.random() < slow_in else 1)

        compare_noise = compare(partial(measure, 0), partial(measure, 0.125), metric=float, at_most=1.1)
        assert not compare_noise.ok or compare_noise.ratio <= 1.1, compare_noise.explain()


def test_an_interval_without_scatter():
    assert paired_interval([0.5] * 5, 0.95) == pytest.approx((0.5, 0.5))


def test_decisions():
    assert decide(0.9, 1.1, None, 1.2) == "pass"
    assert decide(1.3, 1.4, None, 1.2) == "fail"
    assert decide(1.1, 1.3, None, 1.2) == "inconclusive"
    assert decide(0.7, 0.8, 0.9, None) == "fail"
    assert decide(0.95, 1.05, 0.9, 1.1) == "pass"


def test_when_to_look():
    assert looks_of(15) == (5, 10, 15)
    assert looks_of(5) == (5,)


def machine(scatter: float, seed: int):
    """Something to measure whose figures scatter by so much."""
    draw = random.Random(seed)
    return lambda factor: lambda: factor * math.exp(draw.gauss(0, scatter))


@pytest.fixture(autouse=True)
def _new_session():
    forget_noise()
    yield
    forget_noise()


def test_a_true_change_is_found_and_no_other():
    found = wrong = refused = 0
    for seed in range(60):
        forget_noise()
        measured = machine(0.04, seed)
        found += compare(measured(1.0), measured(1.2), metric="x").differs
        wrong += compare(measured(1.0), measured(1.0), metric="x").differs
        try:
            verdict = compare(measured(1.0), measured(1.2), metric="x", at_most=1.1).verdict
        except Inconclusive:
            refused += 1
            continue
        assert verdict != "pass"
    assert found >= 54
    assert wrong <= 8
    assert refused <= 10


def test_a_claim_that_is_too_tight_is_refused():
    measured = machine(0.2, 1)
    with pytest.raises(Inconclusive, match=r"cannot show a change of 2\.0%") as refusal:
        compare(measured(1.0), measured(1.0), metric="x", at_most=1.02)
    assert "the smallest effect that can be shown is" in str(refusal.value)


def test_measuring_ends_when_decided():
    measured = machine(0.01, 3)
    assert compare(measured(1.0), measured(1.5), metric="x").blocks == 5
    assert compare(measured(1.0), measured(1.0), metric="x").blocks == 15
    assert smallest_effect([0.01, -0.01, 0.02, -0.02], 15, 0.95) < 0.02


def test_the_order_is_a_b_b_a_or_the_other_way_round():
    order = []

    def base():
        order.append("A")
        return 1.0

    def changed():
        order.append("B")
        return 2.0

    compare(base, changed, metric="x", blocks=5)
    blocks = ["".join(order[20 + 4 * number :][:4]) for number in range(5)]
    assert order[:20] == ["A"] * 20
    assert set(blocks) == {"ABBA", "BAAB"}


def test_the_noise_of_one_function_is_not_that_of_another():
    steady, wild = machine(0.01, 3), machine(0.5, 3)
    few = {"blocks": 5}
    calm = compare(steady(1.0), steady(1.0), metric=lambda value: value, **few)
    rough = compare(wild(1.0), wild(1.0), metric=lambda value: value, **few)
    assert calm.metric == rough.metric == "<lambda>"
    assert calm.smallest_effect < 0.1 < rough.smallest_effect


def test_what_can_be_shown_is_not_less_than_these_blocks_scatter():
    """The noise is that of the metric's first base: another one may be worse."""
    steady, wild = machine(0.01, 3), machine(0.5, 3)
    assert compare(steady(1.0), steady(1.0), metric="x", blocks=5).smallest_effect < 0.1
    assert compare(wild(1.0), wild(1.0), metric="x", blocks=5).smallest_effect > 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"at_most": 0}, "at_most 0 is not allowed; give a ratio above 0"),
        ({"at_most": True}, "at_most True is not allowed"),
        ({"at_least": 1.2, "at_most": 1.1}, "at_least 1.2 is not below at_most 1.1"),
        ({"blocks": 4}, "blocks 4 is not allowed; give a whole number from 5 to 200"),
        ({"confidence": 1.0}, "confidence 1.0 is not allowed"),
        ({"metric": "speed"}, "speed of ThroughputReport is None; a number above 0 is wanted"),
    ],
)
def test_bad_input_of_comparisons(options, words):
    with pytest.raises(BadInput, match=words):
        compare(lambda: THROUGHPUT, lambda: THROUGHPUT, **options)


# -- reports -----------------------------------------------------------------------------------------------------

FLOW = Flow(payload_bytes=6_000_000, duration_s=1.0, packets=4144, cpu_s=0.04, mss=1448)
THROUGHPUT = ThroughputReport("a", "b", "10.0.0.2", "tcp", 1, "built-in", FLOW, 48e6, 49.7e6, 50.2e6, 0, 0.5, 0)
LATENCY = LatencyReport("a", "b", "10.0.0.2", True, 4, (0.02, 0.02, 0.021, 0.03), (0.0, 0.001, 0.009))
ONE_OF_100 = replace(LATENCY, sent=100, delays_s=(0.001,), variations_s=())
LOSS = LossReport("a", "b", "10.0.0.2", sent=1000, lost=50, duplicates=0, reordered=0)
RATE = RateReport("a", "b", "10.0.0.2", 0.01, 1400, 1442, 4300.0, 4400.0, 4290.0, 4280.0, 4300.0, 9, 0, None)


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (THROUGHPUT, "pass"),
        (replace(THROUGHPUT, at_least_bps=45e6, at_most_bps=52e6), "pass"),
        (replace(THROUGHPUT, at_least_bps=49e6), "fail"),
        (replace(THROUGHPUT, at_least_bps=49e6, layer="L3"), "pass"),
        (replace(THROUGHPUT, at_most_bps=40e6), "fail"),
        (replace(THROUGHPUT, at_least_bps=49e6, flow=replace(FLOW, held_back=0.2)), "inconclusive"),
        (replace(THROUGHPUT, at_least_bps=40e6, flow=replace(FLOW, held_back=0.9)), "pass"),
        (replace(THROUGHPUT, at_most_bps=52e6, flow=replace(FLOW, held_back=0.2)), "inconclusive"),
        (replace(THROUGHPUT, at_most_bps=40e6, flow=replace(FLOW, held_back=0.2)), "fail"),
        (replace(THROUGHPUT, at_most_bps=52e6, payload_bps=0.0, flow=replace(FLOW, payload_bytes=0)), "inconclusive"),
        (LATENCY, "pass"),
        (replace(LATENCY, bounds_s=(("p50", 0.021),)), "pass"),
        (replace(LATENCY, bounds_s=(("p50", 0.01),)), "fail"),
        (replace(LATENCY, bounds_s=(("p50", 0.01),), machine_s=(("p50", 0.005),)), "fail"),
        (replace(LATENCY, bounds_s=(("p50", 0.01),), machine_s=(("p50", 0.015),)), "inconclusive"),
        (replace(LATENCY, least_s=(("p50", 0.025),)), "fail"),
        (replace(LATENCY, delays_s=()), "fail"),
        (replace(ONE_OF_100, bounds_s=(("p50", 0.01),)), "fail"),
        (replace(ONE_OF_100, bounds_s=(("p99", 0.01),), machine_s=(("p99", 0.001),)), "fail"),
        (replace(ONE_OF_100, bounds_s=(("p50", 0.01),), machine_s=(("p50", math.inf),)), "inconclusive"),
        (replace(ONE_OF_100, sent=1, bounds_s=(("p50", 0.01),)), "pass"),
        (replace(ONE_OF_100, delays_s=(0.001,) * 99, bounds_s=(("p99", 0.01),)), "pass"),
        (replace(ONE_OF_100, delays_s=(0.001,) * 98, bounds_s=(("p99", 0.01),)), "fail"),
        (replace(LATENCY, bounds_s=(("jitter", 0.01),)), "inconclusive"),
        (replace(LATENCY, least_s=(("jitter", 0.01),)), "inconclusive"),
        (replace(LATENCY, variations_s=(0.001,) * 10, bounds_s=(("jitter", 0.01),)), "pass"),
        (LOSS, "pass"),
        (replace(LOSS, at_most=0.05), "pass"),
        (replace(LOSS, at_most=0.045), "inconclusive"),
        (replace(LOSS, at_most=0.01), "fail"),
        (replace(LOSS, at_most=0.0), "fail"),
        (replace(LOSS, expected=0.05), "pass"),
        (replace(LOSS, expected=0.1), "fail"),
        (replace(LOSS, expected=0.02), "fail"),
        (RATE, "pass"),
        (replace(RATE, at_least_bps=45e6), "pass"),
        (replace(RATE, at_least_bps=60e6), "fail"),
        (replace(RATE, at_least_bps=60e6, upper_pps=None), "inconclusive"),
        (replace(RATE, at_least_bps=50e6), "inconclusive"),
    ],
)
def test_verdicts(report, verdict):
    assert report.verdict == verdict
    assert report.to_dict()["verdict"] == verdict
    assert report.explain()
    json.dumps(report.to_dict())
    if verdict == "pass":
        report.demand()
    else:
        with pytest.raises(CheckFailed if verdict == "fail" else Inconclusive):
            report.demand()


def test_layers():
    assert header_bytes("tcp", 4) == 52
    assert header_bytes("udp", 6) == 48
    assert FLOW.layer_bps("payload", 52) == 48e6
    assert FLOW.layer_bps("L3", 52) == pytest.approx(48e6 + 8 * 52 * 4144)
    assert FLOW.layer_bps("L2", 52) == pytest.approx(48e6 + 8 * 66 * 4144)
    both = merged([FLOW, replace(FLOW, duration_s=1.1, held_back=0.3)])
    assert (both.payload_bytes, both.duration_s, both.packets, both.held_back) == (12_000_000, 1.1, 8288, 0.3)


def test_streams():
    stream = Stream((0.01, None, 0.03, 0.01), (0, 3, 2, 3))
    assert (stream.sent, stream.lost, stream.duplicates, stream.reordered) == (4, 1, 1, 1)
    assert stream.variations_s == pytest.approx((0.02,))


@pytest.mark.parametrize(("expected", "count", "can_fail"), [(0.5, 10, False), (0.5, 11, True), (0.05, 1, False)])
def test_an_expected_loss_that_no_outcome_could_contradict(monkeypatch, expected, count, can_fail):
    measured = replace(LOSS, sent=count, lost=count)
    monkeypatch.setattr(loss, "measure_loss", lambda *_, **__: measured)
    failure, words = (CheckFailed, "loses 100") if can_fail else (BadInput, f"count {count} is too small")
    with pytest.raises(failure, match=words):
        loss.assert_loss(None, None, expected=expected, count=count)


@pytest.mark.parametrize(("at_most", "count", "can_fail"), [(0.05, 2, False), (0.05, 3, True), (0.0, 1, True)])
def test_a_dead_link_is_never_inconclusive(monkeypatch, at_most, count, can_fail):
    monkeypatch.setattr(loss, "measure_loss", lambda *_, **__: replace(LOSS, sent=count, lost=count))
    failure, words = (CheckFailed, "loses 100") if can_fail else (BadInput, f"count {count} is too small")
    with pytest.raises(failure, match=words):
        loss.assert_loss(None, None, at_most=at_most, count=count)


def test_udp_that_offers_no_more_than_is_allowed(monkeypatch):
    monkeypatch.setattr(throughput, "measure_throughput", lambda *_, **__: THROUGHPUT)
    check, load = throughput.assert_throughput, {"protocol": "udp", "at_most": "48 Mbit/s"}
    for rate in ("10 Mbit/s", "48 Mbit/s"):
        with pytest.raises(BadInput, match=f"rate '{rate}' offers .* not more than at_most, 48 Mbit/s"):
            check(Here(), Here(), rate=rate, **load)
    check(Here(), Here(), rate="49 Mbit/s", **load)
    check(Here(), Here(), **load)
    check(Here(), Here(), rate="48 Mbit/s", layer="L2", **{**load, "at_most": "50.3 Mbit/s"}, size=100)


class Here:
    """A node that is this machine."""

    name = "here"

    def call(self, function, *args):
        return function(*args)


def test_a_connection_that_ends_at_another_socket(monkeypatch):
    """As one does that a rule redirects: the receiver waits for it only so long."""
    monkeypatch.setattr(generator, "_CONNECT_S", 0.2)
    here, connect = Here(), generator._connect
    ends = Ends(here, None, here, ip_address("127.0.0.1"))
    with ExitStack() as undo:
        mine, theirs = generator._connected(ends, undo)
        assert mine.getsockname() == theirs.getpeername()
        assert theirs.gettimeout() is None
    with socket.create_server(("127.0.0.1", 0)) as other, ExitStack() as undo:
        elsewhere = other.getsockname()[1]
        monkeypatch.setattr(generator, "_connect", lambda address, _, source: connect(address, elsewhere, source))
        with pytest.raises(InfraError, match=r"here to 127\.0\.0\.1 came about, .* ended at another socket"):
            generator._connected(ends, undo)


# -- iperf3 ------------------------------------------------------------------------------------------------------


def test_iperf3_that_failed_with_exit_status_0():
    with pytest.raises(InfraError, match="iperf3 failed: unable to connect to server"):
        parse_iperf3('{"start": {}, "end": {}, "error": "unable to connect to server"}', "tcp")
    with pytest.raises(InfraError, match="iperf3 wrote no JSON"):
        parse_iperf3("", "tcp")


def test_iperf3():
    cpu = {"host_total": 40.0, "remote_total": 10.0}
    end = {
        "cpu_utilization_percent": cpu,
        "sum_sent": {"bytes": 14480, "retransmits": 3},
        "sum_received": {"bytes": 13000, "seconds": 2.0},
    }
    flow = parse_iperf3(json.dumps({"start": {"tcp_mss_default": 1448}, "end": end}), "tcp", waited_s=0.5)
    assert (flow.payload_bytes, flow.packets, flow.retransmits) == (13000, 10, 3)
    assert (flow.cpu_s, flow.held_back) == (1.0, 0.25)
    total = {"bytes": 10000, "seconds": 1.0, "packets": 100, "lost_packets": 10}
    flow = parse_iperf3(json.dumps({"start": {}, "end": {"cpu_utilization_percent": cpu, "sum": total}}), "udp")
    assert (flow.payload_bytes, flow.packets, flow.offered_packets, flow.lost) == (9000, 90, 100, 10)


# -- the search for a rate ---------------------------------------------------------------------------------------

GOAL = Goal(loss=0.01, width=0.02, duration_s=1.0)


def trials(*losses: float) -> list[Trial]:
    return [Trial(100.0, 1.0, loss) for loss in losses]


def test_what_a_load_is():
    assert classify([], GOAL) == "undecided"
    assert classify(trials(0), GOAL) == "undecided"
    assert classify(trials(0, 0), GOAL) == "lower"
    assert classify(trials(0, 1), GOAL) == "undecided"
    assert classify(trials(0, 1, 0), GOAL) == "lower"
    assert classify(trials(1, 1), GOAL) == "upper"
    assert classify(trials(0.01, 0.0), GOAL) == "lower"


def test_conditional_throughput():
    assert conditional_throughput(trials(0.0, 0.01, 0.5), GOAL) == pytest.approx(99)
    assert conditional_throughput(trials(0.0, 0.0), GOAL) == 100


def device(capacity: float, bad: float = 0.0, seed: int = 0, offers: float = math.inf):
    """Takes so many packets a second; in some trials it loses more; the generator offers so many at most."""
    draw = random.Random(seed)

    def measure(load: float) -> Trial:
        loss = max(0.0, 1 - capacity / load)
        if draw.random() < bad:
            loss = max(loss, 0.2)
        offered = min(load, offers)
        return Trial(load, GOAL.duration_s, loss, offered >= 0.99 * load, offered)

    return measure


@pytest.mark.parametrize("capacity", [137.0, 5_000.0, 90_000.0])
def test_the_rate_of_a_steady_device_is_found(capacity):
    state = search(device(capacity), GOAL, 10, 100_000)
    assert state.lower is not None
    assert state.upper is not None
    assert state.lower <= capacity / 0.99 < state.upper
    assert (state.upper - state.lower) / state.upper <= GOAL.width
    assert not state.invalid


def test_single_bad_trials_do_not_mislead_the_search():
    found = [search(device(5_000.0, bad=0.1, seed=seed), GOAL, 10, 100_000, budget=200) for seed in range(20)]
    near = [state for state in found if state.lower and 4_700 < state.lower < 5_100]
    assert len(near) >= 16


def test_a_device_that_takes_all_or_nothing():
    state = search(device(1e9), GOAL, 10, 1000)
    assert (state.lower, state.upper) == (1000, None)
    state = search(device(1.0), GOAL, 10, 1000)
    assert state.lower is None
    assert state.upper == 10


def test_a_generator_that_cannot_offer_the_load():
    state = search(device(1e9, offers=700.0), GOAL, 10, 1000)
    assert state.generator_limit == 1000
    assert state.invalid
    assert state.upper is None
    assert state.lower is not None
    assert 680 < state.lower <= 700
