"""The kernel's RED drops as its curve says, at each depth of the queue; another curve is noticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_infra.checks.drop_curve import assert_drop_curve
from pytest_infra.core.errors import BadInput, CheckFailed
from pytest_infra.packet.dropper import Red
from pytest_infra.packet.red import RedQueue
from pytest_infra.session import Infra

pytestmark = pytest.mark.stock_kernel

CURVE = Red(4_000, 20_000, 0.8)
DEPTHS = (8_000, 12_000, 18_000)
TRIALS = 160


@pytest.fixture
def queue() -> Iterator[RedQueue]:
    with Infra() as session, session.lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        link = lab.link(a, b, ip=[], peer_ip=[], mtu=40_000)
        lab.up()
        with RedQueue(link.a) as started:
            yield started


@pytest.mark.timeout(400)
def test_the_curve(queue: RedQueue) -> None:
    counts = {depth: (TRIALS, sum(queue.try_once(CURVE, depth) for _ in range(TRIALS))) for depth in DEPTHS}
    print(counts)
    assert_drop_curve(counts, CURVE, smallest=0.3)
    with pytest.raises(CheckFailed, match="does not follow its curve"):
        assert_drop_curve(counts, Red(4_000, 20_000, 0.3), smallest=0.3)


def test_depths_that_cannot_be_made(queue: RedQueue) -> None:
    queue.try_once(CURVE, 8_000)
    for depth in (5_000, 20_000):
        with pytest.raises(BadInput, match=f"depth is {depth} bytes; from 6060 to 19999"):
            queue.try_once(CURVE, depth)
