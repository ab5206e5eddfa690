"""`assert_multipath`: a node with several next hops uses all of them, and each flow keeps its own (RFC 2992)."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from ..core.errors import BadInput
from ..core.node import IPAddress, Node
from ..core.report import Report, explain
from ..packet.statistics import chi_square_p
from .arguments import check_count, seconds
from .target import Target, choose_ends

__all__ = ["MultipathReport", "assert_multipath", "measure_multipath"]

_UNLIKELY = 1e-4
_FIRST_PORT, _PORT = 20_000, 9
_ETH_P_ALL = 3
_OUTGOING = 4  # PACKET_OUTGOING (packet(7))
_PACKETS = 2  # of each flow
_LEAST_EACH = 10
_SO_RCVBUFFORCE, _BUFFER_BYTES = 33, 64 << 20  # asm-generic/socket.h; packets wait until all were sent
_HEADERS = 128
_QUIET_S = 0.3


@dataclass(frozen=True)
class MultipathReport(Report):
    """By which links a node sends the flows that it could send by each of them."""

    kind: ClassVar[str] = "multipath"

    source: str
    destination: str
    at: str
    """Where the ways divide."""
    flows: Mapping[str, int]
    """How many flows left by each interface."""
    split: int
    """Flows of which packets left by more than one."""
    sent: int
    setting: str
    """The kernel's rule: ``addresses`` or ``addresses and ports`` (fib_multipath_hash_policy); empty if unknown."""

    @property
    def seen(self) -> int:
        """How many flows left by any of the links."""
        return sum(self.flows.values()) - self.split

    @property
    def p(self) -> float:
        """How likely a spread at least as uneven is, if each flow may take each link (chi-square)."""
        counts = list(self.flows.values())
        return chi_square_p(counts, [1.0] * len(counts)) if len(counts) > 1 and any(counts) else 0.0

    @property
    def ok(self) -> bool:
        """Whether all flows were seen, by all links alike, each by one of them."""
        return self.seen == self.sent and not self.split and all(self.flows.values()) and self.p >= _UNLIKELY

    def explain(self) -> str:
        """How many flows went where."""
        spread = ", ".join(f"{count} by {self.at}:{name}" for name, count in self.flows.items())
        pair = f"{self.source} to {self.destination}"
        if self.ok:
            return explain(f"{pair}: {self.sent} flows take {len(self.flows)} ways: {spread}", [])
        verdict = (
            f"{pair}: the flows do not take all ways alike" if not self.split else f"{pair}: flows change their way"
        )
        rows = [
            ("measured", f"{self.seen} of {self.sent} flows seen: {spread}; {self.split} by more than one"),
            ("wanted", "each flow by one link, and as many by each link as by any other"),
            ("cause", self._cause()),
            ("next", f"look at ip route, and at net.ipv4.fib_multipath_hash_policy, in {self.at}"),
        ]
        return explain(verdict, rows)

    def _cause(self) -> str:
        if self.seen < self.sent:
            return f"some flows do not come by, or leave {self.at} by another link"
        if self.split:
            return f"{self.at} chooses a way for each packet, not for each flow"
        idle = [name for name, count in self.flows.items() if not count]
        if idle and self.setting == "addresses":
            return (
                f"no flow leaves by {', '.join(idle)}: {self.at} looks at addresses only, which are the same in all "
                "flows (fib_multipath_hash_policy = 0), or its route has no such next hop"
            )
        if idle:
            return f"no flow leaves by {', '.join(idle)}: the route has no such next hop, or that one is down"
        return "the next hops have different weights, or there are other routes"


def measure_multipath(
    source: Node | tuple[Node, Any],
    destination: Target,
    interfaces: Sequence[str],
    *,
    at: Node | None = None,
    flows: int = 100,
    within: str | float = "2 s",
) -> MultipathReport:
    """Send UDP flows that differ in their source port, two packets each, and see by which interfaces they leave.

    Args:
        source: sends; a node, or a node and its address.
        destination: a node or an address.
        interfaces: the ways that they may take, by the names of interfaces of `at`.
        at: where the ways divide; the source by default.
        flows: how many, at least 10 for each way.
        within: how long to look for them.

    Raises:
        BadInput: an argument that cannot be.
    """
    ends, within_s = choose_ends(source, destination), seconds("within", within)
    node = ends.source if at is None else at
    mine = [port.name for port in node.ports]
    if len(interfaces) < 2 or any(name not in mine for name in interfaces):
        raise BadInput(f"interfaces are two or more of those of {node.name}: {', '.join(mine)}; got {interfaces!r}")
    if check_count(flows) < _LEAST_EACH * len(interfaces):
        raise BadInput(f"{flows} flows tell too little of {len(interfaces)} ways; try {_LEAST_EACH} for each")
    with ExitStack() as stack:
        socks = {name: stack.enter_context(node.call(_watch, name)) for name in interfaces}
        ends.source.call(_send_flows, ends.bind_to or "", str(ends.address), flows)
        deadline = time.monotonic() + within_s
        found = {name: _flows(sock, ends.address, flows, deadline) for name, sock in socks.items()}
    every = [flow for seen in found.values() for flow in seen]
    return MultipathReport(
        ends.source.name,
        ends.destination_name,
        node.name,
        {name: len(seen) for name, seen in found.items()},
        len(every) - len(set(every)),
        flows,
        _setting(node, ends.address.version),
    )


def _setting(node: Node, version: int) -> str:
    name = f"net.ipv{version}.fib_multipath_hash_policy"
    value = node.call(_read, name)
    return {"0": "addresses", "1": "addresses and ports"}.get(value, value)


def _read(name: str) -> str:
    try:
        with open("/proc/sys/" + name.replace(".", "/"), encoding="ascii") as file:
            return file.read().strip()
    except OSError:  # another operating system's, or a kernel without multipath
        return ""


def _watch(interface: str) -> socket.socket:
    """A socket that sees what leaves by an interface of the calling thread's namespace."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.bind((interface, _ETH_P_ALL))
    except BaseException:
        sock.close()
        raise
    return sock


def _send_flows(own: str, address: str, flows: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(_PACKETS):
        for number in range(flows):
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind((own, _FIRST_PORT + number))
                sock.sendto(b"x", (address, _PORT))


def _flows(sock: socket.socket, address: IPAddress, flows: int, deadline: float) -> set[int]:
    """The source ports of the flows that left, until none has come for a while."""
    seen: set[int] = set()
    while True:
        sock.settimeout(max(min(_QUIET_S, deadline - time.monotonic()), 0.001))
        try:
            data, origin = sock.recvfrom(_HEADERS)
        except TimeoutError:
            return seen
        port = _source_port(data, address) if origin[2] == _OUTGOING else 0
        if _FIRST_PORT <= port < _FIRST_PORT + flows:
            seen.add(port)
        if time.monotonic() > deadline:
            return seen


def _source_port(data: bytes, address: IPAddress) -> int:
    """The source port of a UDP packet to an address, after RFC 791 or RFC 8200; 0 of any other packet."""
    if not data or data[0] >> 4 != address.version:
        return 0
    ipv4 = address.version == 4
    at, protocol, to = ((data[0] & 15) * 4, data[9:10], data[16:20]) if ipv4 else (40, data[6:7], data[24:40])
    if protocol != bytes([socket.IPPROTO_UDP]) or to != address.packed:
        return 0
    return int.from_bytes(data[at : at + 2], "big")


def assert_multipath(
    source: Node | tuple[Node, Any],
    destination: Target,
    interfaces: Sequence[str],
    *,
    at: Node | None = None,
    flows: int = 100,
    within: str | float = "2 s",
) -> MultipathReport:
    """Check that flows which could go several ways take all of them, and that each keeps to its own.

    Args:
        source: sends; a node, or a node and its address.
        destination: a node or an address.
        interfaces: the ways that they may take, by the names of interfaces of `at`.
        at: where the ways divide; the source by default.
        flows: how many, at least 10 for each way; they differ in their source port.
        within: how long to look for them.

    Raises:
        BadInput: an argument that cannot be.
        CheckFailed: a flow changed its way, or the spread is one that chance gives in less than 1 of 10,000 runs.
    """
    __tracebackhide__ = True
    report = measure_multipath(source, destination, interfaces, at=at, flows=flows, within=within)
    report.demand()
    return report
