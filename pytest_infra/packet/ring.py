"""`Ring`: frames that arrive at an interface, read from memory that the kernel shares (packet(7), PACKET_RX_RING)."""

from __future__ import annotations

import mmap
import select
import socket
import struct
from collections.abc import Iterator

from ..core.node import NodePort

__all__ = ["Ring"]

_SOL_PACKET = 263
_RX_RING, _STATISTICS, _VERSION, _IGNORE_OUTGOING = 5, 6, 10, 23
_TPACKET_V2 = 1
_ETH_P_ALL = 0x0003
_HEADER = struct.Struct("=IIIHHIIHH")  # struct tpacket2_hdr, linux/if_packet.h
_STATUS = struct.Struct("=I")
_KERNEL, _USER, _VLAN_VALID, _VLAN_TPID_VALID = 0, 1, 1 << 4, 1 << 6
_BLOCK_BYTES = 1 << 18
_HEADROOM = 128  # of a frame in the ring, for its header


class Ring:
    """What arrives at a node's interface, with VLAN tags put back where the kernel took them out.

    Args:
        port: the interface.
        frames: how many frames it holds; more that come before `drain` are lost.

    Raises:
        OSError: the interface is gone, or the kernel refuses so much memory.
    """

    def __init__(self, port: NodePort, frames: int = 8192) -> None:
        self._size = 1 << (port.mtu + 22 + _HEADROOM - 1).bit_length()
        per_block = max(1, _BLOCK_BYTES // self._size)
        blocks = -(-frames // per_block)
        self._count, self._place = blocks * per_block, 0
        self.socket = port.node.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self.socket.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
            self.socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            request = struct.pack("=IIII", self._size * per_block, blocks, self._size, self._count)
            self.socket.setsockopt(_SOL_PACKET, _RX_RING, request)
            self._memory = mmap.mmap(self.socket.fileno(), self._size * self._count)
            self.socket.bind((port.name, _ETH_P_ALL))
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """Give the memory and the socket back."""
        self._memory.close()
        self.socket.close()

    def send(self, frame: bytes) -> None:
        """Send a frame from the interface.

        Raises:
            OSError: the interface is down or gone.
        """
        self.socket.send(frame)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a frame; whether there is one."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s * 1000)))

    def drain(self) -> Iterator[bytes]:
        """The frames that have arrived since the last call."""
        yield from (frame for _, frame in self.timed())

    def timed(self) -> Iterator[tuple[int, bytes]]:
        """The frames that have arrived since the last call, with the kernel's time of arrival in nanoseconds."""
        memory = self._memory
        while True:
            at = self._place * self._size
            status, _, captured, start, _, seconds, ns, tci, tpid = _HEADER.unpack_from(memory, at)
            if not status & _USER:
                return
            frame = memory[at + start : at + start + captured]
            _STATUS.pack_into(memory, at, _KERNEL)
            self._place = (self._place + 1) % self._count
            if status & _VLAN_VALID:
                kind = tpid if status & _VLAN_TPID_VALID else 0x8100
                frame = frame[:12] + struct.pack("!HH", kind, tci) + frame[12:]
            yield seconds * 10**9 + ns, frame

    def lost(self) -> int:
        """How many frames did not fit into the ring since the last call."""
        return int(struct.unpack("=II", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1])
