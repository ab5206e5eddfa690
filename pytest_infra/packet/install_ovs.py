"""A classifier as OpenFlow flows of an Open vSwitch bridge, and its verdicts by ``ofproto/trace``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product

from ..core.errors import BadInput, Unavailable
from ..net.ovs import OvsBridge
from .box import Box
from .classifier import DEFAULT, Classifier, Verdict
from .device import demand_matches
from .fields import FIELDS, FLAGS, IPV4, IPV6
from .masks import masks
from .meter import OvsMeter
from .ovs_trace import parse_trace
from .packet import Packet, mac_text
from .probe import SENTINEL_ADDRESS
from .probed import SENTINEL_TYPE
from .rule import SETTABLE, Rule
from .strategies import VOCABULARY
from .wire import encode

__all__ = ["OvsFlows", "flow_lines", "meter_lines", "tracking_lines"]

_MOST_FLOWS = 4096  # of one rule
_TOP = 60_000  # the priority of the first rule's flows; each rule takes two
_PCP = 7 << 13  # the bits of the priority in vlan_tci
_TAGGED = 1 << 12  # the bit of vlan_tci that says that there is a tag (ovs-fields(7))
_EXACT = {"proto": "nw_proto", "icmp_type": "icmp_type", "icmp_code": "icmp_code"}
_MACS = {"eth_src": "dl_src", "eth_dst": "dl_dst"}
_MASKED = {"sport": ("tp_src", 16), "dport": ("tp_dst", 16), "tunnel_id": ("tun_id", 64)}
_ADDRESSES = {
    "ip4_src": ("nw_src", 32),
    "ip4_dst": ("nw_dst", 32),
    "ip6_src": ("ipv6_src", 128),
    "ip6_dst": ("ipv6_dst", 128),
}
_SET = {"eth_src": "eth_src", "eth_dst": "eth_dst", "dscp": "ip_dscp", "ttl": "nw_ttl"}
_ALWAYS = ("tunnel_id", "eth_src", "eth_dst", "vlan", "eth_type", *_ADDRESSES)
# The matches for fields.CT_STATES, in that order.
_STATES = ("ct_state=+new-rel-inv", "ct_state=+rel-inv", "ct_state=+est-rel-inv", "ct_state=+inv")
_ENDS = {"sport": "src", "dport": "dst"}
_PREFIX = {6: "tcp", 17: "udp", 132: "sctp"}


class OvsFlows:
    """An Open vSwitch bridge as a device: rules become flows, one cookie for each rule.

    A port that is both where a packet comes in and where it goes gets it back (the action IN_PORT).

    Args:
        bridge: the bridge; its flows are replaced.
        outputs: the ports that classes stand for: ``{"gold": "sw1-p2"}``; a port stands for itself.

    Raises:
        BadInput: a class stands for a port that the bridge lacks.
    """

    matches = VOCABULARY
    shows = ("rule", "packet", "queue", "mark")
    window = 128

    def __init__(self, bridge: OvsBridge, outputs: Mapping[str, str] | None = None) -> None:
        bridge.observe()
        self.bridge = bridge
        self.name = f"Open vSwitch {bridge.name}"
        self.ports = tuple(port.name for port in bridge.ports)
        self._ports = {**{name: name for name in self.ports}, **(outputs or {})}
        self.outputs = tuple(outputs or self.ports)
        self.wires = {port.name: port.peer for port in bridge.ports}
        self.classes = {port: name for name, port in self._ports.items()}
        self.installed: Classifier | None = None
        if unknown := [port for port in self._ports.values() if port not in self.ports]:
            raise BadInput(f"bridge {bridge.name} has no port {', '.join(unknown)}; it has {', '.join(self.ports)}")

    def install(self, classifier: Classifier) -> None:
        """Replace the bridge's flows by those of a classifier.

        Raises:
            Unavailable: a rule would take more than 4096 flows.
            BadInput: a rule sends packets to no port or class of the bridge.
        """
        demand_matches(self.name, classifier, (*self.matches, "ct_state"), ("queue", "mark", "police"), SETTABLE)
        numbers = {port: number for number, port in enumerate(self.ports, 1)}
        lines = flow_lines(classifier, numbers, self._ports)
        meters = list(meter_lines(classifier))
        self.write([])
        self.bridge.ofctl(["-O", "OpenFlow15", "del-meters", self.bridge.name])
        for meter in meters:
            self.bridge.ofctl(["-O", "OpenFlow15", "add-meter", self.bridge.name, meter])
        if classifier.stateful:
            lines = tracking_lines(lines)
            self.bridge.instance.appctl("dpctl/flush-conntrack")
        self.write(lines)
        self.installed = classifier

    def write(self, lines: Sequence[str]) -> None:
        """Replace the bridge's flows by these lines of ovs-ofctl(8), in one transaction."""
        instance = self.bridge.instance
        path = f"/run/openvswitch/{self.bridge.name}.flows"
        with open(instance.guard.root + path, "w", encoding="ascii") as file:
            file.write("\n".join(["delete", *(f"add {line}" for line in lines)]) + "\n")
        self.bridge.ofctl(["-O", "OpenFlow15", "--bundle", "add-flows", self.bridge.name, path])

    def classify_all(self, packets: Sequence[Packet]) -> list[Verdict]:
        """What the bridge would do to each packet, by ``ofproto/trace`` over the control socket (ovs-vswitchd(8))."""
        return [self._classify(packet) for packet in packets]

    @property
    def _rules(self) -> tuple[str, ...]:
        return tuple(rule.name for rule in self.installed.rules) if self.installed else ()

    def reproduce(self, packet: Packet) -> str:
        """A line of a test that traces a packet once more."""
        words = ["ofproto/trace", self.bridge.name, *self._asked(packet)]
        return f"lab.switches[{self.bridge.name!r}].appctl({words!r})"

    def _asked(self, packet: Packet) -> list[str]:
        """A packet as ``ofproto/trace`` takes it."""
        port = f"in_port={self.ports.index(packet.in_port) + 1}"
        return [f"{port},{_flow(packet)}"] if packet.tunnel_id else [port, encode(packet).hex()]

    def _classify(self, packet: Packet) -> Verdict:
        if packet.in_port not in self.ports:
            raise BadInput(f"{packet} comes in by {packet.in_port!r}; the ports are {', '.join(self.ports)}")
        text = self.bridge.instance.appctl("ofproto/trace", "--names", self.bridge.name, *self._asked(packet))
        return parse_trace(text, packet, partial(_rule_of, rules=self._rules), self.classes)

    def counters(self) -> dict[str, int]:
        """How many packets each rule has decided about."""
        self.bridge.instance.appctl("revalidator/wait")  # the datapath's counts are carried over once in a while
        counts = dict.fromkeys([*self._rules, DEFAULT], 0)
        for flow in self.bridge.flows():
            if name := _rule_of(flow.cookie, self._rules):
                counts[name] += flow.packets
        return counts


def _rule_of(cookie: int, rules: Sequence[str]) -> str | None:
    if cookie == len(rules) + 1:
        return DEFAULT
    return rules[cookie - 1] if 1 <= cookie <= len(rules) else None


def flow_lines(classifier: Classifier, ports: Mapping[str, int], outputs: Mapping[str, str]) -> list[str]:
    """The flows of a classifier, as ovs-ofctl(8) reads them.

    Args:
        classifier: the rules; the cookie of a flow is its rule's place from 1, the default's the one after the last.
        ports: the OpenFlow numbers of the ports.
        outputs: the port that each of its destinations stands for.

    Raises:
        Unavailable: a rule would take more than 4096 flows.
        BadInput: a destination that is not among `outputs`.
    """
    names = {number: name for name, number in classifier.port_numbers.items()}
    lines = [f"priority=65535,dl_dst={SENTINEL_ADDRESS},dl_type={SENTINEL_TYPE:#x},actions=ALL,IN_PORT"]
    for place, (rule, boxes) in enumerate(zip(classifier.rules, classifier.boxes, strict=True)):
        for box in boxes:
            match = {**box}
            port = ports[names[match.pop("in_port")[0]]] if "in_port" in match else None
            count = 0
            for text in _matches(match):
                if (count := count + 1) > _MOST_FLOWS:
                    raise Unavailable("openflow", f"rule {rule.name!r} takes more than {_MOST_FLOWS} flows", "split it")
                head = f"cookie={place + 1:#x}"
                lines += _entries(
                    head, _TOP - 2 * place, port, text, _target(rule, ports, outputs), _actions(rule, match, place)
                )
    target = None if classifier.default == "drop" else _port(classifier.default, ports, outputs)
    return lines + list(_entries(f"cookie={len(classifier.rules) + 1:#x}", 0, None, "", target, []))


def meter_lines(classifier: Classifier) -> Iterator[str]:
    """The meters of a classifier's rules, each numbered after its rule's place, as ``ovs-ofctl add-meter`` reads them.

    Raises:
        Unavailable: a rate or burst that is no whole number of kilobits.
    """
    for place, rule in enumerate(classifier.rules, 1):
        if (police := rule.police) is not None:
            if police.beyond != "drop":
                raise Unavailable(
                    "openflow", f"rule {rule.name!r}: a meter drops what is beyond its rate", "use nftables"
                )
            if police.rate_bps % 1000 or police.burst_bytes % 125:
                why = f"rule {rule.name!r}: a meter has whole kbit/s and kbit, which are 125 bytes; got {police}"
                raise Unavailable("openflow", why, "round it")
            meter = OvsMeter(police.rate_bps // 1000, police.burst_bytes // 125, "kbps")
            yield f"meter={place},{meter.flow_arguments}"


def tracking_lines(lines: Sequence[str]) -> list[str]:
    """The same flows behind a lookup of the connection; what they let through of a new one makes it known."""
    sentinel, *rest = lines
    tracked = [f"priority=10,{family},actions=ct(table=1)" for family in ("ip", "ipv6")]
    commits = [f"table=2,priority=10,{family},actions=ct(commit)" for family in ("ip", "ipv6")]
    forwards = [line if line.endswith("=drop") else line.replace("actions=", "actions=resubmit(,2),") for line in rest]
    return [sentinel, *tracked, "priority=0,actions=resubmit(,1)", *commits, *(f"table=1,{line}" for line in forwards)]


def _entries(
    head: str, priority: int, port: int | None, match: str, target: int | None, actions: list[str]
) -> Iterator[str]:
    """One or two flows: a switch does not send a packet back by its own port unless it is told so."""
    match = f",{match}" if match else ""
    if target is not None and port in (None, target):
        back = ",".join([*actions, "IN_PORT"])
        yield f"{head},priority={priority + 1},in_port={target}{match},actions={back}"
    if port is None or port != target:
        where = "" if port is None else f",in_port={port}"
        done = ",".join([*actions, f"output:{target}"]) if target is not None else "drop"
        yield f"{head},priority={priority}{where}{match},actions={done}"


def _target(rule: Rule, ports: Mapping[str, int], outputs: Mapping[str, str]) -> int | None:
    return None if rule.to is None else _port(rule.to, ports, outputs)


def _port(name: str, ports: Mapping[str, int], outputs: Mapping[str, str]) -> int:
    if name not in outputs:
        raise BadInput(f"no port or class {name!r} to send packets to; there are {', '.join(outputs)}")
    return ports[outputs[name]]


def _actions(rule: Rule, box: Box, place: int) -> list[str]:
    actions = []
    proto, family = box.get("proto", (0, 0))[0], box.get("eth_type", (0, 0))[0]
    for name in rule.set:
        field = _SET.get(name)
        if name in ("src", "dst"):
            field = f"{'ip' if family == IPV4 else 'ipv6'}_{name}"
        elif name in _ENDS:
            field = f"{_PREFIX[proto]}_{_ENDS[name]}"
        number = getattr(rule.apply(_sample(box)), name)
        actions.append(f"set_field:{number}->{field}")
    if rule.police is not None:
        actions.insert(0, f"meter:{place + 1}")
    actions += [f"set_field:{rule.mark:#x}->pkt_mark"] if rule.mark is not None else []
    return actions + ([f"set_queue:{rule.queue}"] if rule.queue is not None else [])


def _sample(box: Box) -> Packet:
    return Packet.from_values({name: max(low, 0) for name, (low, _) in box.items()})


def _matches(box: Box) -> Iterator[str]:
    """The matches that are together a box: the product of what each field takes."""
    alternatives = [
        list(_alternatives(name, *limits)) for name, limits in box.items() if name not in ("vlan", "pcp", *FLAGS)
    ]
    alternatives.append(list(_tag(box)))
    if flags := [name for name in FLAGS if name in box]:
        mask = sum(1 << FLAGS.index(name) for name in flags)
        value = sum(1 << FLAGS.index(name) for name in flags if box[name][0])
        alternatives.append([f"tcp_flags={value:#x}/{mask:#x}"])
    six, ports = box.get("eth_type") == (IPV6, IPV6), _PREFIX.get(box.get("proto", (0, 0))[0], "tp")
    for chosen in product(*alternatives):
        text = ",".join(filter(None, chosen)).replace("tp_", f"{ports}_")
        yield text.replace("icmp_", "icmpv6_") if six else text


def _flow(packet: Packet) -> str:
    """A packet as a flow: a frame cannot say by which tunnel it came."""
    values = packet.values
    there = {name for name in _ALWAYS if name in values}
    there |= {
        name
        for name in ("proto", "dscp", "sport", "dport", "icmp_type", "icmp_code")
        if getattr(packet, name) is not None
    }
    there |= {"pcp"} if packet.vlan is not None else set()
    there |= set(FLAGS) if packet.tcp_flags is not None else set()
    text = next(_matches({name: (values.get(name, 0),) * 2 for name in FIELDS if name in there}))
    return re.sub(r"/[^,]+", "", text)  # every mask is full, and a packet has none


def _alternatives(name: str, low: int, high: int) -> Iterator[str]:
    if name == "eth_type":
        yield f"dl_type={low:#x}"  # a rule names one
    elif name in _EXACT:
        yield from (f"{_EXACT[name]}={value}" for value in range(low, high + 1))
    elif name == "dscp":
        yield from (f"nw_tos={value << 2}" for value in range(low, high + 1))
    elif name in _MASKED:
        field, bits = _MASKED[name]
        yield from (f"{field}={value:#x}/{mask:#x}" for value, mask in masks((low, high), bits))
    elif name in _ADDRESSES:
        yield _prefix(name, low, high)
    elif name == "ct_state":
        yield from _STATES[low : high + 1]
    else:
        yield f"{_MACS[name]}={mac_text(low)}"


def _prefix(name: str, low: int, high: int) -> str:
    from ipaddress import IPv4Address, IPv6Address

    field, bits = _ADDRESSES[name]
    address = IPv4Address(low) if bits == 32 else IPv6Address(low)
    return f"{field}={address}/{bits - (high - low).bit_length()}"


def _tag(box: Box) -> Iterator[str]:
    low, high = box.get("vlan", (-1, 4094))
    if (low, high) == (-1, 4094):
        yield ""
        return
    if low == -1:
        yield f"vlan_tci=0/{_TAGGED:#x}"
        low = 0
    full = (low, high) == (0, 4094)
    for vid, mask in [(0, 0)] if full else masks((low, high), 12):
        if "pcp" not in box:
            yield f"vlan_tci={_TAGGED | vid:#x}/{_TAGGED | mask:#x}"
            continue
        for pcp in range(
            box["pcp"][0], box["pcp"][1] + 1
        ):  # OpenFlow has no mask for it, and ovs-ofctl does not say so
            yield f"vlan_tci={pcp << 13 | _TAGGED | vid:#x}/{_PCP | _TAGGED | mask:#x}"
