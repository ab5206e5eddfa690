"""Names and addresses, and the pools they come from."""

from __future__ import annotations

import ipaddress
import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.core.errors import BadInput, InfraError
from pytest_infra.core.naming import (
    LONGEST_NAME,
    MacPool,
    SubnetPool,
    interface_name,
    ip_interface,
    mac_address,
    node_name,
    port_name,
)

NAME = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=LONGEST_NAME).filter(
    lambda text: text[0].isalnum()
)
NEAR_NAMES = st.text(st.characters(max_codepoint=0x17F), max_size=LONGEST_NAME + 2)
POOL = ipaddress.ip_network("198.18.0.0/15")


@given(NAME)
def test_a_node_may_be_called_this(name):
    assert node_name(name) == name


@pytest.mark.parametrize("name", ["", ".a", "-a", "_a", "a b", "a/b", "é", "sixteencharacter", "a\n", None, 7])
def test_a_node_may_not_be_called_this(name):
    with pytest.raises(BadInput, match=r"1 to 15 letters, digits, '\.', '_' and '-'"):
        node_name(name)


def test_a_long_name_says_how_long_it_is():
    with pytest.raises(BadInput, match="this one has 16"):
        node_name("sixteencharacter")


@pytest.mark.parametrize("name", ["eth0", "sw1-p1", "...", "a~b", "x@y", "eth0.10", "_x", "a+b=c", "fifteencharacte"])
def test_an_interface_may_be_called_this(name):
    assert interface_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/b", "a:b", "a b", "a\tb", "a%d", "all", "default", "é", "eth0\n", "sixteencharacter", None),
        *("-a", "~a", "a;b", "a|b", 'a"b', "a`b", "a$b", "a<b", "a#b", "a*b"),
    ],
)
def test_an_interface_may_not_be_called_this(name):
    with pytest.raises(BadInput, match="1 to 15 letters, digits and '_'"):
        interface_name(name)


@pytest.mark.parametrize("check", [node_name, interface_name, mac_address, ip_interface])
@given(text=st.one_of(st.text(), NEAR_NAMES, st.none(), st.integers(), st.binary()))
def test_any_text_is_returned_or_bad_input(check, text):
    try:
        assert str(check(text))
    except BadInput as error:
        assert repr(text) in str(error) or repr(str(text)) in str(error)  # noqa: PT017


def test_ports_are_called_after_their_switch():
    assert port_name("sw1", 1) == "sw1-p1"
    assert port_name("twelve-chars", 1) == "twelve-chars-p1"


@given(NAME, st.integers(min_value=1, max_value=9999))
def test_a_port_name_is_always_an_interface_name(switch, number):
    assert interface_name(port_name(switch, number)).endswith(f"-p{number}")


def test_long_switch_names_keep_different_port_names():
    switches = [f"a-long-switch{a}{b}" for a, b in itertools.product(string.ascii_letters, repeat=2)]
    assert len({port_name(switch, 10) for switch in switches}) == len(switches)


def test_a_mac_address_becomes_lower_case_with_colons():
    assert mac_address("02-AB-00-00-00-0C") == mac_address("02:AB:00:00:00:0c") == "02:ab:00:00:00:0c"


@pytest.mark.parametrize(
    ("mac", "words"),
    [
        ("02:00:00:00:00", "six octets"),
        ("02:00:00-00:00:00", "six octets"),
        ("2:0:0:0:0:1", "six octets"),
        ("03:00:00:00:00:01", "multicast"),
        ("ff:ff:ff:ff:ff:ff", "multicast"),
        ("00:00:00:00:00:00", "names no interface"),
        (b"\x02\0\0\0\0\1", "six octets"),
    ],
)
def test_no_mac_address(mac, words):
    with pytest.raises(BadInput, match=words):
        mac_address(mac)


@given(st.binary(max_size=40))
def test_mac_addresses_are_local_unicast_and_never_come_twice(seed):
    pool = MacPool(seed)
    macs = [pool.take() for _ in range(300)]
    assert len(set(macs)) == len(macs)
    assert all(mac.startswith("02:") and mac_address(mac) == mac for mac in macs)


def test_a_reserved_mac_address_is_left_out():
    second = [MacPool(b"x").take() for _ in range(1)]
    pool = MacPool(b"x")
    pool.reserve(second[0])
    assert pool.take() not in second


def test_a_pool_of_mac_addresses_says_when_it_is_empty():
    pool = MacPool()
    pool._count = 0xFFFFFE
    assert pool.take().endswith(":ff:ff:ff")
    with pytest.raises(InfraError, match="all 16,777,215"):
        pool.take()


def aligned(first, length, bits):
    return first >> (bits - length) << (bits - length)


@given(st.lists(st.one_of(st.integers(17, 32), st.builds(
    lambda length, offset: ipaddress.ip_network((aligned((198 << 24 | 18 << 16) + offset, length, 32), length)),
    st.integers(14, 32),
    st.integers(0, 2**17 - 1),
)), max_size=40))  # fmt: skip
def test_subnets_overlap_neither_each_other_nor_what_is_reserved(steps):
    pool = SubnetPool()
    taken, reserved = [], []
    for step in steps:
        if not isinstance(step, int):
            pool.reserve(step)
            reserved.append(step)
            continue
        try:
            subnet = pool.ipv4(step)
        except InfraError:
            continue
        assert subnet.prefixlen == step
        assert subnet.subnet_of(POOL)
        assert not any(subnet.overlaps(other) for other in taken + reserved)
        taken.append(subnet)


@given(st.lists(st.integers(20, 32), max_size=30))
def test_every_address_that_is_not_reserved_can_be_had(lengths):
    pool = SubnetPool()
    reserved = [ipaddress.ip_network((198 << 24 | 18 << 16 | at << 12, length)) for at, length in enumerate(lengths)]
    for network in reserved:
        pool.reserve(network)
    left = POOL.num_addresses - sum(network.num_addresses for network in reserved)
    for length in range(15, 33):
        while left >= 2 ** (32 - length):
            try:
                left -= pool.ipv4(length).num_addresses
            except InfraError:
                break
    assert left == 0


def test_ipv4_subnets_come_in_order_and_say_when_there_are_no_more():
    pool = SubnetPool()
    assert [str(pool.ipv4()) for _ in range(2)] == ["198.18.0.0/24", "198.18.1.0/24"]
    assert str(pool.ipv4(16)) == "198.19.0.0/16"
    with pytest.raises(InfraError, match=r"no free /16 is left in 198\.18\.0\.0/15"):
        pool.ipv4(16)


@pytest.mark.parametrize("length", [14, 33])
def test_prefix_lengths_that_the_pool_does_not_have(length):
    with pytest.raises(BadInput, match="15 to 32"):
        SubnetPool().ipv4(length)


@given(st.binary(max_size=20))
def test_ipv6_subnets_are_unique_local(seed):
    pool = SubnetPool(seed)
    subnets = [pool.ipv6() for _ in range(20)]
    assert all(subnet.prefixlen == 64 and subnet.subnet_of(ipaddress.ip_network("fd00::/8")) for subnet in subnets)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(subnets, 2))


def test_ipv6_subnets_leave_out_what_is_reserved_and_run_out():
    first = SubnetPool().ipv6()
    pool = SubnetPool()
    pool.reserve(first)
    assert not pool.ipv6().overlaps(first)
    pool.reserve(ipaddress.ip_network("fd00::/8"))
    with pytest.raises(InfraError, match="no free /64"):
        pool.ipv6()


def test_what_lies_outside_the_pool_takes_nothing_from_it():
    pool = SubnetPool()
    for text in ("10.0.0.0/8", "192.168.1.0/24", "2001:db8::/32"):
        pool.reserve(ipaddress.ip_network(text))
    assert str(pool.ipv4(15)) == "198.18.0.0/15"


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(ADDRESSES, st.integers(0, 140))
def test_an_address_comes_back_as_it_was_or_is_bad_input(address, length):
    text = f"{address}/{length}"
    try:
        interface = ip_interface(text)
    except BadInput:
        return
    assert interface == ipaddress.ip_interface(text)
    assert not interface.ip.is_multicast
    assert not interface.ip.is_unspecified
    assert not interface.ip.is_loopback


@pytest.mark.parametrize(
    "text", ["192.168.1.10/24", "10.0.0.0/31", "10.0.0.1/32", "2001:db8::10/64", "fe80::1/64", "fd00::/127"]
)
def test_an_interface_may_have_this_address(text):
    assert str(ip_interface(text)) == text
    assert ip_interface(ipaddress.ip_interface(text)) == ipaddress.ip_interface(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("192.168.1.10", "not an address with a prefix length"),
        ("192.168.1.10/255.255.255.0", "not an address with a prefix length"),
        ("192.168.1.10/33", "does not appear"),
        ("192.168.1.256/24", "does not appear"),
        ("192.168.1.0/24", "the subnet 192.168.1.0/24 itself"),
        ("2001:db8::/64", "the subnet 2001:db8::/64 itself"),
        ("192.168.1.255/24", "the broadcast address of 192.168.1.0/24"),
        ("255.255.255.255/32", "the broadcast address of every network"),
        ("224.0.0.1/24", "a multicast address"),
        ("ff02::1/64", "a multicast address"),
        ("0.0.0.0/8", "the unspecified address"),
        ("127.0.0.1/8", "a loopback address"),
        ("10.0.0.1/0", "every address"),
        ("fe80::1%eth0/64", "not an address with a prefix length"),
        (ipaddress.ip_interface("fe80::1%eth0/64"), "scope"),
        (ipaddress.ip_address("10.0.0.1"), "not an address with a prefix length"),
        (None, "not an address with a prefix length"),
    ],
)
def test_no_interface_may_have_this_address(text, words):
    with pytest.raises(BadInput, match=words) as error:
        ip_interface(text)
    assert "such as '192.168.1.10/24'" in str(error.value)
