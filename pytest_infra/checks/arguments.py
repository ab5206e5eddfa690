"""The arguments of checks, looked at before anything is sent."""

from __future__ import annotations

import math

from ..core.errors import BadInput
from ..core.units import duration_s
from .icmp import MAX_ECHO_BYTES

__all__ = ["check_count", "check_hop_limit", "check_port", "check_size", "finite", "seconds", "whole"]

_MAX_COUNT = 65535  # the sequence number of an echo request has 16 bits (RFC 792)


def seconds(name: str, value: str | float, *, zero: bool = False) -> float:
    """The argument `name` as seconds.

    Raises:
        BadInput: it is no duration, or 0 where that makes no sense.
    """
    try:
        result = duration_s(value)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None
    if not math.isfinite(result) or result < 0 or (result == 0 and not zero):
        raise BadInput(
            f"{name} {value!r} is not allowed; give a duration above 0 such as '500 ms', or seconds as a number"
        )
    return result


def finite(name: str, value: float) -> float:
    """The argument `name`, a number that is not infinite.

    Raises:
        BadInput: it is no number, infinite, or NaN.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < math.inf:
        raise BadInput(f"{name} {value!r} is not allowed; give a number")
    return value


def whole(name: str, value: int, low: int, high: int, unit: str = "") -> int:
    """The argument `name`, a whole number in a range.

    Raises:
        BadInput: it is no whole number, or outside of the range.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadInput(f"{name} {value!r} is not allowed; give a whole number from {low} to {high}{unit}")
    return value


def check_count(value: int) -> int:
    """How many probes: 1 to 65535."""
    return whole("count", value, 1, _MAX_COUNT)


def check_size(value: int) -> int:
    """Bytes of payload of an echo request: 0 to 65507."""
    return whole("size", value, 0, MAX_ECHO_BYTES, " bytes")


def check_port(value: int) -> int:
    """A TCP or UDP port: 1 to 65535."""
    return whole("port", value, 1, 65535)


def check_hop_limit(name: str, value: int) -> int:
    """A TTL (IPv4) or hop limit (IPv6): 1 to 255."""
    return whole(name, value, 1, 255)
