"""`assert_multipath`: a node with several next hops uses all of them, and each flow keeps its own (RFC 2992)."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..core.errors import BadInput, InfraError
from ..core.node import IPAddress, Node
from ..core.report import Report, explain
from ..core.sockets import close_in_background
from ..packet.statistics import chi_square_p
from .arguments import check_count, seconds
from .icmp import ip_header_bytes
from .tap import Tap
from .target import Target, choose_ends

__all__ = ["MultipathReport", "assert_multipath", "measure_multipath"]

_UNLIKELY = 1e-4
_FIRST_PORT, _PORT = 20_000, 9
_PACKETS = 2  # of each flow
_LEAST_EACH = 10
_AT_ONCE = 50  # flows between two looks: an ordinary user's socket has little room
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
    """Send UDP flows and report by which interfaces they leave; `assert_multipath` takes the same and judges."""
    ends, within_s = choose_ends(source, destination), seconds("within", within)
    node = ends.source if at is None else at
    mine = [port.name for port in node.ports]
    if len(interfaces) < 2 or any(name not in mine for name in interfaces):
        raise BadInput(f"interfaces are two or more of those of {node.name}: {', '.join(mine)}; got {interfaces!r}")
    if check_count(flows) < _LEAST_EACH * len(interfaces):
        raise BadInput(f"{flows} flows tell too little of {len(interfaces)} ways; try {_LEAST_EACH} for each")
    found: dict[str, set[int]] = {name: set() for name in interfaces}
    tap = node.call(Tap)
    try:
        for number in range(_PACKETS * flows):
            if number % flows % _AT_ONCE == 0:
                _look(tap, ends.address, flows, found)
            ends.source.call(_send_one, ends.bind_to or "", str(ends.address), _FIRST_PORT + number % flows)
        deadline = time.monotonic() + within_s
        while tap.wait(min(_QUIET_S, deadline - time.monotonic())):
            _look(tap, ends.address, flows, found)
        if tap.lost():
            raise InfraError(f"there was too much traffic in {node.name} to see by which links the flows leave")
    finally:
        close_in_background([tap])
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


def _send_one(own: str, address: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((own, port))
        sock.sendto(b"x", (address, _PORT))


def _look(tap: Tap, address: IPAddress, flows: int, found: Mapping[str, set[int]]) -> None:
    """Note the source ports of the flows that have left by one of the interfaces since."""
    for frame in tap.frames():
        if frame.outgoing and frame.interface in found:
            port = _source_port(frame.payload, address)
            if _FIRST_PORT <= port < _FIRST_PORT + flows:
                found[frame.interface].add(port)


def _source_port(packet: bytes, address: IPAddress) -> int:
    """The source port of a UDP packet to an address; 0 of any other packet."""
    at, protocol = ip_header_bytes(packet) or (0, 0)
    to = packet[16:20] if address.version == 4 else packet[24:40]
    if protocol != socket.IPPROTO_UDP or packet[0] >> 4 != address.version or to != address.packed:
        return 0
    return int.from_bytes(packet[at : at + 2], "big")


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
