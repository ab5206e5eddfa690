"""The sentinel: a frame sent behind a probe, whose arrival proves that the probe would have arrived before it.

A wire and a switch keep the order of the frames that go from one port to another (IEEE 802.1Q section 6.5.3), so on
one segment the sentinel cannot overtake. Three things could still let it do so, and each is dealt with:

* The kernel queues arriving frames for each CPU apart. `flush` sends a frame through the queue of every CPU after the
  sentinel, so that whatever came before it has been worked off.
* A switch in user space may send a batch in another order than it took it in. The sentinel is sent a second time after
  the first has arrived.
* The probe may wait in its sender for address resolution (ARP, RFC 826; RFC 4861). Sentinels go forth and back again
  until request, answer and probe must have passed.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..core.node import IPAddress, Node, NodePort
from ..net.frame import SENTINEL
from .answer import Carried
from .icmp import ip_header_bytes
from .tap import ETHERTYPE_ARP, ETHERTYPE_IP, EXPERIMENTAL, Tap, ethernet

__all__ = ["Watch", "flush", "pass_sentinel"]

_NONCE_BYTES = 16
_NOWHERE = "00:00:00:00:00:00"
_ICMPV6, _NEIGHBOUR_SOLICITATION = 58, 135
_ARP_TARGET = struct.Struct("!24x4s")


@dataclass
class Watch:
    """What one node has seen of a probe, its answers and the sentinels."""

    node: Node
    tap: Tap
    carried_by: Callable[[bytes], Carried]
    sentinels: set[bytes] = field(default_factory=set)
    arrived: set[str] = field(default_factory=set)
    """``request`` and ``reply``, once they have arrived here."""
    source: str = ""
    """The source address of the request as it arrived here."""
    left_by: dict[str, set[str]] = field(default_factory=dict)
    """The interfaces by which the request and the reply have left."""
    resolved: set[tuple[str, IPAddress]] = field(default_factory=set)
    """Address resolutions that the node has begun: interface and address."""

    def look(self, wait_s: float = 0.0) -> None:
        """Take in what has passed; wait for at most `wait_s` seconds when there is nothing yet."""
        if wait_s and not self.tap.wait(wait_s):
            return
        for frame in self.tap.frames():
            if frame.ethertype == EXPERIMENTAL and not frame.outgoing:
                self.sentinels.add(frame.payload[:_NONCE_BYTES])
            elif frame.ethertype in ETHERTYPE_IP and (kind := self.carried_by(frame.payload)):
                if frame.outgoing:
                    self.left_by.setdefault(kind, set()).add(frame.interface)
                else:
                    self.arrived.add(kind)
                    if kind == "request":
                        self.source = _source(frame.payload)
            elif frame.outgoing and (address := _resolution(frame.ethertype, frame.payload)):
                self.resolved.add((frame.interface, address))


def pass_sentinel(
    near: Watch, out: NodePort, far: Watch, into: NodePort, *, deadline: float, idle: Callable[[], bool]
) -> bool:
    """Send a sentinel from one port and wait for it at the other.

    Args:
        near: the node that sends it.
        out: the port it leaves by.
        far: the node that should get it.
        into: the port it should arrive at.
        deadline: when to give up (time.monotonic).
        idle: called now and then while waiting; when it says True, the wait is over.

    Returns:
        Whether it arrived.

    Raises:
        OSError: it could not be sent: the interface is down or gone.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    near.tap.send(out.name, ethernet(into.mac, out.mac, EXPERIMENTAL, nonce + SENTINEL))
    return _await(far, nonce, deadline, idle)


def flush(watch: Watch, deadline: float) -> bool:
    """See to it that every frame that was queued in this kernel before has been worked off; run it within the node.

    A frame is sent through the queue of each CPU that this process may use, by way of the loopback interface.

    Returns:
        Whether all came through in time.
    """
    allowed = os.sched_getaffinity(0)
    try:
        for cpu in sorted(allowed):
            os.sched_setaffinity(0, {cpu})
            nonce = secrets.token_bytes(_NONCE_BYTES)
            watch.tap.send("lo", ethernet(_NOWHERE, _NOWHERE, EXPERIMENTAL, nonce + SENTINEL))
            if not _await(watch, nonce, deadline, lambda: False):
                return False
    except OSError:  # no loopback interface that is up, or a CPU went away
        return False
    finally:
        os.sched_setaffinity(0, allowed)
    return True


_SLICE_S = 0.01


def _await(watch: Watch, nonce: bytes, deadline: float, idle: Callable[[], bool]) -> bool:
    while True:
        watch.look(max(0.0, min(_SLICE_S, deadline - time.monotonic())))
        if nonce in watch.sentinels:
            return True
        if idle() or time.monotonic() > deadline:
            return False


def _source(packet: bytes) -> str:
    version = packet[0] >> 4
    return str(ipaddress.ip_address(packet[12:16] if version == 4 else packet[8:24]))


def _resolution(ethertype: int, payload: bytes) -> IPAddress | None:
    """The address that an ARP request or a neighbour solicitation asks for."""
    if ethertype == ETHERTYPE_ARP and len(payload) >= _ARP_TARGET.size:
        return ipaddress.IPv4Address(_ARP_TARGET.unpack_from(payload)[0])
    header = ip_header_bytes(payload) if ethertype == ETHERTYPE_IP[1] else None
    if header is None or header[1] != _ICMPV6:
        return None
    message = payload[header[0] :]
    if len(message) < 24 or message[0] != _NEIGHBOUR_SOLICITATION:
        return None
    return ipaddress.IPv6Address(message[8:24])
