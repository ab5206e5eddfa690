"""Connection tracking as a model: which packets are new, established, related or invalid (netfilter's conntrack).

A connection is known from the moment when the packet that began it has been let through. It is established when a
packet came back. The model knows UDP, ICMP echo, ICMP errors, and TCP: its way into a connection, a refusal (RST to a
SYN), and its way out (a FIN from each side and the last ACK), after which a SYN begins another connection. It refuses
what real trackers judge by sequence numbers, or differently: other RST, and FIN where no connection is established.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ..core.errors import BadInput
from .classifier import Classifier, Verdict
from .fields import CT_STATES, IPV4
from .packet import Packet

__all__ = ["Tracked", "error_about"]

_TCP, _UDP = 6, 17
_ECHO = {1: (8, 0), 58: (128, 129)}
"""The types of an echo request and of its reply."""
_ERRORS = {1: (3, 11, 12), 58: (1, 2, 3, 4)}
"""The types of the errors that have the beginning of a packet in them."""
_NEW, _RELATED, _ESTABLISHED, _INVALID = range(4)
assert CT_STATES == ("new", "related", "established", "invalid")

_Key = tuple[Any, ...]


@dataclass
class _Ending:
    """How far a connection of TCP is from its end."""

    lone_syn: bool = False
    """Whether all that came so far, from its first side, was SYN."""
    refused: bool = False
    closed_by: tuple[_Key, ...] = ()
    """The sides that sent FIN, in their order."""
    acknowledged: bool = False
    """Whether the second FIN was."""

    @property
    def over(self) -> bool:
        return self.refused or self.acknowledged


class Tracked:
    """A classifier whose rules look at the state of connections, as a pure model that remembers them.

    Args:
        classifier: the rules.
    """

    name = Classifier.name
    shows = Classifier.shows

    def __init__(self, classifier: Classifier) -> None:
        self.installed = classifier
        self._replied: dict[_Key, bool] = {}
        self._ending: dict[_Key, _Ending] = {}

    def forget(self) -> None:
        """Forget all connections."""
        self._replied.clear()
        self._ending.clear()

    def classify_all(self, packets: Sequence[Packet]) -> list[Verdict]:
        """What becomes of each packet, in their order."""
        return [self._classify(packet) for packet in packets]

    def _classify(self, packet: Packet) -> Verdict:
        key = _key(packet)
        if packet.proto == _TCP:
            self._end(packet, key)
        state = self._state(packet, key)
        verdict = self.installed.classify(packet, ct_state=state)
        if verdict.to and state == _NEW:
            self._replied.setdefault(key, False)
            if packet.proto == _TCP:
                self._ending.setdefault(key, _Ending()).lone_syn = _flags(packet) == {"syn"}
        elif state == _ESTABLISHED and _turned(key) in self._replied and key not in self._replied:
            self._replied[_turned(key)] = True
        return verdict

    def _end(self, packet: Packet, key: _Key) -> None:
        """Follow a connection of TCP to its end."""
        flags, known = _flags(packet), key if key in self._ending else _turned(key)
        if known not in self._ending:
            if flags & {"fin", "rst"}:
                raise BadInput(f"{packet}: trackers differ about FIN and RST of a connection that is not known")
            return
        ending = self._ending[known]
        if ending.over and flags == {"syn"}:
            del self._ending[known], self._replied[known]
        elif ending.refused or (ending.closed_by and "syn" in flags):
            raise BadInput(f"{packet}: trackers differ about it; only a SYN may follow, once the connection is over")
        elif "rst" in flags:
            if not ending.lone_syn or self._replied[known] or key == known or flags != {"rst", "ack"}:
                raise BadInput(
                    f"{packet}: a RST is judged by its sequence number, but for 'rst ack' that answers a SYN"
                )
            ending.refused = True
        elif "fin" in flags:
            if not self._replied[known]:
                raise BadInput(f"{packet}: trackers differ about FIN of a connection that is not established")
            ending.closed_by = tuple(dict.fromkeys((*ending.closed_by, key)))
        elif len(ending.closed_by) == 2 and key == ending.closed_by[0]:
            ending.acknowledged = True

    def _state(self, packet: Packet, key: _Key) -> int:
        if packet.proto in _ERRORS and packet.icmp_type in _ERRORS[int(packet.proto)]:
            inner = _inner_key(packet)
            return _RELATED if inner in self._replied or _turned(inner) in self._replied else _INVALID
        if _turned(key) in self._replied and key not in self._replied:
            return _ESTABLISHED
        if key in self._replied:
            return _ESTABLISHED if self._replied[key] else _NEW
        return _NEW if _may_begin(packet) else _INVALID


def _key(packet: Packet) -> _Key:
    """What makes packets of one direction belong together."""
    proto = packet.proto
    if proto in _ECHO and packet.icmp_type in _ECHO[int(proto)]:
        return (proto, packet.src, packet.dst, int(packet.icmp_type == _ECHO[int(proto)][1]))
    if proto in _ERRORS and packet.icmp_type in _ERRORS[int(proto)]:
        return (proto, packet.src, packet.dst, packet.payload)
    if proto not in (_TCP, _UDP):
        raise BadInput(f"{packet}: the model knows connections of UDP, ICMP echo and TCP, and ICMP errors")
    return (proto, packet.src, packet.dst, packet.sport, packet.dport)


def _turned(key: _Key) -> _Key:
    """The other direction."""
    if key[0] in _ECHO:
        return (key[0], key[2], key[1], 1 - key[3]) if isinstance(key[3], int) else (key[0], key[2], key[1], key[3])
    return (key[0], key[2], key[1], key[4], key[3])


def _flags(packet: Packet) -> set[str]:
    return set((packet.tcp_flags or "").split())


def _may_begin(packet: Packet) -> bool:
    if packet.proto in _ECHO:
        return packet.icmp_type == _ECHO[int(packet.proto)][0]
    if packet.proto == _TCP:
        flags = _flags(packet)
        return bool(flags) and not {"syn", "ack"} <= flags  # a connection under way may be picked up
    return True


def error_about(packet: Packet, about: Packet) -> Packet:
    """An ICMP error that tells of another packet, and has that one's beginning in it (RFC 792, RFC 4443).

    Args:
        packet: the error: its type, code and addresses.
        about: the packet that it tells of.
    """
    from .wire import encode

    inner = encode(replace(about, payload=bytes(16)))
    return replace(packet, payload=inner[14 if about.vlan is None else 18 :])


def _inner_key(packet: Packet) -> _Key:
    data = packet.payload
    try:
        if packet.eth_type == IPV4:
            proto, (src, dst), at = data[9], struct.unpack_from("!II", data, 12), 20
            ends: list[object] = [str(IPv4Address(src)), str(IPv4Address(dst))]
        else:
            proto, at = data[6], 40
            ends = [str(IPv6Address(data[8:24])), str(IPv6Address(data[24:40]))]
        if proto in _ECHO:
            return (proto, *ends, int(data[at] == _ECHO[proto][1]))
        return (proto, *ends, *struct.unpack_from("!HH", data, at))
    except (struct.error, IndexError):
        raise BadInput(f"{packet}: it is an ICMP error without a packet in it; make it with error_about()") from None
