"""Virtual machines in a lab: next to hosts on a switch, as a router, wired to each other, moved while they run.

Guests are emulated where KVM does not work: then they are slow, and nothing is said of time.
"""

import os
import socket

import pytest

from pytest_infra import (
    BadInput,
    CheckFailed,
    Inconclusive,
    SocketNic,
    UserNic,
    VdeNic,
    assert_migrates,
    assert_reachable,
    assert_throughput,
    assert_unreachable,
    until,
)

pytestmark = [pytest.mark.infra_requires("vm"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def guests(lab_factory):
    """web ── sw1 ── a, b      c ── router ── d      router ══ other, by a socket pair and by VDE"""
    with lab_factory("guests") as lab:
        sw1 = lab.ovs("sw1")
        for node in (lab.host("a"), lab.host("b"), lab.vm("web")):
            lab.link(node, sw1)
        cards = [SocketNic("cable", ip="10.9.0.1/24"), VdeNic("vde", ip="10.8.0.1/24"), UserNic({8080: 80})]
        router = lab.vm("router", router=True, model="e1000", nics=cards)
        for node in (lab.host("c"), lab.host("d")):
            lab.link(node, router)
        lab.vm("other", nics=[SocketNic("cable", ip="10.9.0.2/24"), VdeNic("vde", ip="10.8.0.2/24")])
        lab.up()
        yield lab


def test_a_guest_and_two_hosts_on_one_switch(guests):
    web, a, b = guests.node("web"), guests.node("a"), guests.node("b")
    assert_reachable(a, web, within="30 s")
    assert_reachable(web, b, within="30 s")
    assert_reachable(b, web, protocol="tcp", serve=True, within="30 s")
    web.write_file("/www/index.html", "hello from a guest\n")
    web.run(["httpd", "-h", "/www"])
    assert_reachable(a, web, protocol="tcp", port=80, within="30 s")
    assert a.run(["curl", "-s", f"http://{web.addresses[1].ip.ip}/"]).stdout == "hello from a guest\n"


def test_a_port_that_is_closed_in_a_guest_is_told_apart(guests):
    with pytest.raises(CheckFailed, match="port 81 is closed"):
        assert_reachable(guests.node("a"), guests.node("web"), protocol="tcp", port=81)


def test_a_guest_is_another_machine(guests):
    web = guests.node("web")
    assert web.run(["uname", "-r"]).stdout.strip() == web.describe()["kernel"] == web.options.kernel.name
    assert web.call(socket.gethostname) == "web"
    with pytest.raises(Exception, match="no program 'python3' there"):
        web.run(["python3"])
    assert "infra-step" in web.console or web.describe()["restored"]


def test_a_guest_as_router_between_two_subnets(guests):
    c, d, router = guests.node("c"), guests.node("d"), guests.node("router")
    assert_reachable(c, d, within="30 s")
    assert "e1000" in str(router.call(os.readlink, "/sys/class/net/eth0/device/driver"))
    router.sysctl["net.ipv4.ip_forward"] = "0"
    assert_unreachable(c, d)
    router.sysctl["net.ipv4.ip_forward"] = "1"
    assert_reachable(c, d, within="30 s")


def test_two_guests_over_a_socket_pair(guests):
    router, other = guests.node("router"), guests.node("other")
    assert_reachable(router, "10.9.0.2", within="30 s")
    assert_reachable(other, "10.9.0.1", within="30 s")
    # No host and no third guest can be at such a wire.
    assert all(port.name != "cable" for port in router.ports)
    with pytest.raises(BadInput, match="has two guests at its ends already"):
        other.plug(SocketNic("cable"))


def test_guests_on_a_vde_switch(guests):
    assert_reachable(guests.node("router"), "10.8.0.2", within="30 s")
    # It is a switch of guests: hosts of the lab are not on it, and cannot be linked to it.
    assert_unreachable(guests.node("c"), "10.8.0.2")


def test_user_mode_reaches_out_and_is_reached_by_forwards_only(guests):
    router = guests.node("router")
    router.write_file("/www/index.html", "by a forward\n")
    router.run(["httpd", "-h", "/www"])
    assert router.outside.run(["curl", "-sm", "30", "http://127.0.0.1:8080/"]).stdout == "by a forward\n"
    assert_unreachable(router.outside, "10.0.2.15")
    assert_unreachable(router, "10.0.2.3", protocol="tcp", port=9)  # nobody listens there


def test_a_card_is_plugged_in_and_out_while_the_guest_runs(guests):
    other = guests.node("other")
    name = other.plug(UserNic())
    assert name in other.interfaces
    other.unplug(name)
    assert name not in other.interfaces
    late = guests.host("late")
    guests.link(late, other)
    assert_reachable(late, other, within="30 s")


def test_a_guest_gives_memory_back_when_asked(guests):
    other = guests.node("other")
    before = other.memory_bytes
    assert other.set_memory("400 MiB") < before
    other.set_memory("512 MiB")


def test_equal_pages_of_guests_are_merged(guests):
    web, other = guests.node("web"), guests.node("other")
    guests.merge_memory()  # KSM is a setting of the whole machine, so it is asked for, and put back with the lab
    assert until(lambda: min(web.merged_bytes, other.merged_bytes) > 16 << 20, within_s=300, what="16 MiB are merged")


def test_the_speed_of_an_emulated_guest_is_not_judged(guests):
    a, web = guests.node("a"), guests.node("web")
    if web.emulated:
        with pytest.raises(Inconclusive, match="web is emulated"):
            assert_throughput(a, web, at_least="1 Mbit/s")
    else:
        assert_throughput(a, web, at_least="1 Mbit/s")


def test_a_paused_guest_answers_nothing(guests):
    web, a = guests.node("web"), guests.node("a")
    web.pause()
    try:
        assert_unreachable(a, web)
    finally:
        web.resume()
    assert_reachable(a, web, within="30 s")


def test_a_guest_moves_while_a_client_keeps_asking(guests):
    web, a = guests.node("web"), guests.node("a")
    web.write_file("/run/state", "it was here before")
    report = assert_migrates(web, a, lost_at_most=20)
    print(report.explain())
    assert web.read_file("/run/state") == b"it was here before"
    assert_reachable(web, a, within="30 s")


def test_the_machines_own_programs_on_another_kernel(lab):
    vm = lab.vm(rootfs="host")
    release = vm.run(["python3", "-c", "import platform; print(platform.release())"]).stdout.strip()
    assert release == vm.options.kernel.name
    vm.run(["ip", "link", "add", "blue", "type", "vrf", "table", "10"])  # the kernel loads the module
    vm.write_file("/etc/only-here", "written to a layer in memory")
    assert not os.path.exists("/etc/only-here")
