"""`Impairment`: what a wire does to the frames that are sent over it, as data; validated here, made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..core.errors import BadInput
from ..core.units import duration_s, format_duration, format_rate, fraction, rate_bps

__all__ = ["IMPAIRMENTS", "Impairment", "parse_impairment"]

IMPAIRMENTS = ("rate", "delay", "jitter", "loss", "reorder", "duplicate", "corrupt")
"""The arguments of ``lab.link`` and ``link.impair``."""

_LEAST_RATE_BPS = 8_000  # a frame of 1514 bytes takes 1.5 s
_LARGEST_RATE_BPS = 100e9
_LONGEST_S = 60.0


@dataclass(frozen=True)
class Impairment:
    """What one direction of a link does to frames; the fractions are of frames, each decided by itself."""

    rate_bps: float | None = None
    """Bits per second of layer 2: what counts is the frame from its MAC addresses to its payload, without preamble,
    check sequence and gap."""
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Each frame's delay is drawn from `delay_s` less to plus this, all values alike; so frames overtake each other."""
    loss: float = 0.0
    reorder: float = 0.0
    """The fraction that is not delayed, and so overtakes those before it."""
    duplicate: float = 0.0
    corrupt: float = 0.0
    """The fraction in which one bit is wrong."""

    def __bool__(self) -> bool:
        return self != Impairment()

    def __str__(self) -> str:
        words = []
        if self.rate_bps is not None:
            words.append(f"rate {format_rate(self.rate_bps)} (layer 2)")
        for name in ("delay", "jitter"):
            if value := getattr(self, f"{name}_s"):
                words.append(f"{name} {format_duration(value)}")
        words += [
            f"{name} {100 * getattr(self, name):.4g} %"
            for name in ("loss", "reorder", "duplicate", "corrupt")
            if getattr(self, name)
        ]
        return ", ".join(words) or "none"

    @property
    def timed(self) -> bool:
        """Whether frames are held back, changed or doubled, which neither a rate nor loss alone does."""
        return bool(self.delay_s or self.jitter_s or self.reorder or self.duplicate or self.corrupt)

    @property
    def random(self) -> bool:
        """Whether chance decides about single frames."""
        return bool(self.loss or self.reorder or self.duplicate or self.corrupt)

    def describe(self) -> dict[str, object]:
        """What there is of it, in JSON types."""
        found: dict[str, object] = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in found.items() if value}


def parse_impairment(values: Mapping[str, Any]) -> Impairment:
    """The impairment that arguments ask for: those of `IMPAIRMENTS`; None and what is not given is none.

    Raises:
        BadInput: a value that cannot be used; the text says what is allowed.
    """
    given = {name: values[name] for name in IMPAIRMENTS if values.get(name) is not None}
    rate = _of("rate", given, rate_bps)
    if rate is not None and not _LEAST_RATE_BPS <= rate <= _LARGEST_RATE_BPS:
        low, high = format_rate(_LEAST_RATE_BPS), format_rate(_LARGEST_RATE_BPS)
        raise BadInput(f"rate {given['rate']!r} cannot be used: allowed are {low} to {high}")
    times = {name: _of(name, given, duration_s) or 0.0 for name in ("delay", "jitter")}
    for name, time_s in times.items():
        if time_s > _LONGEST_S:
            raise BadInput(f"{name} {given[name]!r} cannot be used: at most {format_duration(_LONGEST_S)} is allowed")
    if times["jitter"] > times["delay"]:
        raise BadInput(
            f"jitter {given['jitter']!r} cannot be used: it is more than the delay, and no frame arrives before it is "
            f"sent; give a delay of at least {format_duration(times['jitter'])}"
        )
    parts = {name: _of(name, given, fraction) or 0.0 for name in ("loss", "reorder", "duplicate", "corrupt")}
    if parts["reorder"] and not times["delay"]:
        raise BadInput("reorder needs a delay: the frames that are not delayed overtake the others")
    return Impairment(rate, times["delay"], times["jitter"], **parts)


def _of(name: str, given: Mapping[str, Any], parse: Any) -> float | None:
    if name not in given:
        return None
    try:
        value: float = parse(given[name])
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None
    return value
