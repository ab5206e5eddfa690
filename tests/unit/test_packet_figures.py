"""The checks that judge counts and times, on worked-out data: droppers, balancers, schedulers, policers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.checks.balance import Delivery, assert_flow_affinity, assert_flow_order, assert_spread
from pytest_infra.checks.drop_curve import assert_drop_curve
from pytest_infra.checks.meter import assert_metered
from pytest_infra.checks.police import Passage, assert_policed
from pytest_infra.checks.schedule import Departure, assert_link_shares, assert_priority, assert_shaped
from pytest_infra.core.errors import BadInput, CheckFailed
from pytest_infra.packet.dropper import Red, TailDrop, Wred
from pytest_infra.packet.meter import Arrival, Colour, OvsMeter
from pytest_infra.packet.statistics import binomial_p, chi_square_p, holm

MS = 10**6


# -- statistics: values from published tables and from counting -------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "chance", "wanted"),
    [
        (5, 10, 0.5, 1.0),
        (0, 10, 0.5, 2 / 1024),
        (9, 10, 0.5, 22 / 1024),
        (0, 5, 0.0, 1.0),
        (1, 5, 0.0, 0.0),
        (5, 5, 1, 1),
    ],
)
def test_the_exact_binomial_test(successes, trials, chance, wanted):
    assert binomial_p(successes, trials, chance) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("counts", "wanted"),
    # Critical values of the chi-square distribution: 3.841 (1 degree), 9.488 (4), 18.307 (10) at 5 %; 6.635 at 1 %.
    [([50, 50], 1.0), ([100 + 13.86, 100 - 13.86], 0.05), ([100 + 18.214, 100 - 18.214], 0.01)],
)
def test_the_chi_square_test(counts, wanted):
    assert chi_square_p(counts, [1, 1]) == pytest.approx(wanted, abs=2e-4)


def test_the_chi_square_test_with_more_bins():
    # (10² + 10²) / 100 + 0 … = 9.488 needs a distance of sqrt(9.488 · 100 / 2) in two of five bins.
    off = (9.488 * 100 / 2) ** 0.5
    assert chi_square_p([100 + off, 100 - off, 100, 100, 100], [1] * 5) == pytest.approx(0.05, abs=1e-4)


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]


# -- droppers ---------------------------------------------------------------------------------------------------

RED = Red(10, 30, 0.5)


def test_the_curves():
    assert [RED.chance(depth) for depth in (9, 10, 20, 29, 30)] == [0, 0, 0.25, 0.475, 1]
    assert [TailDrop(5).chance(depth) for depth in (4, 5)] == [0, 1]
    assert Wred({"af11": RED}).of("af11") is RED


def sampled(curve, seed, count=400, depths=range(0, 40, 4)):
    chance = random.Random(seed)
    return {depth: (count, sum(chance.random() < curve.chance(depth) for _ in range(count))) for depth in depths}


@pytest.mark.parametrize("seed", range(20))
def test_a_dropper_that_follows_its_curve_passes(seed):
    assert assert_drop_curve(sampled(RED, seed), RED).ok


@pytest.mark.parametrize("other", [Red(10, 30, 0.9), Red(2, 30, 0.5), TailDrop(30), Red(10, 22, 0.5)])
def test_a_dropper_with_another_curve_fails(other):
    with pytest.raises(CheckFailed) as error:
        assert_drop_curve(sampled(other, 1, count=1000), RED)
    assert "the dropper does not follow its curve at" in str(error.value)
    assert "of 1000 dropped, wanted" in str(error.value)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: assert_drop_curve({}, RED), "at least one packet"),
        (lambda: assert_drop_curve({5: (3, 4)}, RED), "no more drops than packets"),
        (lambda: assert_drop_curve({20: (10, 2)}, RED), "cannot show an error of 20%; send more"),
        (lambda: assert_drop_curve({20: (10, 2)}, RED, alpha=0), "alpha is 0"),
        (lambda: Red(5, 5, 0.1), "0 <= low < high"),
        (lambda: Red(5, 6, 0), "most is 0"),
        (lambda: TailDrop(0), "limit is 0"),
        (lambda: Wred({}), "no classes"),
        (lambda: Wred({"a": RED}).of("b"), "no class 'b'; there are a"),
        (lambda: assert_flow_affinity([Delivery("f", 0, "w")]), "proves nothing"),
        (lambda: assert_flow_order([]), "proves nothing"),
        (lambda: assert_spread([], ["a", "b"]), "0 flows are too few"),
        (lambda: assert_spread([], ["a"]), "at least two"),
        (lambda: assert_spread([Delivery("f", 0, "w")], ["a", "b"]), "went to 'w'; the workers are a, b"),
        (lambda: assert_link_shares([], {"a": 1}), "at least two classes"),
        (lambda: assert_link_shares([], {"a": 1, "b": 1}), "too few"),
        (lambda: assert_link_shares([Departure(0, 1, "c")], {"a": 1, "b": 1}), "class 'c' left"),
        (lambda: assert_priority([Departure(0, 1, "a")], ["a", "b"]), "fewer than two classes"),
        (lambda: assert_priority([Departure(0, 1, "c")], ["a", "b"]), "class c left"),
        (lambda: assert_shaped([], rate=1, burst=1), "at two times at least"),
        (lambda: assert_policed([], rate=1, burst=1), "nothing was sent"),
        (lambda: assert_policed([Passage(0, 100, True)], rate=8, burst=100), "send more, or faster"),
        (lambda: assert_metered(Exact(), OvsMeter(1, 1), []), "an empty trace proves nothing"),
    ],
)
def test_bad_input_gets_one_clear_error(made, words):
    with pytest.raises(BadInput) as error:
        made()
    assert words in str(error.value)


# -- balancers --------------------------------------------------------------------------------------------------


def deliveries(flows=200, each=5, worker=lambda flow, number: f"w{flow % 4}"):
    return [Delivery(f"f{flow}", number, worker(flow, number)) for number in range(each) for flow in range(flows)]


def test_flows_that_stay_together_in_order_and_spread_pass():
    seen = deliveries()
    assert assert_flow_affinity(seen).flows == 200
    assert assert_flow_order(seen).packets == 1000
    assert assert_spread(seen, [f"w{number}" for number in range(4)]).workers["w0"] == 50


def test_a_torn_flow_is_named():
    seen = deliveries(worker=lambda flow, number: "w9" if (flow, number) == (7, 3) else f"w{flow % 4}")
    with pytest.raises(CheckFailed, match="1 of 200 flows are torn") as error:
        assert_flow_affinity(seen)
    assert "f7: 4 to w3, 1 to w9" in str(error.value)


def test_an_overtaken_packet_is_named():
    seen = deliveries()
    seen[3], seen[203] = seen[203], seen[3]
    with pytest.raises(CheckFailed, match="1 of 1000 packets were overtaken") as error:
        assert_flow_order(seen)
    assert "f3: packet 0 came after 1, at w3" in str(error.value)


def test_an_uneven_spread_fails_and_chance_does_not():
    chance = random.Random(1)
    even = deliveries(each=1, worker=lambda flow, number: f"w{chance.randrange(4)}")
    workers = [f"w{number}" for number in range(4)]
    assert_spread(even, workers)
    with pytest.raises(CheckFailed, match="spread unevenly"):
        assert_spread(deliveries(worker=lambda flow, number: f"w{min(3, flow % 6)}"), workers)
    with pytest.raises(CheckFailed, match="w3 got none"):
        assert_spread(deliveries(worker=lambda flow, number: f"w{flow % 3}"), {"w0": 40, "w1": 40, "w2": 40, "w3": 4})


# -- schedulers -------------------------------------------------------------------------------------------------


def test_shares():
    gold = [Departure(n, 1000, "silver" if n % 4 == 3 else "gold") for n in range(400)]
    assert assert_link_shares(gold, {"gold": 3, "silver": 1}, tolerance=0.01).got["gold"] == 0.75
    with pytest.raises(CheckFailed, match=r"class gold gets 75.0% of the bytes instead of 50.0%"):
        assert_link_shares(gold, {"gold": 1, "silver": 1})


def test_priority():
    right = [Departure(n, 100, name) for n, name in enumerate("aaabbc")]
    assert assert_priority(right, "abc").ok
    wrong = [Departure(n, 100, name) for n, name in enumerate("baabbc")]
    with pytest.raises(CheckFailed, match="frame 0 of b left before one of a"):
        assert_priority(wrong, "abc")
    assert assert_priority(wrong, "abc", under_way=1).ok


def test_shaping():
    even = [Departure(n * MS, 1000, "x") for n in range(200)]  # 1000 bytes a millisecond: 8 Mbit/s
    assert assert_shaped(even, rate="8 Mbit/s", burst=2000).burst_bytes <= 2000
    with pytest.raises(CheckFailed, match="not shaped as wanted: 8 Mbit/s"):
        assert_shaped(even, rate="6 Mbit/s", burst=2000)
    with pytest.raises(CheckFailed, match="not shaped as wanted: 8 Mbit/s"):
        assert_shaped(even, rate="10 Mbit/s", burst=2000)
    bursty = [Departure(n // 10 * 10 * MS, 1000, "x") for n in range(200)]
    with pytest.raises(CheckFailed, match="bursts of 10000 bytes"):
        assert_shaped(bursty, rate="8 Mbit/s", burst=2000)


# -- policers and meters ----------------------------------------------------------------------------------------


def policed(rate_Bps, burst, packets):
    """An exact policer in bytes a millisecond."""
    tokens, before, found = burst, 0, []
    for at_ms, size in packets:
        tokens = min(burst, tokens + (at_ms - before) * rate_Bps // 1000)
        before = at_ms
        found.append(Passage(at_ms * MS, size, tokens >= size))
        tokens -= size if tokens >= size else 0
    return found


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(60, 1500)), min_size=400, max_size=600))
def test_an_exact_policer_keeps_the_bounds(steps):
    at, packets = 0, []
    for wait, size in steps:
        at += wait
        packets.append((at, size))
    assert assert_policed(policed(100_000, 3000, packets), rate="100 kB/s", burst=3000).ok


def test_a_policer_with_another_burst_or_rate_fails():
    packets = [(at // 4, 500) for at in range(4000)]
    assert assert_policed(policed(100_000, 3000, packets), rate="100 kB/s", burst=3000).ok
    with pytest.raises(CheckFailed, match="bytes too much through"):
        assert_policed(policed(100_000, 6000, packets), rate="100 kB/s", burst=3000)
    with pytest.raises(CheckFailed, match="bytes too much through"):
        assert_policed(policed(105_000, 3000, packets), rate="100 kB/s", burst=3000)
    with pytest.raises(CheckFailed, match=r"drops .* bytes too much"):
        assert_policed(policed(90_000, 3000, packets), rate="100 kB/s", burst=3000)


class Exact:
    """A meter that is its profile's model, but for `wrong` packets."""

    name = "the meter"

    def __init__(self, *wrong):
        self.wrong = wrong

    def colours(self, profile, trace):
        colours = list(profile.colours(trace))
        for place in self.wrong:
            colours[place] = Colour.RED if colours[place] is Colour.GREEN else Colour.GREEN
        return tuple(colours)


def test_a_meter_is_judged_packet_by_packet():
    trace = [Arrival(number * 50 * MS, 60) for number in range(30)]
    assert assert_metered(Exact(), OvsMeter(10, 5), trace).ok
    with pytest.raises(CheckFailed, match="the meter marks packet 8 red") as error:
        assert_metered(Exact(8, 11), OvsMeter(10, 5), trace)
    assert "2 of 30 packets have another colour" in str(error.value)
    assert "8: 400 ms, 60 bytes: red, wanted green" in str(error.value)


def two_buckets(seed):
    """What an RFC 4115 policer of two buckets of 1 Mbit/s, 10 kB and 20 kB, lets pass of packets at odd times."""
    chance, at_ns, items = random.Random(seed), 0, []
    buckets = [[80_000_000, 80_000_000], [160_000_000, 160_000_000]]  # level and limit, in thousandths of a bit
    for _ in range(750):
        at_ns += int(chance.expovariate(1 / 660_000)) if chance.random() < 0.99 else 30 * MS
        before = items[-1].at_ns if items else at_ns
        passed = False
        for bucket in buckets:
            bucket[0] = min(bucket[1], bucket[0] + (at_ns - before))
            if not passed and bucket[0] >= 7_888_000:
                bucket[0] -= 7_888_000
                passed = True
        items.append(Passage(at_ns, 986, passed))
    return items


def test_two_buckets_owe_less_than_one_that_is_as_large():
    """While the first one pays, what comes into the second, full one is lost."""
    taken_for_one = 0
    for seed in range(60):
        seen = two_buckets(seed)
        exact = {"clock_error_s": 0.0}
        assert_policed(seen, rate="1 Mbit/s", burst=10_000, excess=("1 Mbit/s", 20_000), **exact)
        try:
            assert_policed(seen, rate="2 Mbit/s", burst=30_000, **exact)
        except CheckFailed:
            taken_for_one += 1
    assert taken_for_one > 0


def test_a_policer_without_its_second_bucket_fails():
    first = two_buckets(0)
    level, before, single = 80_000_000, 0, []
    for item in first:
        level, before = min(80_000_000, level + item.at_ns - before), item.at_ns
        single.append(Passage(item.at_ns, 986, level >= 7_888_000))
        level -= 7_888_000 * single[-1].passed
    with pytest.raises(CheckFailed, match="the policer drops"):
        assert_policed(single, rate="1 Mbit/s", burst=10_000, excess=("1 Mbit/s", 20_000))
