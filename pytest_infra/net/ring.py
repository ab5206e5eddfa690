"""Packet sockets with a ring in memory, into which the kernel writes by itself (packet(7), packet_mmap.rst)."""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["VLAN_TAG", "CaptureRing", "Seen", "attach_filter", "bind_to_all", "with_tag"]

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_RX_RING, _STATISTICS, _VERSION, _IGNORE_OUTGOING = 5, 6, 10, 23
_SO_ATTACH_FILTER = 26
_V2 = 1
_USER, _VLAN_VALID, _VLAN_TPID_VALID = 0x1, 0x10, 0x40
_OUTGOING = 4
VLAN_TAG = 0x8100
"""The EtherType of a VLAN tag (IEEE 802.1Q)."""
_MACS_BYTES = 12
_BLOCK_BYTES = 1 << 16

_HEADER = struct.Struct("=IIIHHIIHH")  # struct tpacket2_hdr
_ADDRESS = struct.Struct("=HHiHB")  # struct sockaddr_ll, as far as it is needed
_ADDRESS_AT = 32  # TPACKET_ALIGN of the header's size


class Seen(NamedTuple):
    """A packet as the ring has it."""

    time_ns: int
    interface: int
    """Its index."""
    outgoing: bool
    data: bytes
    length: int


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """Have a socket take only what a classic BPF program says (socket(7), SO_ATTACH_FILTER)."""
    import ctypes

    code = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(code)))


def bind_to_all(sock: socket.socket, index: int = 0) -> None:
    """Have a packet socket receive everything, at one interface or at all; `socket.bind` wants a name."""
    import ctypes

    address = struct.pack("=H2si12x", socket.AF_PACKET, struct.pack("!H", _ETH_P_ALL), index)
    if ctypes.CDLL(None, use_errno=True).bind(sock.fileno(), address, len(address)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def with_tag(frame: bytes, kind: int, tci: int) -> bytes:
    """A frame with the VLAN tag that the kernel has taken out of it."""
    return frame[:_MACS_BYTES] + struct.pack("!HH", kind, tci) + frame[_MACS_BYTES:]


class CaptureRing:
    """A ring of slots, one a packet: each can be read and waited for at once (TPACKET_V2).

    Make it in the network namespace, read it from anywhere.

    Args:
        index: the interface.
        slot_bytes: room for one packet and its header; a power of two, at least 256.
        slots: how many fit at least.
        program: the classic BPF program that chooses; all by default.
        outgoing: whether what the node itself sends counts, too.
    """

    def __init__(self, index: int, slot_bytes: int, slots: int, *, program: bytes = b"", outgoing: bool = True) -> None:
        block = max(slot_bytes, _BLOCK_BYTES)
        blocks = -(-slots * slot_bytes // block)
        slots = blocks * block // slot_bytes
        self._slot_bytes, self._slots, self._next, self._lost = slot_bytes, slots, 0, 0
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            self.socket.setsockopt(_SOL_PACKET, _VERSION, _V2)
            if program:
                attach_filter(self.socket, program)  # before it is bound, so that no packet gets past it
            if not outgoing:
                self.socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            self.socket.setsockopt(_SOL_PACKET, _RX_RING, struct.pack("=IIII", block, blocks, slot_bytes, slots))
            self._memory = mmap.mmap(self.socket.fileno(), block * blocks)
            bind_to_all(self.socket, index)
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def close(self) -> None:
        """Give back socket and memory; the kernel takes some ten milliseconds for it, in which it waits."""
        if hasattr(self, "_memory"):
            self._memory.close()
        self.socket.close()

    def lost(self) -> int:
        """How many packets found no room in the ring so far."""
        self._lost += int(struct.unpack_from("=II", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1])
        return self._lost

    def wait(self, timeout_s: float) -> bool:
        """Wait for a packet; whether there is one."""
        return bool(self._poll.poll(max(0.0, timeout_s) * 1000))

    def take(self) -> Iterator[Seen]:
        """The packets since the last call; their slots are free again."""
        while True:
            at = self._next * self._slot_bytes
            status, length, kept, mac, _, second, nanosecond, tci, tpid = _HEADER.unpack_from(self._memory, at)
            if not status & _USER:
                return
            _, _, index, _, kind = _ADDRESS.unpack_from(self._memory, at + _ADDRESS_AT)
            data = self._memory[at + mac : at + mac + kept]
            if status & _VLAN_VALID:
                data, length = with_tag(data, tpid if status & _VLAN_TPID_VALID else VLAN_TAG, tci), length + 4
            self._memory[at : at + 4] = bytes(4)  # TP_STATUS_KERNEL
            self._next = (self._next + 1) % self._slots
            yield Seen(second * 10**9 + nanosecond, index, kind == _OUTGOING, data, length)
