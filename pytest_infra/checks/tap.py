"""`Tap`: sees every frame that passes a node's interfaces, and can send frames (packet(7))."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["ETHERTYPE_ARP", "ETHERTYPE_IP", "EXPERIMENTAL", "Frame", "Tap", "ethernet"]

EXPERIMENTAL = 0x88B5
"""The local experimental EtherType 1 (IEEE 802): a frame that no protocol stack answers."""
ETHERTYPE_IP = (0x0800, 0x86DD)
"""IPv4 and IPv6."""
ETHERTYPE_ARP = 0x0806

_ETH_P_ALL = 0x0003
_SO_RCVBUFFORCE = 33
_RECEIVE_BUFFER = 8 << 20
_RECEIVE_BYTES = 1 << 16
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_HEADER = struct.Struct("!6s6sH")
_MIN_FRAME_BYTES = 60


@dataclass(frozen=True)
class Frame:
    """A frame that was seen at an interface."""

    interface: str
    outgoing: bool
    """Whether the node sends it; else it arrives."""
    ethertype: int
    payload: bytes


class Tap:
    """A packet socket on all interfaces; make it within the node, use it from anywhere, close it.

    Raises:
        PermissionError: the node's network namespace does not allow packet sockets.
    """

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._sock.setblocking(False)
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            try:
                self._sock.setsockopt(socket.SOL_SOCKET, option, _RECEIVE_BUFFER)
                break
            except PermissionError:  # in a user namespace: as much as is allowed
                continue
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def send(self, interface: str, frame: bytes) -> None:
        """Send a frame, padded to the least length of Ethernet.

        Raises:
            OSError: the interface is down (ENETDOWN) or gone (ENODEV, ENXIO).
        """
        self._sock.sendto(frame.ljust(_MIN_FRAME_BYTES, b"\0"), (interface, EXPERIMENTAL))

    def wait(self, timeout_s: float) -> bool:
        """Wait for a frame; whether there is one."""
        return bool(self._poll.poll(max(0.0, timeout_s * 1000)))

    def frames(self) -> Iterator[Frame]:
        """The frames seen since the last call."""
        while True:
            try:
                data, (interface, _, kind, *_) = self._sock.recvfrom(_RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an interface went down: the next call has the rest
                return
            if len(data) >= _HEADER.size:
                ethertype = _HEADER.unpack_from(data)[2]
                yield Frame(str(interface), kind == socket.PACKET_OUTGOING, ethertype, data[_HEADER.size :])

    def lost(self) -> int:
        """How many frames did not fit into the receive buffer since the last call."""
        return int(struct.unpack("=II", self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1])


def ethernet(destination: str, source: str, ethertype: int, payload: bytes) -> bytes:
    """An Ethernet frame; MAC addresses as ``02:00:00:00:00:01``."""
    return _HEADER.pack(_mac(destination), _mac(source), ethertype) + payload


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
