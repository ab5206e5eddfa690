"""What cannot be made: one clear error each, and nothing half-made stays."""

from __future__ import annotations

from functools import partial

import pytest

from pytest_infra import assert_path
from pytest_infra.core import linux, pause
from pytest_infra.core.errors import BadInput, CommandFailed, StartFailed, Unavailable
from pytest_infra.net import isolated, messages


def declare(lab):
    """A lab that is up, with a host a (10.0.0.1), a bridge sw1 and a host b (10.0.0.2)."""
    a, b, sw = lab.host("a"), lab.host("b"), lab.bridge("sw1")
    lab.link(a, sw, ip="10.0.0.1/24", name="lan0")
    lab.link(b, sw, ip="10.0.0.2/24")
    lab.up()
    return a, b, sw


REFUSED = [
    ("node name", {"host": "a"}, r"the name 'a' is taken in this lab \(declared at test_bad_input.py:\d+\)$"),
    ("switch name", {"host": "sw1"}, r"the name 'sw1' is taken in this lab"),
    ("long name", {"host": "a-very-long-name"}, r"'a-very-long-name' cannot be used: allowed are 1 to 15 .* has 16$"),
    ("empty name", {"host": ""}, r"node name '' cannot be used: allowed are 1 to 15 letters, digits"),
    ("path as name", {"host": "../a"}, r"node name '../a' cannot be used"),
    ("name that is no text", {"host": 7}, r"node name 7 cannot be used"),
    ("long interface", {"name": "an-interface-name"}, r"'an-interface-name' cannot be used: .*this one has 17$"),
    ("slash in interface", {"name": "a/b"}, r"interface name 'a/b' cannot be used"),
    (
        "taken interface",
        {"name": "lan0"},
        r"interface 'lan0' of a is taken by a:lan0 \(declared at test_bad_in",
    ),
    ("loopback", {"name": "lo"}, r"interface 'lo' of a is taken: it is there from the start$"),
    ("no address", {"ip": "ten"}, r"address 'ten' cannot be used: .* such as '192.168.1.10/24'"),
    ("no prefix", {"ip": "10.9.0.1"}, r"address '10.9.0.1' cannot be used: it is not an address with a prefix length"),
    ("long prefix", {"ip": "10.9.0.1/33"}, r"address '10.9.0.1/33' cannot be used"),
    ("network", {"ip": "10.9.0.0/24"}, r"it is the address of the subnet 10.9.0.0/24 itself"),
    ("broadcast", {"ip": "10.9.0.255/24"}, r"it is the broadcast address of 10.9.0.0/24"),
    ("multicast", {"ip": "224.0.0.1/24"}, r"224.0.0.1 is a multicast address"),
    ("loopback address", {"ip": "127.0.0.2/8"}, r"127.0.0.2 is a loopback address"),
    ("anycast", {"ip": "2001:db8::/64"}, r"it is the address of the subnet 2001:db8::/64 itself"),
    ("number as address", {"ip": 10}, r"address '10' cannot be used"),
    ("taken address", {"ip": "10.0.0.1/24"}, r"10.0.0.1 for a:eth1 is taken: a:lan0 has it \(declared at test_bad_inp"),
    ("taken peer", {"ip": "10.9.0.1/24", "peer_ip": "10.0.0.2/24"}, r"10.0.0.2 for b:eth1 is taken: b:eth0 has it"),
    (
        "same twice",
        {"ip": "10.9.0.1/24", "peer_ip": "10.9.0.1/24"},
        r"a link's addresses must differ; got 10.9.0.1/24, ",
    ),
    ("same twice at one end", {"ip": ["10.9.0.1/24", "10.9.0.1/25"]}, r"a link's addresses must differ"),
    ("small MTU", {"mtu": 67}, r"mtu 67 cannot be used; allowed are 68 to 65535 bytes$"),
    ("large MTU", {"mtu": 65536}, r"mtu 65536 cannot be used"),
    ("MTU as text", {"mtu": "1500"}, r"mtu '1500' cannot be used"),
    ("MTU True", {"mtu": True}, r"mtu True cannot be used"),
    (
        "IPv6 MTU",
        {"mtu": 1279, "ip": "2001:db8::1/64"},
        r"IPv6 needs an MTU of at least 1280 bytes \(RFC 8200\); got 1279",
    ),
    ("no MAC", {"mac": "02:00"}, r"MAC address '02:00' cannot be used: six octets"),
    ("multicast MAC", {"mac": "01:00:5e:00:00:01"}, r"is a multicast address; an even first octet is wanted"),
    ("zero MAC", {"mac": "00:00:00:00:00:00"}, r"names no interface"),
]


@pytest.mark.parametrize(("options", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_it_is_refused_where_it_is_written_and_the_lab_goes_on(lab, echo, options, text):
    a, b, _ = declare(lab)
    before = lab.describe(), [len(node.ports) for node in (a, b)]
    use = partial(lab.host, options["host"]) if "host" in options else partial(lab.link, a, b, **options)
    with pytest.raises(BadInput, match=text) as caught:
        use()
    assert "\n" not in str(caught.value)
    assert (lab.describe(), [len(node.ports) for node in (a, b)]) == before
    assert echo(a, "10.0.0.2") is not None
    link = lab.link(a, b, ip="10.9.0.1/24", peer_ip="10.9.0.2/24")
    assert (link.a.name, link.b.name) == ("eth1", "eth1")
    assert echo(a, "10.9.0.2") is not None


@pytest.mark.parametrize("method", ["host", "router", "bridge"])
def test_a_name_is_of_one_node_or_switch(lab, method):
    getattr(lab, method)("x")
    for other in (lab.host, lab.router, lab.bridge):
        with pytest.raises(BadInput, match=r"the name 'x' is taken in this lab \(declared at test_bad_input.py:\d+\)"):
            other("x")


def test_overlapping_subnets_are_found_before_anything_is_made(infra, nothing_left):
    with infra.lab("bad") as lab:
        a, b, c = lab.host("a"), lab.host("b"), lab.host("c")
        lab.link(a, b, ip="10.0.0.1/24", peer_ip="10.0.0.2/24")
        lab.link(a, c, ip="10.0.0.129/25")
        with pytest.raises(
            BadInput, match=r"^subnet 10.0.0.128/25 of a:eth1 \(declared at .*\) overlaps 10.0.0.0/24 of"
        ):
            lab.up()
        nothing_left()
        with pytest.raises(StartFailed, match=r"^the lab bad is not up: subnet 10.0.0.128/25 of a:eth1"):
            a.run(["true"])


def test_a_full_subnet_is_found_before_anything_is_made(infra, nothing_left):
    with infra.lab() as lab:
        sw = lab.bridge()
        lab.link(lab.host("a"), sw, ip="10.0.0.1/30")
        lab.link(lab.host("b"), sw)
        lab.link(lab.host("c"), sw)
        with pytest.raises(
            BadInput, match=r"subnet 10.0.0.0/30 has no address left for c:eth0 \(declared at test_bad_in"
        ):
            lab.up()
        nothing_left()


def test_an_error_of_the_kernel_names_the_line_that_declared_it(infra, nothing_left):
    """A device that the test itself has made has the name that the link is to have."""
    with infra.lab("bad") as lab:
        a, b = lab.host("a"), lab.host("b")
        a.run(["ip", "link", "add", "eth0", "type", "veth"])
        lab.link(a, b)
        with pytest.raises(
            StartFailed, match=r"^the lab bad could not be made: make a:eth0, declared at test_bad_inp"
        ) as caught:
            lab.up()
        assert "File exists" in str(caught.value)
        nothing_left()


def test_an_error_in_the_far_namespace_names_the_line_too(infra, nothing_left):
    with infra.lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        b.run(["ip", "link", "add", "eth0", "type", "veth"])
        lab.link(a, b)
        with pytest.raises(StartFailed, match=r"make a:eth0, declared at test_bad_input.py:\d+: .*[Ee]xists"):
            lab.up()
        nothing_left()


def test_a_host_that_cannot_be_made_names_its_line(infra, nothing_left, monkeypatch):
    with infra.lab("bad") as lab:
        lab.host("a")
        lab.up()
        lab.host("b")
        with monkeypatch.context() as patch:
            patch.setattr(linux, "unshare", lambda flags: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(
                StartFailed, match=r"^host b, declared at test_bad_input.py:\d+, could not be made: .*No sp"
            ):
                lab.up()
        nothing_left()


def test_an_isolation_that_is_refused_names_the_line(infra, nothing_left, monkeypatch):
    def refuse(pid):
        raise PermissionError(1, "Operation not permitted", f"/proc/{pid}/uid_map")

    monkeypatch.setattr(isolated, "_write_maps", refuse)
    with infra.lab() as lab:
        lab.host("b", isolate=["user", "pid"])
        with pytest.raises(
            StartFailed, match=r"^host b, declared at test_bad_input.py:\d+, could not be made: .*not permi"
        ):
            lab.up()
        nothing_left()


def test_a_holder_that_ends_is_an_error(infra, nothing_left, monkeypatch, tmp_path):
    (tmp_path / "pause.py").write_text("")
    monkeypatch.setattr(pause, "__file__", str(tmp_path / "pause.py"))
    with infra.lab() as lab:
        lab.host("b", isolate=["pid"])
        with pytest.raises(StartFailed, match=r"host b, .*: it cannot be isolated: the process that makes them ended$"):
            lab.up()
        nothing_left()


def test_a_program_that_fails_to_start_leaves_nothing(lab, census):
    a = lab.host("a")
    a.run(["true"])
    before = census()
    for _ in range(5):
        with pytest.raises(CommandFailed):
            a.run(["no-such-program"], input="x" * 100_000)
        with pytest.raises(BadInput):
            a.spawn(["true"], cwd="/no/such/folder")
        with pytest.raises(BadInput):
            a.run(["true"], env={"X": None})
        with pytest.raises(CommandFailed):
            a.run(["sleep", "60"], timeout_s=0.01)
    assert not census() - before


def test_what_is_wrong_costs_no_name(lab):
    with pytest.raises(BadInput):
        lab.host(isolate=["disk"])
    with pytest.raises(BadInput):
        lab.host("lab.host/1")
    assert lab.host().name == "h1"


def test_a_port_name_that_another_switch_of_the_instance_has(lab):
    a, b, one, two = lab.host("a"), lab.host("b"), lab.ovs("one"), lab.ovs("two")
    lab.link(a, one, peer_name="up")
    with pytest.raises(
        BadInput, match=r"interface 'up' of two is taken by one:up \(declared at test_bad_input.py:\d+\)"
    ):
        lab.link(b, two, peer_name="up")
    with pytest.raises(BadInput, match="interface 'one' of two is taken: it is there from the start"):
        lab.link(b, two, peer_name="one")
    lab.link(b, lab.bridge("three"), peer_name="up")  # a namespace of its own
    lab.up()


def test_hops_and_isolations_are_lists(lab):
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b)
    with pytest.raises(BadInput, match="hops is a list of nodes, names or addresses; got 'b'"):
        assert_path(a, b, "b")
    with pytest.raises(BadInput, match="isolate is a list of mount"):
        lab.host(isolate=5)


def test_what_the_kernel_lacks_is_unavailable(lab, monkeypatch):
    kind = messages.add_bridge("sw", index=0, mac="02:00:00:00:00:01").replace(b"bridge", b"brodge")
    monkeypatch.setattr(messages, "add_bridge", lambda *_, **__: kind)
    lab.bridge("sw")
    with pytest.raises(Unavailable, match=r"it lacks what bridge sw, declared at .* needs: make the bridge sw"):
        lab.up()
