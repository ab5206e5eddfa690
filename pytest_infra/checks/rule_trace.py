"""`RuleTrace`: which rule of nftables drops a packet, by the kernel's own trace of it (nft(8), ``meta nftrace``).

While it is open, a table of its own in each of the nodes marks packets to be traced; the kernel then tells every rule
that such a packet meets. The table goes when it closes; should pytest die in between, it goes with the namespace.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from ..core.requirement import find_program
from .answer import Carried
from .icmp import ip_header_bytes

__all__ = ["RuleDrop", "RuleTrace", "Traced", "list_rules"]

T = TypeVar("T")

_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTRACE = 12, 270, 1, 9
_GET_TABLE, _NEW_TABLE, _TRACE = 0x0A01, 0x0A00, 0x0A11
_REQUEST_DUMP, _DONE = 0x301, 3
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _ID, _NETWORK, _TRANSPORT, _FAMILY, _POLICY = 1, 2, 3, 4, 5, 6, 8, 9, 15, 16
_OF_POLICY, _OF_RULE = 1, 3
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_DROP = 0
_OWN_TABLE = "pytest_infra_trace"
_FIRST = "priority -2147483647; meta nftrace set 1;"
_HOOKS = {
    "inet": ("prerouting", "output"),
    "arp": ("input", "output"),
    "netdev": ("ingress devices = {%s}",),
    "bridge": ("prerouting", "output"),
}
"""Where packets are marked, by family: what a family's rules drop, those of the others may never see."""
_TUNNELS = {4789: "VXLAN packet", 6081: "Geneve packet", -socket.IPPROTO_GRE: "GRE packet"}
_ARP_FOR_IPV4, _ARP_FOR_IPV4_IEEE = bytes.fromhex("000108000604"), bytes.fromhex("000608000604")
_RECEIVE_BYTES = 1 << 16
_TIMEOUT_S = 5.0
_DROPPING = re.compile(r"\b(drop|reject|v?map|queue|synproxy|tproxy)\b")
_READ_S = 0.3  # where others send without end, the kernel tells of their packets without end


class Traced(Protocol):
    """What has rules: a node, or a Linux bridge."""

    @property
    def name(self) -> str:
        """The name by which a drop is told."""
        ...

    @property
    def interfaces(self) -> Mapping[str, object]:
        """The interfaces of its network namespace, by name."""
        ...

    def call(self, function: Callable[..., T], /, *arguments: Any, **options: Any) -> T:
        """Call a function in its network namespace."""
        ...


@dataclass(frozen=True)
class RuleDrop:
    """A rule, or the policy of a chain, that dropped a packet."""

    node: str
    what: str
    """``request`` or ``reply``; of what it needs besides, ``ARP request``, ``VXLAN packet`` …"""
    family: str
    table: str
    chain: str
    rule: str
    """The rule as ``nft -s list ruleset`` writes it; empty where the chain's policy dropped the packet."""
    handle: int = 0

    def __str__(self) -> str:
        where = f"chain {self.chain} of table {self.family} {self.table}"
        return f"the rule '{self.rule}' ({where}, handle {self.handle})" if self.rule else f"the policy of {where}"


@dataclass(frozen=True)
class _Step:
    """One message of a trace."""

    id: int
    family: int
    table: str
    chain: str
    kind: int
    handle: int
    drops: bool
    packet: bytes


class RuleTrace:
    """Traces packets through the rules of those nodes that have any. Enter it before the packet is sent.

    Args:
        nodes: the nodes on the packet's way.
        carried_by: what an IP packet has to do with the probe.
    """

    def __init__(self, nodes: Iterable[Traced], carried_by: Callable[[bytes], Carried]) -> None:
        self._nodes = list({id(node): node for node in nodes}.values())
        self._carried_by = carried_by
        self._open: list[tuple[Traced, socket.socket, list[str]]] = []
        self._stack = ExitStack()
        self._nft = ""
        self.blind: list[str] = []
        """What could not be looked at, and why."""

    @property
    def watching(self) -> bool:
        """Whether any of the nodes has rules that are traced."""
        return bool(self._open)

    def __enter__(self) -> RuleTrace:
        with ExitStack() as stack:
            for node in self._nodes:
                try:
                    if families := node.call(_families):
                        self._watch(node, families, stack)
                except Exception as error:  # noqa: BLE001 - it must not hide the failure that it is to explain
                    self.blind.append(f"the firewall rules of {node.name}: {error}")
            self._stack = stack.pop_all()
        return self

    def _watch(self, node: Traced, families: set[str], stack: ExitStack) -> None:
        self._nft = self._nft or find_program("nft") or ""
        if not self._nft:
            self.blind.append(f"the firewall rules of {node.name}: nft is not installed (apt-get install nftables)")
            return
        sock = stack.enter_context(node.call(_listen))
        stack.callback(self._delete)
        own = [family for family in _HOOKS if family == "inet" or family in families]
        devices = ", ".join(f'"{name}"' for name in node.interfaces) if "netdev" in own else ""
        node.call(_run_nft, self._nft, "-f", "-", words="".join(_own_table(family, devices) for family in own))
        self._open.append((node, sock, own))

    def _delete(self) -> None:
        """Take all tables away at once: the kernel needs some 20 ms for each."""
        opened, self._open = self._open, []
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        children = []
        for node, _, own in opened:
            words = "; ".join(f"delete table {family} {_OWN_TABLE}" for family in own)
            children.append(node.call(subprocess.Popen, [self._nft, words], **quiet))
        for child in children:
            child.wait()

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def drops(self) -> list[RuleDrop]:
        """The drops that the kernel has told of since, of packets that belong to the probe."""
        found: list[RuleDrop] = []
        for node, sock, _ in self._open:
            try:
                for drop in self._drops_of(node, sock):
                    found.append(drop)
            except Exception as error:  # noqa: BLE001
                self.blind.append(f"the firewall rules of {node.name}: {error}")
        return list(dict.fromkeys(found))

    def _drops_of(self, node: Traced, sock: socket.socket) -> Iterator[RuleDrop]:
        packets: dict[int, str | None] = {}
        for step in _steps(sock):
            if step.packet:
                packets[step.id] = self._carried_by(step.packet) or _besides(step.packet)
            if step.drops and (what := packets.get(step.id)) and step.table != _OWN_TABLE:
                yield self._drop(node, step, what)

    def _drop(self, node: Traced, step: _Step, what: str) -> RuleDrop:
        """Which rule it was. A trace tells the packet's family, while the table's own may be inet instead."""
        tables = node.call(_run_nft, self._nft, "list", "tables").splitlines()
        families = [_FAMILIES.get(step.family, "inet"), "inet"]
        found = []
        for family in (name for name in dict.fromkeys(families) if f"table {name} {step.table}" in tables):
            with suppress(OSError):  # that table has no such chain
                listing = node.call(_run_nft, self._nft, "-as", "list", "chain", family, step.table, step.chain)
                found.append((family, _rule(listing, step.handle), "policy drop;" in listing))
        drop = partial(RuleDrop, node.name, what, table=step.table, chain=step.chain)
        if step.kind == _OF_POLICY:
            return drop(family=next((name for name, _, drops in found if drops), families[-1]), rule="")
        fitting = [(family, rule) for family, rule, _ in found if _may_drop(rule)]
        family, rule = (fitting or [(family, rule) for family, rule, _ in found if rule] or [("inet", "")])[0]
        return drop(family=family, rule=rule or "a rule that is gone now", handle=step.handle)


def _may_drop(rule: str) -> bool:
    return bool(_DROPPING.search(rule))


def list_rules() -> list[str]:
    """The lines of the rule set of the calling thread's namespace; none where it has none, or nft is not installed."""
    nft = find_program("nft")
    return _run_nft(nft, "list", "ruleset").splitlines() if nft and _families() else []


def _rule(listing: str, handle: int) -> str:
    """The text of one rule in the output of ``nft -a list table``."""
    ending = f"# handle {handle}"
    for line in listing.splitlines():
        text, mark, _ = line.rpartition(ending)
        if mark and line.endswith(ending) and not text.rstrip().endswith("{"):
            return text.strip()
    return ""


def _run_nft(nft: str, *arguments: str, words: str | None = None) -> str:
    """Run nft in the namespace of the calling thread."""
    done = subprocess.run(
        [nft, *arguments], check=False, input=words or "", capture_output=True, text=True, timeout=_TIMEOUT_S
    )
    if done.returncode:
        raise OSError(f"nft {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _netfilter_socket() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    sock.bind((0, 0))
    return sock


def _listen() -> socket.socket:
    sock = _netfilter_socket()
    try:
        sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTRACE)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _families() -> set[str]:
    """The families of which the namespace of the calling thread has tables of nftables (iptables' among them)."""
    try:
        sock = _netfilter_socket()
    except OSError:  # a kernel without nftables
        return set()
    found: set[str] = set()
    with sock:
        sock.settimeout(_TIMEOUT_S)
        sock.send(struct.pack("=IHHIIBBH", 20, _GET_TABLE, _REQUEST_DUMP, 1, 0, 0, 0, 0))
        while True:
            data, offset = sock.recv(_RECEIVE_BYTES), 0
            while offset + 17 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind != _NEW_TABLE:
                    return found
                found.add(_FAMILIES.get(data[offset + 16], ""))
                offset += max((length + 3) & ~3, 20)


def _own_table(family: str, devices: str) -> str:
    """A table that has all packets traced which its family sees."""
    hooks = [hook % devices if "%" in hook else hook for hook in _HOOKS[family]]
    chains = [f"chain c{number} {{ type filter hook {hook} {_FIRST} }}" for number, hook in enumerate(hooks)]
    return f"table {family} {_OWN_TABLE} {{\n" + "\n".join(chains) + "\n}\n"


def _besides(packet: bytes) -> str:
    """What a probe needs besides itself, in words; empty where it is none of these.

    What asks for a neighbour, or answers that, by ARP (RFC 826) or IPv6 (RFC 4861); packets of VXLAN (RFC 7348), Geneve
    (RFC 8926) and GRE (RFC 2784).
    """
    if packet[:6] in (_ARP_FOR_IPV4, _ARP_FOR_IPV4_IEEE):
        return {1: "ARP request", 2: "ARP reply"}.get(int.from_bytes(packet[6:8], "big"), "")
    at, protocol = ip_header_bytes(packet) or (0, 0)
    transport = packet[at : at + 4]
    if not at or len(transport) < 4:
        return ""
    if protocol == socket.IPPROTO_ICMPV6:
        return {135: "neighbour solicitation", 136: "neighbour advertisement"}.get(transport[0], "")
    return _TUNNELS.get(int.from_bytes(transport[2:], "big") if protocol == socket.IPPROTO_UDP else -protocol, "")


def _steps(sock: socket.socket) -> Iterator[_Step]:
    """What the kernel has told so far.

    Raises:
        TimeoutError: it tells faster than it can be read.
    """
    deadline = time.monotonic() + _READ_S
    while True:
        if time.monotonic() > deadline:
            raise TimeoutError(f"other packets meet rules there without end; {_READ_S:g} s of them were looked at")
        try:
            data = sock.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # more than the buffer holds
            continue
        offset = 0
        while offset + 20 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if kind == _TRACE:
                yield _step(dict(_attributes(data[offset + 20 : offset + length])))
            offset += max((length + 3) & ~3, 20)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += max((length + 3) & ~3, 4)


def _step(found: Mapping[int, bytes]) -> _Step:
    kind = _number(found, _TYPE)
    verdict = dict(_attributes(found.get(_VERDICT, b"")))
    code = _number(verdict, 1) if kind != _OF_POLICY else _number(found, _POLICY)
    return _Step(
        id=_number(found, _ID),
        family=_number(found, _FAMILY),
        table=_text(found, _TABLE),
        chain=_text(found, _CHAIN),
        kind=kind,
        handle=_number(found, _HANDLE),
        drops=kind in (_OF_POLICY, _OF_RULE) and code & 0xFF == _DROP and code < 1 << 31 and _told(kind, found),
        packet=found.get(_NETWORK, b"") + found.get(_TRANSPORT, b""),
    )


def _told(kind: int, found: Mapping[int, bytes]) -> bool:
    return (_POLICY if kind == _OF_POLICY else _VERDICT) in found


def _number(found: Mapping[int, bytes], key: int) -> int:
    return int.from_bytes(found.get(key, b""), "big")


def _text(found: Mapping[int, bytes], key: int) -> str:
    return found.get(key, b"").rstrip(b"\0").decode(errors="replace")
