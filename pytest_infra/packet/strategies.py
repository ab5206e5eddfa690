"""Hypothesis strategies: packets at the edges of a classifier's rules, random classifiers, and malformed frames.

All of them shrink: to fewer rules, fewer fields, and small numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import BadInput
from ..core.requirement import PythonModule
from .box import Box
from .classifier import Classifier
from .edge_packets import values_on_edges
from .fields import FIELDS, FLAGS, IPV4, IPV6, PORT_PROTOCOLS
from .packet import Packet
from .rule import Rule

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["HYPOTHESIS", "VOCABULARY", "near", "policies", "rules"]

T = TypeVar("T")

HYPOTHESIS = PythonModule("hypothesis", purpose="random policies and packets", extra="packet")

VOCABULARY = (
    *("in_port", "eth_src", "eth_dst", "eth_type", "vlan", "pcp", "src", "dst", "proto", "dscp"),
    *("sport", "dport", "tcp_flags", "icmp_type", "icmp_code", "tunnel_id"),
)
"""All that a rule can match."""

_PLAIN = {"eth_type": IPV4, "proto": 17, "eth_src": 0x020000000001, "eth_dst": 0x020000000002}
_COUNTS = (0, 1, 2, 3, 4, 3, 4)  # of the fields that a rule names
_ICMP = {1: IPV4, 58: IPV6}
_TRANSPORTS = {IPV4: (17, 6, 1, 253), IPV6: (17, 6, 58, 253)}
_UNBUILDABLE = (0x8100, 0x88A8, 0x9100, 0x8847, 0x8848)  # tags and labels: what follows them is another EtherType


@lru_cache(maxsize=1024)
def _integers(low: int, high: int) -> SearchStrategy[int]:
    from hypothesis import strategies as st

    return st.integers(low, high)


def _pick(draw: DrawFn, options: Sequence[T]) -> T:
    """One of these; the first is the simplest. Quicker than making a strategy for each list."""
    return options[draw(_integers(0, len(options) - 1))] if len(options) > 1 else options[0]


_EXTENSIONS = (0, 43, 44, 50, 51, 60, 135, 139, 140)
"""Next headers of IPv6 that are headers more (RFC 7045); a packet has no names for them, and devices read on behind."""
_EXPERIMENT = 253  # RFC 3692


def near(classifier: Classifier, *, outside: bool = True) -> SearchStrategy[Packet]:
    """Packets at the edges of a classifier's rules: on them, just inside, and one step outside in one or two fields.

    Args:
        classifier: whose rules.
        outside: whether to take steps outside; without, every packet matches the rule it was drawn for.

    Raises:
        Unavailable: hypothesis is not installed.
    """
    HYPOTHESIS.demand()
    from hypothesis import strategies as st

    boxes: list[Box] = [{}] if outside or not classifier.rules else []
    boxes += [box for rule_boxes in classifier.boxes for box in rule_boxes]
    pool = {name: _around(name, boxes) for name in FIELDS}

    @st.composite
    def packets(draw: DrawFn) -> Packet:
        box = _pick(draw, boxes)
        names = list(box)
        count = _pick(draw, [0, 1, 2]) if outside and names else 0
        steps = {_pick(draw, names) for _ in range(count)}
        values = {name: _pick(draw, _edge(name, limits, name in steps)) for name, limits in box.items()}
        _complete(draw, values, pool, len(classifier.ports), classifier.closed)
        if "proto" not in box and values.get("eth_type") == IPV6 and values.get("proto") in _EXTENSIONS:
            values["proto"] = _EXPERIMENT
        number = values.pop("in_port", 0)
        return Packet.from_values(values, classifier.ports[number - 1] if number else "")

    return packets()


def _around(name: str, boxes: Sequence[Box]) -> list[int]:
    """The values on the edges of a field's ranges in all rules, and next to them."""
    low, high = FIELDS[name]
    ends = {end for box in boxes for end in box.get(name, ())}
    return [value for end in sorted(ends) for value in (end, end - 1, end + 1) if low <= value <= high]


def _edge(name: str, limits: tuple[int, int], step: bool) -> list[int]:
    """The values on the edges of a range and within it; with `step`, those outside where there are any."""
    low, high = limits
    outside = [value for value in values_on_edges(name, low, high) if not low <= value <= high]
    return outside if step and outside else sorted({low, high, min(low + 1, high), (low + high) // 2})


def _complete(draw: DrawFn, values: dict[str, int], pool: dict[str, list[int]], ports: int, closed: bool) -> None:
    """Give a value to every field that the packet has and the rule does not name: one that matters to another rule."""

    def fill(name: str, *usual: int) -> None:
        if name not in values:
            values[name] = _pick(draw, [*usual, *pool[name]])

    first = 1 if closed else 0
    if not first <= values.get("in_port", -1) <= ports:  # not named, or a step beyond the last port
        values["in_port"] = _pick(draw, range(first, ports + 1))
    fill("tunnel_id", 0)
    fill("eth_type", IPV4, IPV6)
    if values["eth_type"] in _UNBUILDABLE:
        values["eth_type"] += 0x100
    for name in ("eth_src", "eth_dst"):
        fill(name, _PLAIN[name])
    fill("vlan", -1)
    if values["vlan"] >= 0:
        fill("pcp", 0)
    if family := {IPV4: "ip4_", IPV6: "ip6_"}.get(values["eth_type"]):
        start = 0xC6120000 if family == "ip4_" else 0x20010002 << 96  # 198.18.0.0 and 2001:2::, for benchmarks
        fill(family + "src", start + 1)
        fill(family + "dst", start + 2)
        fill("proto", *_TRANSPORTS[values["eth_type"]])
        fill("dscp", 0)
        _complete_transport(fill, values)


def _complete_transport(fill: Callable[..., None], values: dict[str, int]) -> None:
    if values["proto"] in PORT_PROTOCOLS:
        fill("sport", 1024)
        fill("dport", 1024)
    if values["proto"] == 6:
        for name in FLAGS:
            fill(name, 0)
    if _ICMP.get(values["proto"]) == values["eth_type"]:
        fill("icmp_type", 8)
        fill("icmp_code", 0)


def rules(
    name: str, *, outputs: Sequence[str], ports: Sequence[str] = (), matches: Sequence[str] = VOCABULARY
) -> SearchStrategy[Rule]:
    """Random rules that can match something.

    Args:
        name: their name.
        outputs: where they may send packets; some drop.
        ports: the ports that packets come in by.
        matches: the fields that they may name.

    Raises:
        BadInput: no such match.
        Unavailable: hypothesis is not installed.
    """
    if unknown := set(matches) - set(VOCABULARY):
        raise BadInput(f"no match {', '.join(sorted(unknown))}; there are {', '.join(VOCABULARY)}")
    HYPOTHESIS.demand()
    from hypothesis import strategies as st

    usable = [item for item in matches if item != "in_port" or ports]
    values = {item: _values(item, ports) for item in usable}

    @st.composite
    def made(draw: DrawFn) -> Rule:
        wanted = {_pick(draw, usable) for _ in range(_pick(draw, _COUNTS))} if usable else set()
        chosen = {item: draw(values[item]) for item in usable if item in wanted}
        _fit(draw, chosen)
        target = _pick(draw, [*outputs, None])
        return Rule(name, **chosen, to=target, drop=target is None)

    return made()


def _values(name: str, ports: Sequence[str]) -> SearchStrategy[Any]:
    from hypothesis import strategies as st

    def span(low: int, high: int) -> SearchStrategy[tuple[int, int]]:
        return st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda ends: (min(ends), max(ends)))

    table: dict[str, Callable[[], SearchStrategy[Any]]] = {
        "in_port": lambda: st.sampled_from(list(ports)),
        "eth_src": lambda: st.sampled_from([f"02:00:00:00:00:{last:02x}" for last in (1, 2, 3, 0x10)]),
        "eth_type": lambda: st.sampled_from(["ipv4", "ipv6", "arp", 0x88B5]),
        "vlan": lambda: st.one_of(st.sampled_from(["any", "none"]), st.integers(0, 4094), span(0, 4094)),
        "pcp": lambda: st.one_of(st.integers(0, 7), span(0, 7)),
        "src": lambda: st.one_of(_prefix(32), _prefix(128)),
        "proto": lambda: st.sampled_from(["udp", "tcp", "icmp", "icmpv6", 253]),
        "dscp": lambda: st.one_of(st.integers(0, 63), span(0, 63)),
        "sport": lambda: st.one_of(st.integers(0, 65535), span(0, 65535)),
        "tcp_flags": lambda: st.sampled_from(["syn", "syn,!ack", "ack", "rst", "!syn", "fin,ack"]),
        "icmp_type": lambda: st.one_of(st.sampled_from([8, 0, 3, 11, 128, 129, 135]), span(0, 255)),
        "icmp_code": lambda: st.sampled_from([0, 1, 3]),
        "tunnel_id": lambda: st.one_of(st.integers(0, 2**24 - 1), span(0, 2**24 - 1)),
    }
    return table[{"eth_dst": "eth_src", "dst": "src", "dport": "sport"}.get(name, name)]()


def _prefix(bits: int) -> SearchStrategy[str]:
    """Prefixes that are likely to nest: all of them begin alike."""
    from hypothesis import strategies as st

    start = 10 << 24 if bits == 32 else 0x20010DB8 << 96
    kind = IPv4Address if bits == 32 else IPv6Address

    def text(length: int, tail: int) -> str:
        number = (start | tail) >> (bits - length) << (bits - length)
        return f"{kind(number)}/{length}"

    tails = st.integers(0, 2 ** (bits - 8 if bits == 32 else bits - 32) - 1)
    lengths = [24, 8, 32, 9, 16, 23, 31, 1] if bits == 32 else [64, 32, 128, 33, 48, 127]
    return st.builds(text, st.sampled_from(lengths), st.one_of(st.sampled_from([0, 1, 255, 256]), tails))


def _fit(draw: DrawFn, chosen: dict[str, Any]) -> None:
    """Make the matches fit each other, by adding the protocol that a field needs and leaving out what contradicts."""
    if "tcp_flags" in chosen:
        chosen["proto"] = "tcp"
    elif {"icmp_type", "icmp_code"} & set(chosen):
        chosen["proto"] = "icmp" if _family_of(chosen) != IPV6 else "icmpv6"
    elif {"sport", "dport"} & set(chosen) and chosen.get("proto") not in ("tcp", "udp"):
        chosen["proto"] = _pick(draw, ["udp", "tcp"])
    if "pcp" in chosen and chosen.get("vlan") in (None, "none"):
        chosen["vlan"] = "any"
    if chosen.get("proto") not in ("tcp", "udp"):
        for name in ("sport", "dport"):
            chosen.pop(name, None)
    if chosen.get("proto") not in ("icmp", "icmpv6"):
        for name in ("icmp_type", "icmp_code"):
            chosen.pop(name, None)
    _fit_family(chosen)


def _family_of(chosen: dict[str, Any]) -> int | None:
    for name in ("src", "dst"):
        if name in chosen:
            return IPV6 if ":" in chosen[name] else IPV4
    return {"icmp": IPV4, "icmpv6": IPV6}.get(str(chosen.get("proto")))


def _fit_family(chosen: dict[str, Any]) -> None:
    family = _family_of(chosen)
    if family is not None:
        for name in ("src", "dst"):
            if name in chosen and (":" in chosen[name]) != (family == IPV6):
                del chosen[name]
        if chosen.get("proto") in ("icmp", "icmpv6"):
            chosen["proto"] = "icmp" if family == IPV4 else "icmpv6"
    if "eth_type" in chosen and {"src", "dst", "proto", "dscp"} & set(chosen):
        del chosen["eth_type"]


def policies(
    *,
    outputs: Sequence[str] = ("a", "b"),
    ports: Sequence[str] = (),
    matches: Sequence[str] = VOCABULARY,
    max_rules: int = 6,
) -> SearchStrategy[Classifier]:
    """Random classifiers.

    Args:
        outputs: where packets may go.
        ports: the ports that packets come in by.
        matches: the fields that rules may name; a device that cannot match them all is given those that it can.
        max_rules: how many rules at most.

    Raises:
        BadInput: no such match.
        Unavailable: hypothesis is not installed.
    """
    one = rules("r", outputs=outputs, ports=ports, matches=matches)
    from hypothesis import strategies as st

    @st.composite
    def made(draw: DrawFn) -> Classifier:
        some = draw(st.lists(one, min_size=1, max_size=max_rules))
        some = [replace(rule, name=f"r{number}") for number, rule in enumerate(some, 1)]
        return Classifier(some, default=draw(st.sampled_from(["drop", *outputs])), ports=ports)

    return made()
