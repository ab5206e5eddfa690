"""RED as the kernel does it (include/net/red.h): the chance of each drop, and a real queue that is asked about it.

The kernel draws a number when the average queue enters the range between the thresholds, and again after each drop. It
drops the first packet for which count · (average - low) reaches the number, so that drops are spread evenly. A packet
that comes first after a draw is dropped with the chance of the curve; that is what is tried here, many times, each
time in a new queue.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack

from ..core.errors import BadInput, InfraError, Unavailable
from ..core.node import NodePort
from ..core.resource import Resource
from ..net.netlink import NetlinkError, NetlinkSocket
from .dropper import Red
from .install_tc import TC_COMMAND
from .packet import Packet
from .ring import Ring
from .wire import SMALLEST_FRAME, encode

__all__ = ["RedQueue"]

_NEW, _GET = 36, 38  # RTM_NEWQDISC, RTM_GETQDISC
_REQUEST, _ACK, _REPLACE, _CREATE, _DUMP = 0x001, 0x004, 0x100, 0x400, 0x300
_KIND, _OPTIONS, _STATS = 1, 2, 3  # TCA_…, with struct tc_stats
_PARMS, _STAB, _MAX_P = 1, 2, 3  # TCA_RED_…
_PARENT = 0x00010001
_LIMIT = 1 << 24
_HALF = 1  # the logarithm of the weight: the average moves halfway to the queue each time
_LARGEST = 30_000
_TRIES = 3  # once a minute the link lets a frame through


class RedQueue(Resource):
    """The qdisc red (tc-red(8)) at a port, behind a link that sends nothing: what is let in stays in the queue.

    Args:
        port: the interface; its MTU must be at least 30000 bytes. It gets another queueing discipline.

    Raises:
        Unavailable: tc is not installed, or the kernel lacks red.
    """

    requires = (TC_COMMAND,)

    def __init__(self, port: NodePort) -> None:
        self._port = port
        self._handle = 16

    def _start(self, undo: ExitStack) -> None:
        node, name = self._port.node, self._port.name
        self._index = node.interfaces[name].index
        tc = TC_COMMAND.path()
        node.run([tc, "qdisc", "replace", "dev", name, "root", "handle", "1:", "htb", "default", "1"])
        undo.callback(node.run, [tc, "qdisc", "del", "dev", name, "root"], check=False)
        # A byte a second: a frame that it sends after all keeps it shut for a minute.
        shut = ["rate", "8bit", "burst", "1", "cburst", "1"]
        node.run([tc, "class", "add", "dev", name, "parent", "1:", "classid", "1:1", "htb", *shut])
        self._ring = Ring(self._port, 1)
        undo.callback(self._ring.close)
        self._netlink: NetlinkSocket = node.call(NetlinkSocket)
        undo.callback(self._netlink.close)
        self._ring.send(encode(Packet(), bytes(1400)))  # what is let through at first

    def try_once(self, curve: Red, depth: int) -> bool:
        """Whether a packet is dropped that comes to a queue of that average depth, the first one after a draw.

        Args:
            curve: the thresholds in bytes.
            depth: the average that the packet shall meet, in bytes: between the thresholds.

        Raises:
            BadInput: a depth that cannot be made.
        """
        self.start()
        first = _first_packet(depth)
        if first < 2 * curve.low or depth >= curve.high or first > _LARGEST:
            least, most = 3 * curve.low // 2 + SMALLEST_FRAME, min(curve.high, 3 * _LARGEST // 4) - 1
            raise BadInput(f"depth is {depth} bytes; from {least} to {most} can be made")
        for _ in range(_TRIES):
            self._replace(curve)
            for size in (first, SMALLEST_FRAME, SMALLEST_FRAME):
                self._ring.send(encode(Packet(), bytes(size - 14)))
            drops, queued = self._statistics()
            if drops + queued == 3:
                return drops == 1
        raise InfraError(f"{drops} of 3 packets were dropped and {queued} are in the queue: the link is not shut")

    def _replace(self, curve: Red) -> None:
        """A new queue in the place of the old one, with what it held."""
        self._handle = 16 + (self._handle - 15) % 0x7000
        parms = struct.pack("=IIIBBBB", _LIMIT, curve.low, curve.high, _HALF, 0, 0, 0)
        options = _attribute(_PARMS, parms) + _attribute(_STAB, bytes(256))
        options += _attribute(_MAX_P, struct.pack("=I", min(int(curve.most * 2**32), 2**32 - 1)))
        content = _attribute(_KIND, b"red\0") + _attribute(_OPTIONS, options)
        message = self._message(_NEW, _REQUEST | _ACK | _CREATE | _REPLACE, self._handle << 16, content)
        try:
            self._netlink.request([(message, "a queue of red")])
        except NetlinkError as error:
            raise Unavailable("tc-red", f"the kernel refuses it: {error}", "use a kernel with sch_red") from error

    def _message(self, kind: int, flags: int, handle: int, content: bytes = b"") -> bytes:
        body = struct.pack("=BxxxiIII", 0, self._index, handle, _PARENT, 0) + content
        return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body

    def _statistics(self) -> tuple[int, int]:
        """Packets that were dropped, and packets in the queue."""
        replies = self._netlink.dump(self._message(_GET, _REQUEST | _DUMP, 0), "the queues")
        for reply in replies:
            index, handle = struct.unpack_from("=iI", reply, 20)
            if index == self._index and handle == self._handle << 16:
                # struct tc_stats: bytes, packets, drops, overlimits, bps, pps, qlen, backlog
                _, _, drops, _, _, _, queued, _ = struct.unpack_from("=QIIIIIII", _find(reply[36:], _STATS))
                return drops, queued
        raise InfraError("the queue of red is not there any more")


def _first_packet(depth: int) -> int:
    """The size of the packet that makes the queue, so that the third one meets that average.

    The average, doubled, is 0, then the first packet's size F, then F + (F + 60 - F / 2).
    """
    return (4 * depth - 2 * SMALLEST_FRAME) // 3


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _find(attributes: bytes, wanted: int) -> bytes:
    offset = 0
    while offset + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, offset)
        if kind & 0x3FFF == wanted:
            return attributes[offset + 4 : offset + length]
        offset += max((length + 3) & ~3, 4)
    raise InfraError(f"the kernel's answer has no attribute {wanted}")
