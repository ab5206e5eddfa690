"""What ``ofproto/trace`` says becomes of a packet, as a verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from ..core.errors import InfraError
from ..net.ovs_flows import split_actions
from .classifier import Verdict
from .packet import Packet, mac_text

__all__ = ["parse_trace"]

_COOKIE = re.compile(r"cookie (0x[0-9a-f]+)")
_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
_SET: Mapping[str, Mapping[str, str]] = {
    "eth": {"src": "eth_src", "dst": "eth_dst"},
    "ipv4": {"src": "src", "dst": "dst", "ttl": "ttl"},
    "ipv6": {"src": "src", "dst": "dst", "hlimit": "ttl"},
    "tcp": {"src": "sport", "dst": "dport"},
    "udp": {"src": "sport", "dst": "dport"},
    "sctp": {"src": "sport", "dst": "dport"},
}
_CLASS = {"ipv4": "tos", "ipv6": "tclass"}
_NOT_PORTS = ("drop", "pop_vlan")


def parse_trace(text: str, packet: Packet, rule_of: Callable[[int], str | None], names: Mapping[str, str]) -> Verdict:
    """The verdict in the output of ``ofproto/trace --names``.

    Args:
        text: the output.
        packet: the packet that was traced.
        rule_of: the rule that has a cookie; None for none.
        names: the class or port that stands for each port.

    Raises:
        InfraError: it does not look like a trace.
    """
    lines = re.findall(r"^Datapath actions: (.*)$", text, re.MULTILINE)
    if not lines:
        raise InfraError(f"ofproto/trace did not end with datapath actions:\n{text}")
    rule = next((name for cookie in _COOKIE.findall(text) if (name := rule_of(int(cookie, 16)))), None)
    actions = [action for line in lines for action in _flat(split_actions(line))]
    to = tuple(names.get(action, action) for action in actions if _is_port(action))
    queue = re.search(r"^\s+set_queue:(\d+)", text, re.MULTILINE)
    mark = re.search(r"^Final flow: .*\bpkt_mark=(0x[0-9a-f]+)", text, re.MULTILINE)
    return Verdict(
        to,
        rule,
        _as_it_leaves(packet, actions) if to else None,
        int(queue[1]) if queue and to else None,
        int(mark[1], 16) if mark and to else None,
        evidence=text,
    )


def _flat(actions: Iterable[str]) -> Iterator[str]:
    """The actions, those of a copy among them."""
    for action in actions:
        if (call := _CALL.fullmatch(action)) and call[1] == "clone":
            yield from _flat(split_actions(call[2]))
        else:
            yield action


def _is_port(action: str) -> bool:
    return bool(action) and action not in _NOT_PORTS and "(" not in action


def _as_it_leaves(packet: Packet, actions: Sequence[str]) -> Packet:
    """The packet as the last port gets it: what is done to it afterwards changes no packet that leaves."""
    last = max(place for place, action in enumerate(actions) if _is_port(action))
    for action in actions[:last]:
        call = _CALL.fullmatch(action)
        if action == "pop_vlan":
            packet = replace(packet, vlan=None, pcp=None)
        elif call and call[1] == "push_vlan":
            tag = _items(call[2])
            packet = replace(packet, vlan=int(tag["vid"], 0), pcp=int(tag.get("pcp", "0"), 0))
        elif call and call[1] == "set" and (header := _CALL.fullmatch(call[2])):
            packet = replace(packet, **_changes(packet, header[1], _items(header[2])))
    return packet


def _items(text: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in text.split(",") if "=" in item)


def _changes(packet: Packet, header: str, items: Mapping[str, str]) -> dict[str, Any]:
    names = _SET.get(header, {})
    known = {names[key]: text for key, text in items.items() if key in names}
    found: dict[str, Any] = {name: _written(getattr(packet, name), text) for name, text in known.items()}
    if (text := items.get(_CLASS.get(header, ""))) is not None:
        octet = _written(int(packet.dscp or 0) << 2 | (packet.ecn or 0), text)
        found |= {"dscp": octet >> 2, "ecn": octet & 3}
    return found


def _written(old: Any, text: str) -> Any:
    """A field's value with the bits that are set: ``VALUE``, or ``VALUE/MASK`` where only some of them are."""
    value, _, mask = text.partition("/")
    if not re.fullmatch(r"0x[0-9a-f]+|\d+", value):
        return value if not mask else _merged_address(old, value, mask)
    bits = int(mask, 0) if mask else -1
    return (int(old or 0) & ~bits) | (int(value, 0) & bits)


def _merged_address(old: Any, value: str, mask: str) -> str:
    if re.fullmatch(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", value):
        kept, new, bits = (int(text.replace(":", ""), 16) for text in (str(old), value, mask))
        return mac_text((kept & ~bits) | (new & bits))
    kept, new, bits = (int(ip_address(text)) for text in (str(old), value, mask))
    return str(type(ip_address(value))((kept & ~bits) | (new & bits)))
