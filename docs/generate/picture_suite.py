"""The tests whose labs are drawn for the pages: pictures.py runs them as test_office.py; one is meant to fail."""

import pytest

from pytest_infra import assert_path, assert_reachable, ping


@pytest.fixture
def office(lab):
    sw1, r1, sw2 = lab.ovs("sw1"), lab.router("r1"), lab.bridge("sw2")
    alice, bob, mail = (lab.host(name) for name in ("alice", "bob", "mail"))
    lab.link(alice, sw1, ip="192.168.1.10/24")
    lab.link(bob, sw1, ip="192.168.1.20/24")
    lab.link(r1, sw1, ip="192.168.1.1/24")
    lab.link(r1, sw2, ip="10.0.0.1/24")
    lab.link(mail, sw2, ip="10.0.0.25/24")
    return lab


def test_bob_when_his_plug_is_pulled(office):
    assert_reachable(office.node("alice"), office.node("mail"))
    office.links[1].ports[1].down()
    assert_reachable(office.node("bob"), office.node("mail"))


def test_alice_reads_her_mail(office):
    office.node("mail").spawn(["python3", "-m", "http.server", "8000"])
    assert_reachable(office.node("alice"), office.node("mail"), protocol="tcp", port=8000, within="5 s")
    ping(office.node("alice"), office.node("mail"), count=40, interval="1 ms")


def test_the_way_to_the_mail(office):
    assert_path(office.node("bob"), office.node("mail"), [office.node("r1"), office.node("mail")])


def test_leaf_spine(lab):
    lab.leaf_spine(spines=2, leaves=2, hosts=1)
    lab.up()
