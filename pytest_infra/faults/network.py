"""Faults of a network: of links, of addresses, of routes, and of the daemons that make these."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, cycle
from typing import Any

from ..core.errors import BadInput, StartFailed
from ..core.fault import noted
from ..core.requirement import Command
from ..core.units import duration_s

__all__ = [
    "blackhole",
    "cut",
    "daemon_down",
    "delay_step",
    "duplicate_address",
    "flapping",
    "moved_mac",
    "one_way",
    "partition",
]

_IP = Command("ip", purpose="faults of routes and addresses", packages={
    "apt": "iproute2", "dnf": "iproute", "pacman": "iproute2", "apk": "iproute2"})  # fmt: skip


def _unless_ended(undo: Callable[..., object], *args: object) -> None:
    """Undo something; where the lab has ended before, it is gone already."""
    with suppress(StartFailed):
        undo(*args)


@contextmanager
def cut(*links: Any) -> Iterator[None]:
    """Links that are down meanwhile; afterwards the ends that were up are so again, with their addresses and routes.

    Raises:
        BadInput: none is given.
    """
    if not links:
        raise BadInput("cut takes the links that are to be down")
    with ExitStack() as undo:
        undo.enter_context(noted(f"cut {', '.join(map(str, links))}", _ends(links)))
        for link in links:
            were_up = [port for port in link.ports if port.interface.up]
            undo.callback(_unless_ended, _set_up, were_up)
            link.down()
        yield


def _ends(links: Sequence[Any]) -> list[Any]:
    return [port.node for link in links for port in link.ports]


def _set_up(ports: Sequence[Any]) -> None:
    for port in ports:
        port.set_state(True)
    for port in ports:
        port.restore(port)


@contextmanager
def flapping(link: Any, *, down: str | float = "100 ms", up: str | float = "100 ms") -> Iterator[None]:
    """A link that goes down and comes up again, over and over; it begins down, and is afterwards as it was.

    Args:
        link: which one.
        down: how long it is down each time.
        up: how long it is up each time.
    """
    steps = [(link.down, duration_s(down)), (link.up, duration_s(up))]
    ended = threading.Event()

    def flap() -> None:
        for step, time_s in cycle(steps):
            step()
            if ended.wait(time_s):
                return

    with noted(f"flapping {link}", _ends([link])), cut(link), _meanwhile(flap, ended):
        yield


@contextmanager
def _meanwhile(function: Callable[[], None], ended: threading.Event) -> Iterator[None]:
    """Run a function in a thread until the end; its error is raised then, unless the lab has ended."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            function()
        except StartFailed:  # the lab has ended
            pass
        except Exception as error:  # noqa: BLE001 - raised where it can be seen
            failed.append(error)

    thread = threading.Thread(target=run, name="infra-fault", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failed:
        raise failed[0]


@contextmanager
def delay_step(link: Any, delay: str | float, *, toward: Any = None) -> Iterator[None]:
    """A link that is slower meanwhile, as when its traffic takes another way; afterwards as it was before.

    Args:
        link: which one.
        delay: how much later each frame arrives; it takes the place of the delay that it has.
        toward: one end's node: only what goes to it is slower.

    Raises:
        BadInput: a delay that cannot be, or a node that is no end of the link.
        Unavailable: the machine can delay nothing.
    """
    with link.impair(delay=delay, toward=toward), noted(f"delay_step {delay} on {link}", _ends([link])):
        yield


@contextmanager
def daemon_down(router: Any, name: str) -> Iterator[None]:
    """A routing daemon that has crashed (SIGKILL), with its routes left behind; afterwards it is started anew.

    Args:
        router: one with routing daemons.
        name: the daemon, such as ``"ospfd"``.

    Raises:
        BadInput: it is none of this router's.
    """
    if not hasattr(router, "kill_daemon"):
        raise BadInput(f"{router.name} has no routing daemons: lab.router(daemons=[...])")
    router.kill_daemon(name)
    try:
        with noted(f"daemon_down {name} of {router.name}", [router]):
            yield
    finally:
        _unless_ended(router.restart_daemon, name)


@contextmanager
def partition(*groups: Sequence[Any]) -> Iterator[None]:
    """Groups of nodes between which no IP packet passes meanwhile; within a group, and to others, all do.

    Each node drops what comes from a node of another group, by its addresses of now, the link-local ones of
    IPv6 included (nftables, a table ``infra-partition-NUMBER`` for each use).

    Args:
        groups: two or more lists of nodes.

    Raises:
        BadInput: fewer groups, or a node in two of them.
        Unavailable: nft is not installed.
    """
    nodes = [node for group in groups for node in group]
    if len(groups) < 2 or not all(groups):
        raise BadInput("partition takes two or more lists of nodes: partition([a, b], [c])")
    if len({id(node) for node in nodes}) < len(nodes):
        raise BadInput("a node is in two groups of a partition")
    words = " | ".join(", ".join(node.name for node in group) for group in groups)
    with ExitStack() as undo:
        undo.enter_context(noted(f"partition {words}", nodes))
        for group in groups:
            others = [node for node in nodes if node not in group]
            for node in group:
                undo.enter_context(_deaf(node, others, "infra-partition"))
        yield


@contextmanager
def one_way(source: Any, destination: Any) -> Iterator[None]:
    """IP packets from one node to another are lost meanwhile; those of the other direction are not.

    Raises:
        Unavailable: nft is not installed.
    """
    what = noted(f"one_way {source.name} -> {destination.name}", [source, destination])
    with what, _deaf(destination, [source], "infra-one-way"):
        yield


@contextmanager
def _deaf(node: Any, others: Sequence[Any], purpose: str) -> Iterator[None]:
    """A node that drops what comes from others, before anything else of it sees it."""
    addresses = [address for other in others for address in _sends_from(other)]
    rules = []
    for version, family in ((4, "ip"), (6, "ip6")):
        if mine := sorted({str(address).partition("%")[0] for address in addresses if address.version == version}):
            rules.append(f"    {family} saddr {{ {', '.join(mine)} }} counter drop")
    if not rules:
        raise BadInput(f"none of {', '.join(other.name for other in others)} has an address")
    own = node.own_tables
    table = next(name for number in count(1) if f"inet {(name := f'{purpose}-{number}')}" not in own)
    chain = "\n".join(["    type filter hook prerouting priority -400; policy accept;", *rules])
    own.keep(f"inet {table}", f"table inet {table} {{\n  chain {table} {{\n{chain}\n  }}\n}}\n")
    try:
        yield
    finally:
        _unless_ended(own.drop, f"inet {table}")


def _sends_from(node: Any) -> list[Any]:
    """The addresses that the lab gave a node, or else those it has, and what it calls itself on each wire."""
    planned = [ip.ip for port in node.ports for ip in port.addresses]
    there = [item.ip.ip for item in node.addresses if not item.ip.ip.is_loopback]
    return planned + [address for address in there if address.is_link_local or not planned]


@contextmanager
def blackhole(node: Any, destination: Any) -> Iterator[None]:
    """A node that throws away what it would send or forward to a destination (ip-route(8), type ``blackhole``).

    Args:
        node: where.
        destination: a node, whose addresses are meant, or a prefix: ``"10.0.0.0/8"``.

    Raises:
        BadInput: no such prefix, a node without addresses, or a route to just that is there already.
    """
    targets = [destination] if isinstance(destination, str) else [
        f"{ip.ip}/{ip.ip.max_prefixlen}" for port in destination.ports for ip in port.addresses
    ]  # fmt: skip
    if not targets:
        raise BadInput(f"no black hole for {destination.name} in {node.name}: the lab gave it no address")
    with ExitStack() as undo:
        undo.enter_context(noted(f"blackhole {', '.join(targets)} in {node.name}", [node]))
        for target in targets:
            added = node.run([_IP.path(), "route", "add", "blackhole", target], check=False)
            if added.returncode:
                raise BadInput(f"no black hole for {target} in {node.name}: {added.stderr.strip()}")
            undo.callback(_unless_ended, node.run, [_IP.path(), "route", "del", "blackhole", target])
        yield


@contextmanager
def duplicate_address(node: Any, victim: Any) -> Iterator[None]:
    """A node that has the first IPv4 address of another one too meanwhile, and says so to its neighbours.

    Args:
        node: who takes the address, on its first port.
        victim: whose address it is.

    Raises:
        BadInput: one of them has no port with an IPv4 address.
    """
    mine, theirs = (_first_port(one) for one in (node, victim))
    address = next(ip for ip in theirs.addresses if ip.version == 4)
    node.run([_IP.path(), "address", "add", str(address), "dev", mine.name])
    try:
        node.call(_announce, mine.name, mine.mac, address.ip.packed)
        with noted(f"duplicate_address {address.ip} of {victim.name} in {node.name}", [node, victim]):
            yield
    finally:
        _unless_ended(node.run, [_IP.path(), "address", "del", str(address), "dev", mine.name])
        _unless_ended(victim.call, _announce, theirs.name, theirs.mac, address.ip.packed)


@contextmanager
def moved_mac(node: Any, victim: Any, *, every: str | float = "20 ms") -> Iterator[None]:
    """A node that sends frames with another one's MAC address: the switch between them learns it at the wrong port.

    Each frame of the victim's brings it back, until the next one here: as when a machine is moved, or by a loop.

    Args:
        node: who sends, on its first port.
        victim: whose address it is, that of its first port.
        every: how often.

    Raises:
        BadInput: one of them has no port with an IPv4 address.
    """
    mine, theirs = (_first_port(one) for one in (node, victim))
    address = next(ip for ip in theirs.addresses if ip.version == 4).ip.packed
    pause_s, ended = duration_s(every), threading.Event()

    def send() -> None:
        while True:
            node.call(_announce, mine.name, theirs.mac, address)
            if ended.wait(pause_s):
                return

    try:
        with noted(f"moved_mac {theirs.mac} of {victim.name} to {node.name}", [node, victim]), _meanwhile(send, ended):
            yield
    finally:
        _unless_ended(victim.call, _announce, theirs.name, theirs.mac, address)


def _first_port(node: Any) -> Any:
    for port in node.ports:
        if any(ip.version == 4 for ip in port.addresses):
            return port
    raise BadInput(f"{node.name} has no port with an IPv4 address")


def _announce(interface: str, mac: str, address: bytes) -> None:
    """Send a gratuitous ARP request (RFC 5227 section 3): whoever knows the address learns the new owner."""
    import socket

    hardware = bytes.fromhex(mac.replace(":", ""))
    arp = b"\0\1\x08\0\6\4\0\1" + hardware + address + b"\0" * 6 + address
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0x0806))
        raw.send(b"\xff" * 6 + hardware + b"\x08\x06" + arp.ljust(46, b"\0"))
