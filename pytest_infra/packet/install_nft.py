"""A classifier as nftables rules at the ingress of a node's interfaces, forwarding in the kernel (nft(8))."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..core.errors import BadInput, Unavailable
from ..core.process import Completed
from ..core.requirement import Command
from .box import Box
from .classifier import DEFAULT, Classifier
from .fields import CT_STATES, FLAGS, IPV4, IPV6, parse_number
from .ingress import IngressDevice
from .packet import mac_text
from .police import Police
from .probe import SENTINEL_ADDRESS
from .probed import SENTINEL_TYPE
from .rule import Rule

__all__ = ["NFT", "SENTINEL_MATCH", "TABLE", "NftIngress", "decide_chain", "nft_script", "read_counters", "table"]

NFT = Command(
    "nft",
    purpose="nftables rules",
    packages={"apt": "nftables", "dnf": "nftables", "pacman": "nftables", "apk": "nftables"},
)

TABLE = "infra"
"""The name of the table."""
SENTINEL_MATCH = f"ether daddr {SENTINEL_ADDRESS} meta protocol {SENTINEL_TYPE:#x}"
_IP = {IPV4: "ip", IPV6: "ip6"}
_ICMP = {IPV4: "icmp", IPV6: "icmpv6"}
_SETS = {"eth_src": "ether saddr", "eth_dst": "ether daddr"}
"""What it sets besides the DSCP; netdev chains update no checksum but that of IPv4's header."""


class NftIngress(IngressDevice):
    """nftables at the ingress hook of a node's interfaces, as a device: a rule forwards a frame to another interface.

    Each rule has a counter that is named after its place. A packet's verdict is seen by sending it (`packet.probed`).

    Args:
        node: the node whose interfaces are the ports.
        outputs: the ports that classes stand for; a port stands for itself.

    Raises:
        BadInput: a class stands for a port that the node lacks.
        Unavailable: nft is not installed.
    """

    what = "nftables"
    actions = ("mark", "police")
    sets = (*_SETS, "dscp")

    def __init__(self, node: Any, outputs: Mapping[str, str] | None = None) -> None:
        NFT.demand()
        super().__init__(node, outputs)

    def _write(self, classifier: Classifier) -> None:
        self.node.run([NFT.path(), "-f", "-"], input=nft_script(classifier, self.ports, self._outputs))

    def counters(self) -> dict[str, int]:
        """How many packets each rule has decided about."""
        assert self.installed is not None, "install rules first"
        return read_counters(self.node.run, "netdev", self.installed)


def read_counters(run: Callable[..., Completed], family: str, installed: Classifier) -> dict[str, int]:
    """How many packets each rule of a table has decided about.

    Args:
        run: runs a command where the table is.
        family: the table's family.
        installed: the rules.
    """
    done = run([NFT.path(), "-j", "list", "counters", "table", family, TABLE])
    found = {item["counter"]["name"]: item["counter"]["packets"] for item in json.loads(done.stdout)["nftables"][1:]}
    names = [*(rule.name for rule in installed.rules), DEFAULT]
    return {name: int(found[f"rule{place}"]) for place, name in enumerate(names, 1)}


def nft_script(classifier: Classifier, ports: Sequence[str], outputs: Mapping[str, str]) -> str:
    """The rules of a classifier as a script for ``nft -f``.

    Args:
        classifier: the rules.
        ports: the interfaces, at whose ingress they are looked at.
        outputs: the interface that each of its destinations stands for.

    Raises:
        BadInput: a destination that is not among `outputs`.
    """
    copies = " ".join(f'dup to "{port}"' for port in ports[:-1])
    everywhere = f'{SENTINEL_MATCH} {copies} fwd to "{ports[-1]}"'

    def finish(name: str | None) -> str:
        return "drop" if name is None else _forward(name, outputs)

    hooks = [
        f'chain in{place} {{ type filter hook ingress device "{port}" priority 0; policy drop; goto decide; }}'
        for place, port in enumerate(ports)
    ]
    return table("netdev", decide_chain(classifier, finish, [everywhere]), hooks)


def table(family: str, decide: Sequence[str], chains: Sequence[str]) -> str:
    """A script that replaces the table by one with these chains, in one transaction."""
    lines = [f"table {family} {TABLE}", f"delete table {family} {TABLE}", f"table {family} {TABLE} {{"]
    return "\n".join([*lines, *(f"  {line}" for line in (*decide, *chains)), "}", ""])


def decide_chain(classifier: Classifier, finish: Callable[[str | None], str], before: Sequence[str] = ()) -> list[str]:
    """The counters, and the chain ``decide`` with the rules of a classifier.

    Args:
        classifier: the rules.
        finish: the verdict for a destination, None to drop.
        before: statements that come first.
    """
    names = {number: name for name, number in classifier.port_numbers.items()}
    lines = [f"counter rule{place} {{ }}" for place in range(1, len(classifier.rules) + 2)]
    lines += ["chain decide {", *(f"  {line}" for line in before)]
    for place, (rule, boxes) in enumerate(zip(classifier.rules, classifier.boxes, strict=True), 1):
        for box in boxes:
            match, counted = [*_matches(box, names)], f"counter name rule{place}"
            if rule.police is not None and rule.police.beyond == "drop":
                lines.append("  " + " ".join([*match, counted, _limit(rule.name, rule.police, "over "), "drop"]))
                counted = ""
            elif rule.police is not None:
                match.append(_limit(rule.name, rule.police))
            actions = [*_changes(rule, box), finish(rule.to)]
            lines.append("  " + " ".join(filter(None, [*match, counted, *actions])))
    default = finish(None if classifier.default == "drop" else classifier.default)
    return [*lines, f"  counter name rule{len(classifier.rules) + 1} {default}", "}"]


def _forward(name: str, outputs: Mapping[str, str]) -> str:
    if name not in outputs:
        raise BadInput(f"no port or class {name!r} to send packets to; there are {', '.join(outputs)}")
    return f'fwd to "{outputs[name]}"'


def _limit(rule: str, police: Police, over: str = "") -> str:
    """What is within a rate, or over it. The kernel's bucket holds what comes in a second besides the burst of nft.

    Raises:
        Unavailable: the bucket would be smaller than that, or the rate is no whole number of bytes.
    """
    rate, rest = divmod(police.rate_bps, 8)
    if rest or police.burst_bytes < rate:
        why = f"rule {rule!r}: nftables' bucket holds at least what comes in a second, {rate} bytes, at whole bytes"
        raise Unavailable("nftables", why, "give a larger burst, or use another device")
    return f"limit rate {over}{rate} bytes/second burst {police.burst_bytes - rate} bytes"


def _changes(rule: Rule, box: Box) -> Iterator[str]:
    for name, value in rule.set.items():
        if name == "dscp":
            yield f"{_IP[box['eth_type'][0]]} dscp set {parse_number(name, value, rule.name)}"
        else:
            yield f"{_SETS[name]} set {value}"
    if rule.mark is not None:
        yield f"meta mark set {rule.mark:#x}"


def _matches(box: Box, ports: Mapping[int, str]) -> Iterator[str]:
    family = box.get("eth_type", (0, 0))[0]
    yield from _tag(box)
    if "eth_type" in box:  # nft takes no meta protocol beside a VLAN match
        yield f"{'vlan type' if box.get('vlan', (-1, 0))[0] >= 0 else 'meta protocol'} {family:#x}"
    if (states := box.get("ct_state")) is not None:
        yield f"ct state {','.join(CT_STATES[states[0] : states[1] + 1])}"
    if "in_port" in box:
        yield f'iifname "{ports[box["in_port"][0]]}"'
    for name, field in (("eth_src", "ether saddr"), ("eth_dst", "ether daddr")):
        if name in box:
            yield f"{field} {mac_text(box[name][0])}"
    yield from _ip(box, family)
    yield from _transport(box, family)


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _tag(box: Box) -> Iterator[str]:
    low, high = box.get("vlan", (-1, 4094))
    if (low, high) == (-1, -1):
        yield "ether type != 0x8100"
    elif low >= 0:
        yield f"vlan id {_span(low, high)}"
    if "pcp" in box:
        yield f"vlan pcp {_span(*box['pcp'])}"


def _ip(box: Box, family: int) -> Iterator[str]:
    from ipaddress import IPv4Address, IPv6Address

    word, kind, bits = ("ip", IPv4Address, 32) if family == IPV4 else ("ip6", IPv6Address, 128)
    for end in ("src", "dst"):
        if (limits := box.get(f"ip{4 if family == IPV4 else 6}_{end}")) is not None:
            yield f"{word} {end[0]}addr {kind(limits[0])}/{bits - (limits[1] - limits[0]).bit_length()}"
    if "dscp" in box:
        yield f"{word} dscp {_span(*box['dscp'])}"
    if "proto" in box:
        yield f"meta l4proto {box['proto'][0]}"


def _transport(box: Box, family: int) -> Iterator[str]:
    for name in ("sport", "dport"):
        if name in box:
            yield f"th {name} {_span(*box[name])}"
    for name in ("type", "code"):
        if f"icmp_{name}" in box:
            yield f"{_ICMP[family]} {name} {_span(*box[f'icmp_{name}'])}"
    if named := [name for name in FLAGS if name in box]:
        mask = sum(1 << FLAGS.index(name) for name in named)
        value = sum(1 << FLAGS.index(name) for name in named if box[name][0])
        yield f"tcp flags & {mask:#x} == {value:#x}"
