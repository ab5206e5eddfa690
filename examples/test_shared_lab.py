"""One lab for a whole module: for tests that only look, or that put back what they change."""

import pytest

from pytest_infra import assert_reachable, assert_unreachable


@pytest.fixture(scope="module")
def office(lab_factory):
    with lab_factory("office") as lab:
        switch = lab.bridge("floor1")
        for name in ("ann", "bob", "cem"):
            lab.link(lab.host(name), switch)
        yield lab


@pytest.mark.parametrize(("source", "target"), [("ann", "bob"), ("bob", "cem"), ("cem", "ann")])
def test_everybody_reaches_everybody(office, source, target):
    assert_reachable(office.node(source), office.node(target))


def test_a_plug_that_is_pulled_and_put_back(office):
    link = office.links[0]
    link.down()
    assert_unreachable(office.node("ann"), office.node("bob"))
    link.up()
    assert_reachable(office.node("ann"), office.node("bob"))
