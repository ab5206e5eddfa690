"""Open vSwitch's drop meter is its own token bucket, packet by packet, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from pytest_infra.checks.meter import assert_metered
from pytest_infra.core.errors import BadInput, CheckFailed
from pytest_infra.packet.meter import Arrival, Colour, OvsMeter
from pytest_infra.packet.meter_ovs import OvsMeterDevice

MS = 10**6


@pytest.fixture(scope="module")
def device() -> Iterator[OvsMeterDevice]:
    with OvsMeterDevice() as started:
        yield started


def random_trace(seed: int, count: int = 60) -> list[Arrival]:
    chance, at_ms, found = random.Random(seed), 0, []
    for _ in range(count):
        at_ms += chance.choice([0, 0, 1, 10, 100, 250])
        found.append(Arrival(at_ms * MS, chance.choice([60, 61, 125, 1000, 1500])))
    return found


@pytest.mark.parametrize(
    "profile",
    [OvsMeter(10, 5), OvsMeter(100, 1), OvsMeter(7, 0), OvsMeter(64, 24, "kbps"), OvsMeter(8, 0, "kbps")],
    ids=str,
)
def test_it_is_its_model_and_three_runs_are_alike(device: OvsMeterDevice, profile: OvsMeter) -> None:
    runs = [assert_metered(device, profile, random_trace(1)).got for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]
    assert set(runs[0]) == {Colour.GREEN, Colour.RED}


class Mistaken(OvsMeterDevice):
    """Is told another burst than the check thinks."""

    def colours(self, profile: OvsMeter, trace: object) -> tuple[Colour, ...]:
        return super().colours(OvsMeter(profile.rate, profile.burst + 1, profile.unit), trace)  # type: ignore[arg-type]


def test_a_burst_of_one_packet_more_is_noticed() -> None:
    with Mistaken() as device, pytest.raises(CheckFailed, match="marks packet 5 green"):
        assert_metered(device, OvsMeter(10, 5), [Arrival(0, 60)] * 8)


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        ([Arrival(5, 60)], "whole milliseconds"),
        ([Arrival(MS, 60), Arrival(0, 60)], "in order of time"),
        ([Arrival(0, 59)], "60 to 1500 bytes"),
        ([Arrival(0, 1501)], "60 to 1500 bytes"),
    ],
)
def test_what_virtual_time_cannot_do(device: OvsMeterDevice, trace: list[Arrival], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        assert_metered(device, OvsMeter(10, 5), trace)
