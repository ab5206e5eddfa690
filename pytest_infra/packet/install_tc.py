"""A classifier as filters of tc(8) at the ingress of a node's interfaces: flower (tc-flower(8)) or u32 (tc-u32(8))."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from itertools import product
from typing import Any, ClassVar

from ..core.errors import BadInput, Unavailable
from ..core.requirement import Command
from .box import Box
from .classifier import DEFAULT, Classifier
from .fields import FLAGS, IPV6
from .ingress import IngressDevice
from .masks import masks
from .packet import mac_text
from .probe import SENTINEL_ADDRESS
from .probed import SENTINEL_TYPE
from .rule import Rule

__all__ = ["TC_COMMAND", "TcFilters", "TcFlower", "TcU32"]

TC_COMMAND = Command(
    "tc",
    purpose="filters, policers and queueing disciplines",
    packages={"apt": "iproute2", "dnf": "iproute-tc", "pacman": "iproute2", "apk": "iproute2-tc"},
)

_MOST_FILTERS = 256  # of one rule
_LARGEST = 65535  # bytes of a packet that a policer looks at; it drops larger ones
_FIRST = 10  # the preference of the first filter; the sentinel's is before it
_BEYOND = {"drop": "drop", "next": "continue"}
_TAGGED = "802.1q"
_SETS = {"eth_src": "src", "eth_dst": "dst"}


class TcFilters(IngressDevice):
    """Filters of tc, one or more for each rule, in the order of their preference; each counts.

    Args:
        node: the node whose interfaces are the ports.
        outputs: the ports that classes stand for; a port stands for itself.

    Raises:
        BadInput: a class stands for a port that the node lacks.
        Unavailable: the kernel lacks the classifier, or an action that rules are made of.
    """

    classifier: ClassVar[str]
    """The name of the classifier in tc."""
    everything: ClassVar[str] = ""
    """Its match for every packet."""
    actions = ("mark", "police")
    sets = tuple(_SETS)

    def __init__(self, node: Any, outputs: Mapping[str, str] | None = None) -> None:
        TC_COMMAND.demand()
        super().__init__(node, outputs)
        self._places: list[int] = []
        used = ["action mirred egress redirect dev lo", "action drop"]
        trial = [f"filter add dev lo ingress {_keys('all', self.classifier, self.everything)} {what}" for what in used]
        self._tc(["qdisc add dev lo clsact"])
        try:
            if said := self._tc(trial):
                why = f"the kernel lacks it, or the action mirred or gact: {said.partition(' We have')[0]}"
                raise Unavailable(f"tc-{self.classifier}", why, "use a kernel with them, such as a distribution's")
        finally:
            self._tc(["qdisc del dev lo clsact"])

    def _tc(self, lines: list[str]) -> str:
        """What tc says against these commands; empty where nothing."""
        done = self.node.run([TC_COMMAND.path(), "-batch", "-"], input="\n".join([*lines, ""]), check=False)
        return "" if done.returncode == 0 else " ".join(done.stderr.split())

    def _write(self, classifier: Classifier) -> None:
        filters = list(self._filters(classifier))  # all of them, before anything is changed
        self._places = [place for place, _, _ in filters]
        lines = []
        for port in self.ports:
            lines += [f"qdisc replace dev {port} clsact", f"filter del dev {port} ingress"]
            lines.append(f"filter add dev {port} ingress pref 1 {self._sentinel()}")
            for number, (_, source, text) in enumerate(filters):
                if source in (None, port):
                    lines.append(f"filter add dev {port} ingress pref {_FIRST + number} {text}")
        if said := self._tc(lines):
            raise Unavailable(self.name, f"tc refuses a rule: {said}", "use another device")

    def _filters(self, classifier: Classifier) -> Iterator[tuple[int, str | None, str]]:
        """The place of each filter's rule, the port where it is (None for all), and what tc is told."""
        names = {number: name for name, number in classifier.port_numbers.items()}
        for place, (rule, boxes) in enumerate(zip(classifier.rules, classifier.boxes, strict=True)):
            texts = [(box, text) for box in boxes for text in self._matches(rule, box)]
            if len(texts) > _MOST_FILTERS:
                raise Unavailable(self.name, f"rule {rule.name!r} takes more than {_MOST_FILTERS} filters", "split it")
            for box, text in texts:
                source = names[box["in_port"][0]] if "in_port" in box else None
                yield place, source, f"{text} {self._actions(rule)}"
        default = "action drop" if classifier.default == "drop" else self._redirect(classifier.default)
        yield len(classifier.rules), None, f"{_keys('all', self.classifier, self.everything)} {default}"

    def _sentinel(self) -> str:
        copies = [f"action mirred egress mirror dev {port}" for port in self.ports[:-1]]
        actions = " ".join([*copies, f"action mirred egress redirect dev {self.ports[-1]}"])
        address = int(SENTINEL_ADDRESS.replace(":", ""), 16)
        return f"{_keys(hex(SENTINEL_TYPE), self.classifier, self._sentinel_keys(address))} {actions}"

    def _redirect(self, name: str) -> str:
        if name not in self._outputs:
            raise BadInput(f"no port or class {name!r} to send packets to; there are {', '.join(self._outputs)}")
        return f"action mirred egress redirect dev {self._outputs[name]}"

    def _actions(self, rule: Rule) -> str:
        if rule.to is None:
            return "action drop"
        steps = [f"action pedit ex munge eth {_SETS[name]} set {value} pipe" for name, value in rule.set.items()]
        if (police := rule.police) is not None:
            limit = f"rate {police.rate_bps}bit burst {police.burst_bytes}b mtu {_LARGEST}"
            steps.insert(0, f"action police {limit} conform-exceed {_BEYOND[police.beyond]}/pipe")
        steps += [f"action skbedit mark {rule.mark} pipe"] if rule.mark is not None else []
        return " ".join([*steps, self._redirect(rule.to)])

    @abstractmethod
    def _matches(self, rule: Rule, box: Box) -> Iterator[str]:
        """A rule's matches for one family: ``protocol … CLASSIFIER …``.

        Raises:
            Unavailable: the classifier cannot express them.
        """

    @abstractmethod
    def _sentinel_keys(self, address: int) -> str:
        """The keys that match a sentinel with this address."""

    def counters(self) -> dict[str, int]:
        """How many packets each rule has decided about."""
        assert self.installed is not None, "install rules first"
        names = [*(rule.name for rule in self.installed.rules), DEFAULT]
        counts = dict.fromkeys(names, 0)
        for port in self.ports:
            done = self.node.run([TC_COMMAND.path(), "-s", "-j", "filter", "show", "dev", port, "ingress"])
            for item in json.loads(done.stdout):
                actions = item.get("options", {}).get("actions", [])
                if actions and item["pref"] >= _FIRST:
                    counts[names[self._places[item["pref"] - _FIRST]]] += actions[0]["stats"]["packets"]
        return counts


def _keys(protocol: str, classifier: str, keys: str) -> str:
    return f"protocol {protocol} {classifier} {keys}".rstrip()


class TcFlower(TcFilters):
    """The classifier flower of tc, as a device."""

    what = "tc flower"
    classifier = "flower"

    def _sentinel_keys(self, address: int) -> str:
        return f"dst_mac {mac_text(address)}"

    def _matches(self, rule: Rule, box: Box) -> Iterator[str]:
        alternatives = [list(_flower_field(name, limits)) for name, limits in box.items()]
        if flags := _flags(box):
            alternatives.append([f"tcp_flags {flags[0]:#x}/{flags[1]:#x}"])
        for head in self._heads(rule, box):
            for chosen in product(*alternatives):
                yield " ".join(filter(None, (head, *chosen)))

    def _heads(self, rule: Rule, box: Box) -> Iterator[str]:
        """The protocol as tc wants it: that of the frame, and the one behind the tag apart."""
        low, high = box.get("vlan", (-1, 4094))
        ethertype = f"{box['eth_type'][0]:#x}" if "eth_type" in box else ""
        if "vlan" not in box and not ethertype:
            yield "protocol all flower"
            return
        if low < 0 and not ethertype:
            raise Unavailable(self.name, f"it cannot do vlan='none' of rule {rule.name!r} without an eth_type", "")
        if low < 0:
            yield f"protocol {ethertype} flower"
        if high >= 0:
            tags = [""] if (max(low, 0), high) == (0, 4094) else [f"vlan_id {tag}" for tag in range(low, high + 1)]
            priorities = (
                [f"vlan_prio {value}" for value in range(box["pcp"][0], box["pcp"][1] + 1)] if "pcp" in box else [""]
            )
            for chosen in product(tags[: _MOST_FILTERS + 1], priorities):
                inner = f"vlan_ethtype {ethertype}" if ethertype else ""
                yield " ".join(filter(None, (f"protocol {_TAGGED} flower", *chosen, inner)))


def _flower_field(name: str, limits: tuple[int, int]) -> Iterator[str]:
    low, high = limits
    if name in ("eth_src", "eth_dst"):
        yield f"{name[4:]}_mac {mac_text(low)}"
    elif name in ("ip4_src", "ip4_dst"):
        yield f"{name[4:]}_ip {IPv4Address(low)}/{32 - (high - low).bit_length()}"
    elif name in ("ip6_src", "ip6_dst"):
        yield f"{name[4:]}_ip {IPv6Address(low)}/{128 - (high - low).bit_length()}"
    elif name == "proto":
        yield f"ip_proto {low:#x}"
    elif name == "dscp":
        yield from (f"ip_tos {value << 2:#x}/{mask << 2:#x}" for value, mask in masks(limits, 6))
    elif name in ("sport", "dport"):
        yield f"{'src' if name == 'sport' else 'dst'}_port {low if low == high else f'{low}-{high}'}"
    elif name in ("icmp_type", "icmp_code"):
        yield from (f"{name[5:]} {value}/{mask:#x}" for value, mask in masks(limits, 8))
    else:
        yield ""


def _flags(box: Box) -> tuple[int, int] | None:
    """The TCP flags' values and which of them count."""
    named = [name for name in FLAGS if name in box]
    mask = sum(1 << FLAGS.index(name) for name in named)
    return (sum(1 << FLAGS.index(name) for name in named if box[name][0]), mask) if named else None


_V4: Mapping[str, tuple[int, int]] = {"dscp": (1, 6), "proto": (9, 8), "ip4_src": (12, 32), "ip4_dst": (16, 32)}
_V6: Mapping[str, tuple[int, int]] = {"proto": (6, 8)}
_BEHIND = {"sport": 0, "dport": 2, "icmp_type": 0, "icmp_code": 1}


class TcU32(TcFilters):
    """The classifier u32 of tc, as a device. The kernel has taken the VLAN tag away before u32 looks at a packet."""

    what = "tc u32"
    classifier = "u32"
    everything = "match u32 0 0"
    matches = tuple(name for name in TcFilters.matches if name not in ("vlan", "pcp"))

    def _sentinel_keys(self, address: int) -> str:
        return " ".join(_mac(-14, address))

    def _matches(self, _rule: Rule, box: Box) -> Iterator[str]:
        six = box.get("eth_type", (0, 0))[0] == IPV6
        alternatives = [list(_u32_field(name, limits, six)) for name, limits in box.items() if name not in FLAGS]
        if flags := _flags(box):
            alternatives.append([f"match u8 {flags[0]:#x} {flags[1]:#x} at {53 if six else 33}"])
        if any(name in box for name in (*_BEHIND, *FLAGS)) and not six:
            alternatives.append(["match u8 0x45 0xff at 0"])  # where the transport header is, without options
        for chosen in product(*alternatives):
            yield _keys("all", "u32", " ".join(filter(None, chosen)) or self.everything)


def _u32_field(name: str, limits: tuple[int, int], six: bool) -> Iterator[str]:
    low, high = limits
    if name == "eth_type":
        yield f"match u16 {low:#x} 0xffff at -2"
    elif name in ("eth_src", "eth_dst"):
        yield " ".join(_mac(-14 if name == "eth_dst" else -8, low))
    elif name in ("ip6_src", "ip6_dst"):
        yield " ".join(_words(8 if name == "ip6_src" else 24, low, (2**128 - 1) ^ (high - low)))
    elif name == "dscp" and six:
        yield from (f"match u16 {value << 6:#x} {mask << 6:#x} at 0" for value, mask in masks(limits, 6))
    elif name == "dscp":
        yield from (f"match u8 {value << 2:#x} {mask << 2:#x} at 1" for value, mask in masks(limits, 6))
    elif name in _BEHIND:
        bits = 8 if name.startswith("icmp") else 16
        at = _BEHIND[name] + (40 if six else 20)
        yield from (f"match u{bits} {value:#x} {mask:#x} at {at}" for value, mask in masks(limits, bits))
    elif name == "in_port":
        yield ""
    else:
        at, bits = (_V6 if six else _V4)[name]
        yield from (f"match u{bits} {value:#x} {mask:#x} at {at}" for value, mask in masks(limits, bits))


def _mac(at: int, address: int) -> Iterator[str]:
    """A MAC address in aligned pieces."""
    if at % 4:
        yield f"match u16 {address >> 32:#x} 0xffff at {at}"
        yield f"match u32 {address & 0xFFFFFFFF:#x} 0xffffffff at {at + 2}"
    else:
        yield f"match u32 {address >> 16:#x} 0xffffffff at {at}"
        yield f"match u16 {address & 0xFFFF:#x} 0xffff at {at + 4}"


def _words(at: int, value: int, mask: int) -> Iterator[str]:
    """A number of 128 bits in words."""
    for word in range(4):
        shift = 96 - 32 * word
        if part := mask >> shift & 0xFFFFFFFF:
            yield f"match u32 {value >> shift & 0xFFFFFFFF:#x} {part:#x} at {at + 4 * word}"
