"""A classifier as a BPF program, for XDP and for the ingress of tc: parse, compare rule by rule, count, redirect.

The program drops what `Packet` cannot name and what is cut short: IPv4 options, fragments, wrong lengths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.errors import BadInput
from .assembler import CONTEXT, END, PACKET, START, Assembler
from .box import Box
from .classifier import Classifier
from .fields import FLAGS, IPV4, IPV6
from .probe import SENTINEL_ADDRESS
from .probed import SENTINEL_TYPE
from .rule import Rule

__all__ = ["TC", "XDP", "Hook", "Targets", "bpf_program"]


@dataclass(frozen=True)
class Hook:
    """Where a program is run, and what it finds in its context (linux/bpf.h)."""

    kind: int
    """The type of program (enum bpf_prog_type)."""
    data: int
    """Where the context has the packet's begin; its end is 4 bytes behind."""
    interface: int
    drop: int
    """The result that drops a packet."""
    tag: int | None
    """Where the context has the VLAN tag; None where it is in the packet."""
    mark: int | None


XDP = Hook(kind=6, data=0, interface=12, drop=1, tag=None, mark=None)
"""``struct xdp_md``; XDP_DROP."""
TC = Hook(kind=3, data=76, interface=40, drop=2, tag=20, mark=8)
"""``struct __sk_buff``; TC_ACT_SHOT."""


@dataclass(frozen=True)
class Targets:
    """What a program refers to.

    Args:
        interfaces: the index of each port.
        outputs: the port that each destination stands for.
        counters: an array map with one value: 8 bytes for each rule, and for the default.
        everywhere: for XDP, a map of devices with all ports.
    """

    interfaces: Mapping[str, int]
    outputs: Mapping[str, str]
    counters: int
    everywhere: int = -1

    def index(self, name: str) -> int:
        """The interface's index of a destination.

        Raises:
            BadInput: there is no such destination.
        """
        if name not in self.outputs:
            raise BadInput(f"no port or class {name!r} to send packets to; there are {', '.join(self.outputs)}")
        return self.interfaces[self.outputs[name]]


_WORDS = ("ip6_src", "ip6_dst")
_PLAIN = ("eth_dst", "eth_src", "eth_type", "vlan", "pcp", "ip4_src", "ip4_dst", "proto", "dscp")
_NAMES = (*_PLAIN, "sport", "dport", "flags", "icmp_type", "icmp_code", "in_port")
_SLOTS = {name: place for place, name in enumerate([*_NAMES, *(f"{w}.{n}" for w in _WORDS for n in range(4))], 1)}
_REDIRECT, _CLONE_REDIRECT, _REDIRECT_MAP = 23, 13, 51
_BROADCAST = 8
_CUT = "cut"


def bpf_program(classifier: Classifier, hook: Hook, targets: Targets) -> bytes:
    """The program.

    Raises:
        BadInput: a rule sends packets to no port or class.
    """
    asm = Assembler()
    _parse(asm, hook)
    _sentinel(asm, hook, targets)
    if _rules(asm, classifier, hook, targets):
        asm.count(targets.counters, 8 * len(classifier.rules))
        _send(asm, hook, None if classifier.default == "drop" else targets.index(classifier.default))
    asm.place(_CUT)
    asm.leave(hook.drop)
    return asm.assemble()


def _rules(asm: Assembler, classifier: Classifier, hook: Hook, targets: Targets) -> bool:
    """The rules' instructions; whether any packet gets past them. The kernel takes no instruction that none reaches."""
    names = {number: name for name, number in classifier.port_numbers.items()}
    for place, (rule, boxes) in enumerate(zip(classifier.rules, classifier.boxes, strict=True)):
        for number, box in enumerate(boxes):
            after = f"after {place}.{number}"
            for field, (low, high) in _conditions(box):
                _compare(asm, field, low, high, after)
            if "in_port" in box:
                asm.recall(1, _SLOTS["in_port"])
                asm.go_if(1, "!=", targets.interfaces[names[box["in_port"][0]]], after)
            _act(asm, hook, targets, place, rule)
            asm.place(after)
            if not box:
                return False
    return True


def _parse(asm: Assembler, hook: Hook) -> None:
    asm.move(CONTEXT, 1)
    for slot in _SLOTS.values():
        asm.clear(slot)
    asm.load(1, CONTEXT, hook.interface)
    asm.keep(_SLOTS["in_port"], 1)
    asm.load(PACKET, CONTEXT, hook.data)
    asm.load(END, CONTEXT, hook.data + 4)
    asm.move(START, PACKET)
    asm.demand(14, _CUT)
    for name, offset in (("eth_dst", 0), ("eth_src", 6)):
        asm.field(1, offset, 2)
        asm.field(2, offset + 2, 4)
        asm.join(1, 2, 32)
        asm.keep(_SLOTS[name], 1)
    _parse_tag(asm, hook)
    asm.keep(_SLOTS["eth_type"], 1)
    asm.go_if(1, "==", IPV4, "ipv4")
    asm.go_if(1, "==", IPV6, "ipv6")
    asm.go("parsed")
    _parse_ipv4(asm)
    _parse_ipv6(asm)
    _parse_transport(asm)
    asm.place("parsed")


def _parse_tag(asm: Assembler, hook: Hook) -> None:
    """Leaves the EtherType behind the tag in register 1, and parsing 4 bytes on where the tag is in the packet."""
    if hook.tag is None:
        asm.field(1, 12, 2)
        asm.go_if(1, "!=", 0x8100, "typed")
        asm.demand(18, _CUT)
        asm.field(3, 14, 2)
        asm.add(PACKET, 4)
    else:
        asm.load(3, CONTEXT, hook.tag)
        asm.field(1, 12, 2)
        asm.go_if(3, "==", 0, "typed")
        asm.load(3, CONTEXT, hook.tag + 4)
    asm.move(4, 3)
    asm.mask(4, 0xFFF)
    asm.add(4, 1)
    asm.keep(_SLOTS["vlan"], 4)
    asm.right(3, 13)
    asm.keep(_SLOTS["pcp"], 3)
    asm.field(1, 12, 2)
    asm.place("typed")


def _keep_field(asm: Assembler, name: str, offset: int, size: int) -> None:
    asm.field(1, offset, size)
    asm.keep(_SLOTS[name], 1)


def _demand_length(asm: Assembler, offset: int, least: int, header: int) -> None:
    """Make sure that the length that the IP header names fits into the frame."""
    asm.field(3, offset, 2)
    asm.mask(3, 0xFFFF)  # Linux 6.1 does not know that it has no more bits
    if least:
        asm.go_if(3, "<", least, _CUT)
    asm.move(4, PACKET)
    asm.add(4, 14 + header)
    asm.add_register(4, 3)
    asm.go_if_beyond(4, _CUT)


def _parse_ipv4(asm: Assembler) -> None:
    asm.place("ipv4")
    asm.demand(34, _CUT)
    asm.field(1, 14, 1)
    asm.go_if(1, "!=", 0x45, _CUT)
    _demand_length(asm, 16, 20, 0)
    asm.field(1, 20, 2)
    asm.mask(1, 0x3FFF)
    asm.go_if(1, "!=", 0, _CUT)
    asm.field(1, 15, 1)
    asm.right(1, 2)
    asm.keep(_SLOTS["dscp"], 1)
    for name, offset in (("ip4_src", 26), ("ip4_dst", 30)):
        _keep_field(asm, name, offset, 4)
    asm.field(5, 23, 1)
    asm.keep(_SLOTS["proto"], 5)
    asm.add(PACKET, 20)
    asm.go_if(5, "==", 1, "icmp")
    asm.go("transport")


def _parse_ipv6(asm: Assembler) -> None:
    asm.place("ipv6")
    asm.demand(54, _CUT)
    asm.field(1, 14, 2)
    asm.move(2, 1)
    asm.right(2, 12)
    asm.go_if(2, "!=", 6, _CUT)
    asm.right(1, 6)
    asm.mask(1, 63)
    asm.keep(_SLOTS["dscp"], 1)
    _demand_length(asm, 18, 0, 40)
    for name, offset in (("ip6_src", 22), ("ip6_dst", 38)):
        for word in range(4):
            _keep_field(asm, f"{name}.{word}", offset + 4 * word, 4)
    asm.field(5, 20, 1)
    asm.keep(_SLOTS["proto"], 5)
    asm.add(PACKET, 40)
    asm.go_if(5, "==", 58, "icmp")
    asm.go("transport")


def _parse_transport(asm: Assembler) -> None:
    """Register 5 has the protocol, and the packet's header for it begins 14 bytes from where parsing is."""
    asm.place("icmp")
    asm.demand(22, _CUT)
    for name, offset in (("icmp_type", 14), ("icmp_code", 15)):
        _keep_field(asm, name, offset, 1)
    asm.go("parsed")
    asm.place("transport")
    asm.go_if(5, "==", 17, "udp")
    asm.go_if(5, "==", 6, "tcp")
    asm.go_if(5, "!=", 132, "parsed")
    asm.demand(26, _CUT)
    asm.go("ports")
    asm.place("tcp")
    asm.demand(34, _CUT)
    _keep_field(asm, "flags", 27, 1)
    asm.go("ports")
    asm.place("udp")
    asm.demand(22, _CUT)
    asm.field(1, 18, 2)
    asm.go_if(1, "<", 8, _CUT)
    asm.place("ports")
    for name, offset in (("sport", 14), ("dport", 16)):
        _keep_field(asm, name, offset, 2)


def _sentinel(asm: Assembler, hook: Hook, targets: Targets) -> None:
    """A frame that probes send behind a batch goes to all ports."""
    asm.recall(1, _SLOTS["eth_type"])
    asm.go_if(1, "!=", SENTINEL_TYPE, "rules")
    asm.recall(1, _SLOTS["vlan"])
    asm.go_if(1, "!=", 0, "rules")
    asm.recall(1, _SLOTS["eth_dst"])
    asm.wide(2, int(SENTINEL_ADDRESS.replace(":", ""), 16))
    asm.go_if_other(1, 2, "rules")
    if hook.tag is None:
        asm.map(1, targets.everywhere)
        asm.call(_REDIRECT_MAP, (0, _BROADCAST))
        asm.leave()
    else:
        *others, last = targets.interfaces.values()
        for index in others:
            asm.move(1, CONTEXT)
            asm.call(_CLONE_REDIRECT, (index, 0))
        _send(asm, hook, last)
    asm.place("rules")


def _conditions(box: Box) -> list[tuple[str, tuple[int, int]]]:
    """The slots that are compared, and the lowest and highest value, or value and mask, of each."""
    found: list[tuple[str, tuple[int, int]]] = []
    for name, (low, high) in box.items():
        if name == "vlan":
            found.append((name, (low + 1, high + 1)))
        elif name in _WORDS:
            mask = (2**128 - 1) ^ (high - low)
            words = [(low >> shift & 0xFFFFFFFF, mask >> shift & 0xFFFFFFFF) for shift in (96, 64, 32, 0)]
            found += [(f"{name}.{word}", pair) for word, pair in enumerate(words) if pair[1]]
        elif name not in ("in_port", *FLAGS):
            found.append((name, (low, high)))
    if named := [name for name in FLAGS if name in box]:
        mask = sum(1 << FLAGS.index(name) for name in named)
        found.append(("flags", (sum(1 << FLAGS.index(name) for name in named if box[name][0]), mask)))
    return found


def _compare(asm: Assembler, field: str, low: int, high: int, otherwise: str) -> None:
    asm.recall(1, _SLOTS[field])
    if field in ("eth_src", "eth_dst"):
        asm.wide(2, low)
        asm.go_if_other(1, 2, otherwise)
    elif field == "flags" or "." in field:  # value and mask
        asm.mask(1, high)
        asm.go_if(1, "!=", low, otherwise)
    elif low == high:
        asm.go_if(1, "!=", low, otherwise)
    else:
        asm.go_if(1, "<", low, otherwise)
        asm.go_if(1, ">", high, otherwise)


def _act(asm: Assembler, hook: Hook, targets: Targets, place: int, rule: Rule) -> None:
    asm.count(targets.counters, 8 * place)
    for name, offset in (("eth_dst", 0), ("eth_src", 6)):
        if name in rule.set:
            asm.write(START, offset, bytes.fromhex(str(rule.set[name]).replace(":", "")))
    if rule.mark is not None:
        assert hook.mark is not None
        asm.set(1, rule.mark)
        asm.store(CONTEXT, hook.mark, 1)
    _send(asm, hook, None if rule.to is None else targets.index(rule.to))


def _send(asm: Assembler, hook: Hook, index: int | None) -> None:
    if index is None:
        asm.leave(hook.drop)
        return
    asm.set(1, index)
    asm.call(_REDIRECT, (0,))
    asm.leave()
