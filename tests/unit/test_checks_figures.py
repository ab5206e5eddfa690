"""Round-trip times in figures, and the texts of reports."""

from __future__ import annotations

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.checks.answer import Answer
from pytest_infra.checks.arguments import check_count, check_port, check_size, seconds
from pytest_infra.checks.icmp import IcmpError
from pytest_infra.checks.ping import PingReport
from pytest_infra.checks.rtt import RttStatistics
from pytest_infra.core.errors import BadInput


def ping_report(*answers: Answer, duplicates: int = 0) -> PingReport:
    return PingReport(
        source="a",
        destination="b",
        address="192.0.2.1",
        size=56,
        answers=answers,
        duplicates=duplicates,
        elapsed_s=0.0123,
    )


def test_the_deviation_is_that_of_the_whole_series() -> None:
    figures = RttStatistics.of([0.001, 0.002, 0.003, 0.006])
    assert figures is not None
    assert (figures.min_s, figures.avg_s, figures.max_s) == pytest.approx((0.001, 0.003, 0.006))
    assert figures.mdev_s == pytest.approx((((1 + 4 + 9 + 36) / 4 - 3**2) ** 0.5) / 1000)


@given(st.lists(st.floats(0, 10), min_size=1))
def test_the_figures_are_those_of_the_standard_library(rtts_s: list[float]) -> None:
    figures = RttStatistics.of(rtts_s)
    assert figures is not None
    assert figures.mdev_s == pytest.approx(statistics.pstdev(rtts_s), abs=1e-9)
    assert figures.min_s - 1e-9 <= figures.avg_s <= figures.max_s + 1e-9


def test_no_round_trip_has_no_figures() -> None:
    assert RttStatistics.of([]) is None


def test_a_ping_reads_like_the_statistics_that_people_know() -> None:
    reply = Answer("reply", "192.0.2.1", 0.002)
    refusal = Answer("icmp", "192.0.2.9", 0.001, icmp=IcmpError("192.0.2.9", 3, 1, 4))
    assert str(ping_report(reply, refusal, Answer("silence"), reply, duplicates=1)).splitlines() == [
        "ping a -> b (192.0.2.1), 56 bytes of payload",
        "4 packets sent, 2 received, 1 duplicate, 1 error, 50% lost, 12.3 ms",
        "rtt min/avg/max/mdev = 2.000/2.000/2.000/0.000 ms",
        "1 x ICMP host unreachable from 192.0.2.9",
    ]


def test_a_ping_report_counts() -> None:
    report = ping_report(Answer("reply", "192.0.2.1", 0.002), Answer("silence"))
    assert (report.sent, report.received, report.loss, report.ok) == (2, 1, 0.5, False)
    assert report.rtts_s == (0.002, None)


def test_a_ping_report_is_json() -> None:
    content = ping_report(Answer("reply", "192.0.2.1", 0.002)).to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["received"] == 1
    assert content["rtt"] == {"min_s": 0.002, "avg_s": 0.002, "max_s": 0.002, "mdev_s": 0.0}


@pytest.mark.parametrize("value", [0, -1, 65536, 1.5, True, "3"])
def test_a_count_is_a_whole_number(value: object) -> None:
    with pytest.raises(BadInput, match=r"count .* is not allowed; give a whole number from 1 to 65535"):
        check_count(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 65536, "80"])
def test_a_port_has_16_bits(value: object) -> None:
    with pytest.raises(BadInput, match=r"port .* is not allowed; give a whole number from 1 to 65535"):
        check_port(value)  # type: ignore[arg-type]


def test_a_payload_fits_into_a_packet() -> None:
    assert check_size(65507) == 65507
    with pytest.raises(BadInput, match="size 65508 is not allowed; give a whole number from 0 to 65507 bytes"):
        check_size(65508)


@pytest.mark.parametrize("value", [0, "0 s", -1, "soon", float("nan"), float("inf"), None])
def test_a_time_to_wait_is_a_duration_above_zero(value: object) -> None:
    with pytest.raises(BadInput, match=r"^within"):
        seconds("within", value)  # type: ignore[arg-type]


def test_durations_are_seconds() -> None:
    assert seconds("within", "500 ms") == 0.5
    assert seconds("within", 2) == 2.0
    assert seconds("interval", 0, zero=True) == 0.0
