"""Many labs, many hosts, many threads: nothing slows down, runs out, or stays."""

from __future__ import annotations

import threading

import pytest

from pytest_infra.core.errors import InfraError

FLAT = """
import gc, os, sys
from pytest_infra.session import Infra

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def one(infra, number):
    with infra.lab() as lab:
        a, b, sw = lab.host("a"), lab.host("b", isolate=["pid"] if number % 20 == 0 else []), lab.bridge("sw1")
        lab.link(a, sw)
        lab.link(b, sw)
        lab.up()
        if number % 5 == 0:
            a.run(["true"])
            a.call(int)
            a.spawn(["sleep", "60"])

with Infra() as infra:
    for number in range(60):
        one(infra, number)
    gc.collect()
    before = resident()
    for number in range(int(sys.argv[1])):
        one(infra, number)
    gc.collect()
    print(resident() - before)
"""


def test_the_first_ping_is_quick_200_times(infra, echo):
    """Carrier events are waited for: without that the kernel delivers some of them up to a second late."""
    slow = []
    for number in range(200):
        with infra.lab() as lab:
            a, b = lab.host("a"), lab.host("b")
            if number % 2:
                link = lab.link(a, b)
            else:
                sw = lab.bridge()
                lab.link(a, sw)
                link = lab.link(sw, b)
            lab.up()
            for address in link.b.addresses:
                took = echo(a, address.ip)
                assert took is not None
                if took > 0.25:
                    slow.append((number, address.version, took))
    assert slow == []


def test_300_labs_leave_nothing(infra, nothing_left):
    for number in range(300):
        with infra.lab() as lab:
            a, b, sw = lab.host("a"), lab.host("b"), lab.bridge("sw1")
            lab.link(a, sw)
            lab.link(b, sw)
            lab.up()
            if number % 10 == 0:
                a.run(["true"])
                a.call(int)
    assert not nothing_left()


def test_memory_does_not_grow_with_the_number_of_labs(infra, script):
    grown = int(script(FLAT, "200"))
    assert grown < 4_000_000, f"200 labs have left {grown} bytes"


def test_a_thousand_hosts(infra, echo, nothing_left):
    """More hosts than the usual 1,024 open files allow twice; a host that nobody enters costs no thread."""
    with infra.lab() as lab:
        sw = lab.bridge()
        hosts = [lab.host() for _ in range(1000)]
        for host in hosts:
            lab.link(host, sw)
        threads = threading.active_count()
        lab.up()
        assert threading.active_count() == threads
        assert len(sw.interfaces) == 1002
        for address in hosts[-1].ports[0].addresses:
            assert echo(hosts[0], address.ip) is not None
        for address in hosts[500].ports[0].addresses:
            assert echo(hosts[-1], address.ip) is not None


LIMITED = """
import resource, sys
from pytest_infra.session import Infra
from pytest_infra.core.errors import StartFailed
soft, hard, count = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
with Infra() as infra, infra.lab("wide") as lab:
    sw = lab.bridge()
    for _ in range(count):
        lab.link(lab.host(), sw)
    try:
        lab.up()
        print("up", resource.getrlimit(resource.RLIMIT_NOFILE))
    except StartFailed as error:
        print(error)
with Infra() as infra, infra.lab() as lab:
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b)
    print(a.run(["ping", "-c1", str(link.b.addresses[0].ip)]).ok)
"""


def test_the_soft_limit_of_open_files_is_raised_in_time(infra, script):
    assert script(LIMITED, "256", "4096", "400").splitlines() == ["up (1024, 4096)", "True"]


def test_the_hard_limit_of_open_files_is_a_clear_error(infra, script):
    first, second = script(LIMITED, "256", "256", "400").splitlines()
    assert first.startswith("host h")
    assert "declared at <string>:10, could not be made" in first
    assert "Too many open files" in first
    assert "ulimit -n" in first
    assert second == "True"


@pytest.mark.parametrize("attempt", range(3))
def test_labs_from_several_threads(infra, echo, attempt):
    errors: list[BaseException] = []

    def build(number: int) -> None:
        try:
            for _ in range(5):
                with infra.lab(f"lab{number}") as lab:
                    a, b, sw = lab.host("a"), lab.host("b"), lab.bridge("sw1")
                    lab.link(a, sw)
                    lab.link(b, sw)
                    for address in b.ports[0].addresses:
                        assert echo(a, address.ip) is not None
                    assert a.run(["echo", str(number)]).stdout == f"{number}\n"
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("attempt", range(5))
def test_one_lab_from_several_threads(lab, attempt):
    """Whoever looks first settles the lab; the others wait until it is whole."""
    sw = lab.bridge("sw1")
    hosts = [lab.host() for _ in range(8)]
    for host in hosts:
        lab.link(host, sw)
    start = threading.Barrier(len(hosts))
    seen: list[object] = []

    def look(host) -> None:
        start.wait()
        try:
            eth0 = host.interfaces["eth0"]
            seen.append((set(host.interfaces), eth0.carrier, host.run(["echo", host.name]).stdout))
        except (InfraError, KeyError) as error:
            seen.append(error)

    threads = [threading.Thread(target=look, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen, key=str) == sorted(
        [({"lo", "eth0"}, True, f"{host.name}\n") for host in hosts],
        key=str,
    )


def test_the_end_of_a_lab_while_a_thread_uses_it(infra, nothing_left):
    """Whoever is late gets an error of ours, and nobody hangs."""
    for _ in range(10):
        ends: list[object] = []
        with infra.lab() as lab:
            a, b = lab.host("a"), lab.host("b")
            lab.link(a, b)
            lab.up()
            started = threading.Barrier(4)

            def use(a=a, started=started, ends=ends) -> None:
                started.wait()
                try:
                    while True:
                        a.run(["true"], check=False)
                        a.call(int)
                        assert a.interfaces
                except (InfraError, OSError) as error:
                    ends.append(error)

            threads = [threading.Thread(target=use) for _ in range(3)]
            for thread in threads:
                thread.start()
            started.wait()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert len(ends) == 3, ends
