"""Faults drawn at random, at random places of a lab of six nodes: the autopsy names kind and node of each.

A seed draws ten different faults, each of which gets a lab of its own that worked before. `INFRA_FAULT_SEEDS` says how
many seeds: ``INFRA_FAULT_SEEDS=20 pytest tests/failures/test_seeded_faults.py``; with `INFRA_EVERY_FAULT` set, every
fault is also tried at every one of its places.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from breaking import nft, sh

from pytest_infra.checks import assert_reachable, measure_reach
from pytest_infra.core.process import run
from pytest_infra.lab import Lab
from pytest_infra.session import Infra

SEEDS = int(os.environ.get("INFRA_FAULT_SEEDS", "2"))
FAULTS_OF_A_SEED = 10
TCP = {"protocol": "tcp", "port": 80}
LARGE = {"size": 1400, "dont_fragment": True}


@dataclass
class Six:
    """a - sw1 (Open vSwitch) - r1 - r2 - sw2 (Linux bridge) - b."""

    lab: Lab
    sockets: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        lab = self.lab
        self.sw1, self.sw2 = lab.ovs("sw1"), lab.bridge("sw2")
        a, b, r1, r2 = lab.host("a"), lab.host("b"), lab.router("r1"), lab.router("r2")
        lab.link(a, self.sw1, ip="10.0.0.1/24")
        lab.link(r1, self.sw1, ip="10.0.0.2/24")
        lab.link(r1, r2, ip="10.0.1.1/24", peer_ip="10.0.1.2/24")
        lab.link(r2, self.sw2, ip="10.0.2.1/24")
        lab.link(b, self.sw2, ip="10.0.2.2/24")

    def __getitem__(self, name: str) -> Any:
        return self.lab.nodes[name]

    @property
    def b(self) -> Any:
        return self["b"]

    def in_switch(self, command: str) -> None:
        """Run a command in the namespace of sw2."""
        self.sw2.namespace.call(run, command.split())

    def listen(self, family: int, address: str, backlog: int = 8) -> None:
        def make() -> socket.socket:
            sock = socket.socket(family)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, 80))
            sock.listen(backlog)
            return sock

        self.sockets.append(self.b.call(make))


@dataclass(frozen=True)
class Fault:
    """One way to break a lab at one of several places, and what the autopsy should name."""

    kind: str
    breaks: Callable[[Six, str], object]
    places: Sequence[str]
    at: str = ""
    """The node to be named; by default the place's own."""
    options: dict[str, Any] = field(default_factory=dict)

    def node(self, place: str) -> str:
        return self.at or place.split(":", maxsplit=1)[0]


PORTS = ("a:0", "r1:0", "r1:1", "r2:0", "r2:1", "b:0")
ADDRESSES = {
    "a:0": "10.0.0.1",
    "r1:0": "10.0.0.2",
    "r1:1": "10.0.1.1",
    "r2:0": "10.0.1.2",
    "r2:1": "10.0.2.1",
    "b:0": "10.0.2.2",
}
BEFORE = {"r1": "a", "r2": "r1", "b": "r2"}
ROUTES = {"a": "default", "r1": "10.0.2.0/24", "r2": "10.0.0.0/24", "b": "default"}
HOOKS = {"a": "output", "r1": "forward", "r2": "forward", "b": "input"}
BACK_ASTRAY = {"r1": "10.0.0.1/32 via 10.0.1.2", "r2": "10.0.0.1/32 via 10.0.2.2"}
IN_CIRCLES = {"r1": "10.0.0.1/32 via 10.0.1.2", "r2": "10.0.2.2/32 via 10.0.1.1"}


def interface(place: str) -> str:
    return f"eth{place.split(':')[1]}"


def do(lab: Six, place: str, command: str) -> None:
    """Run a command at a place; ``{dev}`` and ``{ip}`` are the interface's."""
    name = place.split(":", maxsplit=1)[0]
    words = {"dev": interface(place), "ip": ADDRESSES[place]} if ":" in place else {}
    sh(lab[name], command.format(**words))


def unplug(lab: Six, place: str) -> None:
    """Another interface without a wire takes the name and the address of the one that has one."""
    do(lab, place, "ip address del {ip}/24 dev {dev}")
    for command in ("set {dev} down", "set {dev} name old"):
        do(lab, place, f"ip link {command}")
    do(lab, place, "ip link set old up")
    do(lab, place, "ip tuntap add {dev} mode tap")
    do(lab, place, "ip link set {dev} up")
    do(lab, place, "ip address add {ip}/24 dev {dev}")


def hide(lab: Six, place: str) -> None:
    """The node answers no ARP, and nobody remembers it."""
    lab[place].sysctl["net.ipv4.conf.all.arp_ignore"] = "8"
    do(lab, BEFORE[place], "ip neighbour flush all")


def filter_return_path(lab: Six, place: str) -> None:
    lab[place].sysctl["net.ipv4.conf.eth0.rp_filter"] = "1"
    do(lab, place, f"ip route add {BACK_ASTRAY[place]}")


def translate(lab: Six, place: str) -> None:
    router = lab[place]
    router.run(["nft", "add table ip n"])
    router.run(["nft", "add chain ip n c { type nat hook postrouting priority 100; }"])
    router.run(["nft", "add rule ip n c snat to 10.9.9.9"])


def choose_another_source(lab: Six, place: str) -> None:
    do(lab, place, "ip address add 10.7.7.7/32 dev lo")
    do(lab, place, "ip route replace default via 10.0.0.2 src 10.7.7.7")


def fill_backlog(lab: Six, _: str) -> None:
    lab.listen(socket.AF_INET, "10.0.2.2", backlog=1)
    for _ in range(2):
        lab.sockets.append(lab["a"].call(socket.create_connection, ("10.0.2.2", 80), 5))


def kill_server(lab: Six, _: str) -> None:
    server = lab.b.spawn(
        [sys.executable, "-c", "import socket\ns = socket.create_server(('', 80))\nwhile True: s.accept()"]
    )
    assert_reachable(lab["a"], lab.b, protocol="tcp", port=80, within="30 s")
    os.kill(server.pid, signal.SIGKILL)
    server.wait(30)


def without_flows(lab: Six, place: str) -> None:
    """Only what comes in by one port of sw1 is switched, and ARP."""
    lab.sw1.ofctl(["del-flows", "sw1"])
    lab.sw1.add_flow(f"in_port=sw1-{'p2' if place == 'p1' else 'p1'},actions=NORMAL")
    lab.sw1.add_flow("arp,actions=NORMAL")


FAULTS = [
    Fault("interface-down", lambda lab, place: do(lab, place, "ip link set {dev} down"), PORTS),
    Fault(
        "interface-down",
        lambda lab, place: lab.in_switch(f"ip link set {place} down"),
        ("sw2-p1", "sw2-p2"),
        at="sw2",
    ),
    Fault("interface-gone", lambda lab, place: do(lab, place, "ip link set {dev} down name lost"), PORTS),
    Fault("no-carrier", unplug, PORTS),
    Fault("address-gone", lambda lab, place: do(lab, place, "ip address del {ip}/24 dev {dev}"), PORTS),
    Fault("no-route", lambda lab, place: do(lab, place, f"ip route del {ROUTES[place]}"), tuple(ROUTES)),
    Fault(
        "blackhole-route",
        lambda lab, place: do(lab, place, f"ip route replace blackhole {ROUTES[place]}"),
        ("r1", "r2"),
    ),
    Fault(
        "wrong-gateway",
        lambda lab, place: do(lab, place, f"ip route replace {ROUTES[place]} via 10.0.1.9"),
        ("r1", "r2"),
    ),
    Fault("routing-loop", lambda lab, place: do(lab, place, f"ip route add {IN_CIRCLES[place]}"), ("r1", "r2")),
    Fault("wrong-source", choose_another_source, ("a",), at="r2"),
    Fault("arp-ignored", hide, tuple(BEFORE)),
    Fault(
        "neighbour-wrong",
        lambda lab, place: do(
            lab, place, f"ip neighbour replace {ADDRESSES[NEXT[place]]} lladdr 02:00:00:00:00:99 dev {interface(place)}"
        ),
        ("a:0", "r1:1", "r2:1"),
    ),
    Fault("forwarding-off", lambda lab, place: lab[place].sysctl.update({"net.ipv4.ip_forward": "0"}), ("r1", "r2")),
    Fault("rp-filter", filter_return_path, ("r1", "r2")),
    Fault("filtered", lambda lab, place: nft(lab[place], HOOKS[place], "ip protocol icmp drop"), tuple(HOOKS)),
    Fault(
        "filtered",
        lambda lab, place: nft(lab[place], "forward", "icmp type echo-reply counter reject"),
        ("r1", "r2"),
    ),
    Fault(
        "flow-drops",
        lambda lab, place: lab.sw1.add_flow(f"priority=100,in_port=sw1-{place},icmp,actions=drop"),
        ("p1", "p2"),
        at="sw1",
    ),
    Fault("no-flow", without_flows, ("p1", "p2"), at="sw1"),
    Fault("vlan", lambda lab, place: lab.sw1.vsctl(["set", "port", place, "tag=10"]), ("sw1-p1", "sw1-p2"), at="sw1"),
    Fault(
        "port-blocked",
        lambda lab, place: lab.in_switch(f"bridge link set dev {place} state 0"),
        ("sw2-p1", "sw2-p2"),
        at="sw2",
    ),
    Fault(
        "not-a-port",
        lambda lab, place: lab.in_switch(f"ip link set {place} nomaster"),
        ("sw2-p1", "sw2-p2"),
        at="sw2",
    ),
    Fault(
        "mtu-too-small",
        lambda lab, place: do(lab, place, "ip link set {dev} mtu 1300"),
        ("a:0", "r1:1", "r2:1"),
        options=LARGE,
    ),
    Fault(
        "mtu-mismatch",
        lambda lab, place: do(lab, place, "ip link set {dev} mtu 1300"),
        ("r1:0", "r2:0", "b:0"),
        options=LARGE,
    ),
    Fault("nat-no-return", translate, ("r1",), at="r2"),
    Fault(
        "duplicate-address",
        lambda lab, place: do(lab, place, "ip address add 10.0.0.1/32 dev lo"),
        ("r1", "r2"),
    ),
    Fault("echo-ignored", lambda lab, place: lab[place].sysctl.update({"net.ipv4.icmp_echo_ignore_all": "1"}), ("b",)),
    Fault("port-closed", lambda lab, place: None, ("b",), options=TCP),
    Fault("server-ended", kill_server, ("b",), options=TCP),
    Fault("port-elsewhere", lambda lab, _: lab.listen(socket.AF_INET, "127.0.0.1"), ("b",), options=TCP),
    Fault("port-other-family", lambda lab, _: lab.listen(socket.AF_INET6, "::"), ("b",), options=TCP),
    Fault("backlog-full", fill_backlog, ("b",), options=TCP),
]
NEXT = {"a:0": "r1:0", "r1:1": "r2:0", "r2:1": "b:0"}


def named(session: Infra, fault: Fault, place: str) -> str:
    """Break a lab; empty where the autopsy names the fault, else what it says."""
    with session.lab("six") as lab:
        six = Six(lab)
        try:
            assert_reachable(six["a"], six.b, within="10 s")
            fault.breaks(six, place)
            report = measure_reach(six["a"], six.b, within="200 ms", **fault.options)
            finding = report.autopsy.finding if report.autopsy else None
            found = (finding.kind, finding.node) if finding else None
            wanted = (fault.kind, fault.node(place))
            return "" if found == wanted else f"{wanted} at {place} was named {found}:\n{report.explain()}"
        finally:
            for sock in six.sockets:
                sock.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_ten_faults_are_named(session: Infra, seed: int) -> None:
    drawn = random.Random(seed)
    faults = [(fault, drawn.choice(fault.places)) for fault in drawn.sample(FAULTS, FAULTS_OF_A_SEED)]
    wrong = [said for fault, place in faults if (said := named(session, fault, place))]
    assert not wrong, f"{FAULTS_OF_A_SEED - len(wrong)} of {FAULTS_OF_A_SEED} were named:\n" + "\n\n".join(wrong)


if "INFRA_EVERY_FAULT" in os.environ:  # takes minutes

    @pytest.mark.parametrize(
        ("fault", "place"),
        [pytest.param(fault, place, id=f"{fault.kind}-{place}") for fault in FAULTS for place in fault.places],
    )
    def test_every_fault_at_every_place(session: Infra, fault: Fault, place: str) -> None:
        assert not named(session, fault, place)
