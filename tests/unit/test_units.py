"""Rates, sizes and durations as text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.core.errors import BadInput
from pytest_infra.core.units import duration_s, format_duration, format_rate, format_size, rate_bps, size_bytes

NUMBER_AND_UNIT = st.builds(
    "{}{}{}".format,
    st.one_of(st.integers(), st.floats(), st.text("0123456789.eE+-_", max_size=30)),
    st.sampled_from(["", " ", "\t"]),
    st.one_of(st.text(max_size=8), st.sampled_from(["Mbit/s", "MiB", "ms", "B/s", "bps", "kB", "min"])),
)
ANYTHING = st.one_of(
    st.text(),
    NUMBER_AND_UNIT,
    st.integers(),
    st.integers(min_value=10**400, max_value=10**401),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(),
    st.lists(st.integers()),
)


@pytest.mark.parametrize(
    ("text", "bps"),
    [
        ("100 Mbit/s", 1e8),
        ("100Mbit", 1e8),
        ("100 mbit", 1e8),
        ("100Mbps", 1e8),
        ("100 Mb/s", 1e8),
        ("1.5 Gbit/s", 1.5e9),
        ("64 kbit/s", 64e3),
        ("64 Kbit/s", 64e3),
        ("1 Mibit/s", 2**20),
        ("1 B/s", 8),
        ("1 kB/s", 8e3),
        ("10 MiB/s", 10 * 8 * 2**20),
        ("  7   bit/s ", 7),
        ("2e6 bit/s", 2e6),
        (".5 kbit/s", 500),
        ("42", 42),
        (42, 42),
        (0.5, 0.5),
        (0, 0),
    ],
)
def test_rates(text, bps):
    assert rate_bps(text) == bps


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256 MiB", 256 * 2**20),
        ("1.5 GiB", 3 * 2**29),
        ("1.5 kB", 1500),
        ("10KB", 10_000),
        ("0.1 MB", 100_000),
        ("9 B", 9),
        ("9223372036854775807", 2**63 - 1),
        (4096, 4096),
        (0.6, 1),
    ],
)
def test_sizes(text, size):
    assert size_bytes(text) == size
    assert type(size_bytes(text)) is int


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10 ms", 0.01),
        ("250us", 250e-6),
        ("250 µs", 250e-6),
        ("5 ns", 5e-9),
        ("2 min", 120),
        ("1.5 h", 5400),
        ("3", 3),
        (0.25, 0.25),
    ],
)
def test_durations(text, seconds):
    assert duration_s(text) == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (rate_bps, "", ["''", "begin with a number", "Mbit/s"]),
        (rate_bps, "fast", ["'fast'", "begin with a number"]),
        (rate_bps, "nan", ["begin with a number"]),
        (rate_bps, "100M", ["'M'", "unknown unit", "Mbit/s", "MiB/s"]),
        (rate_bps, "10 MB", ["'MB'", "unknown unit"]),
        (rate_bps, "-5 Mbit/s", ["from 0 up"]),
        (rate_bps, math.nan, ["from 0 up"]),
        (rate_bps, math.inf, ["too large"]),
        (rate_bps, 10**400, ["too large"]),
        (rate_bps, True, ["neither text nor a number"]),
        (rate_bps, None, ["neither text nor a number"]),
        (rate_bps, "\N{ARABIC-INDIC DIGIT ONE} Mbit/s", ["begin with a number"]),
        (size_bytes, "256M", ["'M'", "MiB"]),
        (size_bytes, "5 bit", ["'bit'", "MiB"]),
        (size_bytes, "8 Ebyte", ["unknown unit"]),
        (size_bytes, "9223372036854775808", ["too large", "2**63 - 1"]),
        (size_bytes, -1, ["from 0 up"]),
        (duration_s, "10 m", ["'m'", "ms", "min"]),
        (duration_s, "1e999 s", ["too large"]),
        (duration_s, "-1", ["from 0 up"]),
    ],
)
def test_what_is_wrong_and_what_is_allowed(parse, text, words):
    with pytest.raises(BadInput) as error:
        parse(text)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("parse", [rate_bps, size_bytes, duration_s])
@given(value=ANYTHING)
def test_any_input_is_a_number_from_0_up_or_bad_input(parse, value):
    try:
        number = parse(value)
    except BadInput as error:
        assert repr(value) in str(error)  # noqa: PT017
    else:
        assert number >= 0
        assert math.isfinite(number)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (format_rate(1e8), "100 Mbit/s"),
        (format_rate(94_312_345), "94.31 Mbit/s"),
        (format_rate(999_960), "1 Mbit/s"),
        (format_rate(999), "999 bit/s"),
        (format_rate(0), "0 bit/s"),
        (format_rate(5e16), "50000 Tbit/s"),
        (format_size(2**28), "256 MiB"),
        (format_size(1023), "1023 B"),
        (format_size(1500), "1.465 KiB"),
        (format_duration(0.0123), "12.3 ms"),
        (format_duration(0.000999999), "1 ms"),
        (format_duration(0), "0 s"),
        (format_duration(3600), "3600 s"),
        (format_duration(2.5e-7), "250 ns"),
        (format_duration(-0.002), "-2 ms"),
    ],
)
def test_formatting(text, wanted):
    assert text == wanted


@given(st.floats(min_value=0, max_value=1e15))
def test_a_formatted_rate_parses_to_four_digits_of_itself(bps):
    assert rate_bps(format_rate(bps)) == pytest.approx(bps, rel=5.001e-4, abs=0)


@given(st.integers(min_value=0, max_value=2**60))
def test_a_formatted_size_parses_to_four_digits_of_itself(size):
    assert abs(size_bytes(format_size(size)) - size) <= size * 5.001e-4 + 0.5  # it is rounded to a whole byte


@given(st.floats(min_value=0, max_value=1e15))
def test_a_formatted_duration_parses_to_four_digits_of_itself(seconds):
    assert duration_s(format_duration(seconds)) == pytest.approx(seconds, rel=5.001e-4, abs=1e-320)


@given(st.floats())
def test_formatting_takes_any_number(number):
    assert format_rate(number).endswith("bit/s")
    assert format_size(number).endswith("B")
    assert format_duration(number).endswith("s")
