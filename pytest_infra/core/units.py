"""Rates, sizes and durations: text at the edge, plain numbers in SI base units inside.

The prefixes k, M, G, T are powers of 1000 and Ki, Mi, Gi, Ti powers of 1024 (IEC 80000-13). A unit is always
written out: ``"100M"`` is refused, because programs disagree on what it means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache

from .errors import BadInput

__all__ = ["duration_s", "format_duration", "format_rate", "format_size", "fraction", "rate_bps", "size_bytes"]

_NUMBER = r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?"
_NUMBER_AND_UNIT = re.compile(rf"\s*({_NUMBER})\s*(.*?)\s*")
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_LARGEST_SIZE = 2**63 - 1

_RATE_HELP = "bit/s, kbit/s, Mbit/s, Gbit/s, Tbit/s (or bps, kbps, Mbps …), or in bytes B/s, kB/s, MB/s, KiB/s, MiB/s …"
_SIZE_HELP = "B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of 1024)"
_DURATION_HELP = "ns, us, ms, s, min, h"
_FRACTION_HELP = "%, or a number from 0 to 1 without a unit"


@lru_cache(maxsize=1)
def _rate_units() -> Mapping[str, float]:
    units: dict[str, float] = {"": 1}
    for prefix, factor in {**_DECIMAL, "K": 10**3, **_BINARY}.items():
        units |= dict.fromkeys((f"{prefix}bit/s", f"{prefix}bit", f"{prefix}bps", f"{prefix}b/s"), factor)
        units[f"{prefix}B/s"] = 8 * factor
    for prefix in "mgt":  # tc(8) writes mbit; a thousandth of a bit is no rate
        units |= dict.fromkeys((f"{prefix}bit/s", f"{prefix}bit"), _DECIMAL[prefix.upper()])
    return units


@lru_cache(maxsize=1)
def _size_units() -> Mapping[str, float]:
    return {"": 1, **{f"{prefix}B": factor for prefix, factor in {**_DECIMAL, "K": 10**3, **_BINARY}.items()}}


@lru_cache(maxsize=1)
def _duration_units() -> Mapping[str, float]:
    seconds = dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0)
    return {**seconds, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}


def _parse(value: str | float, what: str, units: Mapping[str, float], allowed: str) -> float:
    number: float
    factor: float = 1
    if isinstance(value, str):
        match = _NUMBER_AND_UNIT.fullmatch(value)
        if match is None:
            raise BadInput(f"{what} {value!r} does not begin with a number; write a number and a unit: {allowed}")
        digits, unit = match.groups()
        if unit not in units:
            raise BadInput(f"{what} {value!r} has the unknown unit {unit!r}; allowed are {allowed}")
        number, factor = (int(digits) if digits.lstrip("+-").isdigit() else float(digits)), units[unit]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    else:
        raise BadInput(f"{what} {value!r} is neither text nor a number; write a number and a unit: {allowed}")
    if not number >= 0:  # NaN too
        raise BadInput(f"{what} {value!r} is not a number from 0 up; write a number and a unit: {allowed}")
    return number * factor


def _finite(number: float, value: object, what: str) -> float:
    try:
        result = float(number)
    except OverflowError:
        result = math.inf
    if math.isinf(result):
        raise BadInput(f"{what} {value!r} is too large; a finite number is wanted")
    return result


def rate_bps(value: str | float) -> float:
    """A rate in bits per second: ``"100 Mbit/s"``, ``"1.5 Gbps"``, ``"10 MiB/s"`` (bytes), or a plain number of bit/s.

    Raises:
        BadInput: no number, an unknown unit, or a number that is negative, infinite or NaN.
    """
    return _finite(_parse(value, "rate", _rate_units(), _RATE_HELP), value, "rate")


def size_bytes(value: str | float) -> int:
    """A size in bytes, rounded to a whole one: ``"256 MiB"``, ``"1.5 kB"``, or a plain number of bytes.

    Raises:
        BadInput: no number, an unknown unit, or a number that is negative, infinite, NaN or over 2**63 - 1.
    """
    number = _parse(value, "size", _size_units(), _SIZE_HELP)
    if number > _LARGEST_SIZE or (size := round(number)) > _LARGEST_SIZE:
        raise BadInput(f"size {value!r} is too large; at most {_LARGEST_SIZE} bytes (2**63 - 1) are allowed")
    return size


def duration_s(value: str | float) -> float:
    """A duration in seconds: ``"10 ms"``, ``"250 us"``, ``"2 min"``, or a plain number of seconds.

    Raises:
        BadInput: no number, an unknown unit, or a number that is negative, infinite or NaN.
    """
    return _finite(_parse(value, "duration", _duration_units(), _DURATION_HELP), value, "duration")


def fraction(value: str | float) -> float:
    """A part of a whole, 0 to 1: ``"5 %"``, or a plain number such as 0.05.

    Raises:
        BadInput: no number, an unknown unit, or a number that is not from 0 to 1 (0 % to 100 %).
    """
    number = _parse(value, "fraction", {"": 1.0, "%": 0.01}, _FRACTION_HELP)
    if number > 1:
        raise BadInput(f"fraction {value!r} is more than the whole; 0 to 1 is allowed, or 0 % to 100 %")
    return float(number)


def _digits(number: float) -> str:
    """Four significant digits, without an exponent where a reader would not want one."""
    return f"{number:.0f}" if 1000 <= abs(number) < 1e15 else f"{number:.4g}"


def _scaled(number: float, steps: tuple[tuple[str, float], ...]) -> str:
    """The number in the first unit in which its rounded value is at least 1; `steps` go from large to small."""
    for unit, factor in steps:
        if float(f"{abs(number) / factor:.4g}") >= 1:
            return f"{_digits(number / factor)} {unit}"
    unit, factor = steps[-1]
    return f"{_digits(number / factor)} {unit}"


def format_rate(bps: float) -> str:
    """Bits per second for a reader, to four significant digits: ``"94.3 Mbit/s"``."""
    return _scaled(bps, (("Tbit/s", 1e12), ("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3), ("bit/s", 1.0)))


def format_size(size: float) -> str:
    """Bytes for a reader, to four significant digits and in powers of 1024: ``"256 MiB"``."""
    return _scaled(size, (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0)))


def format_duration(seconds: float) -> str:
    """Seconds for a reader, to four significant digits: ``"12.3 ms"``."""
    if seconds == 0:
        return "0 s"
    return _scaled(seconds, (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)))
