"""Packet sockets with a ring in memory, into which the kernel writes by itself (packet(7), packet_mmap.rst)."""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["CaptureRing", "RecorderRing", "Ring", "Seen", "close_in_background"]

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_RX_RING, _STATISTICS, _VERSION = 5, 6, 10
_SO_ATTACH_FILTER = 26
_V2, _V3 = 1, 2
_USER, _VLAN_VALID, _VLAN_TPID_VALID = 0x1, 0x10, 0x40
_OUTGOING = 4
_VLAN_TAG = 0x8100
_MACS_BYTES = 12

_HEADER2 = struct.Struct("=IIIHHIIHH")  # struct tpacket2_hdr
_HEADER3 = struct.Struct("=IIIIIIHHIIH")  # struct tpacket3_hdr
_ADDRESS = struct.Struct("=HHiHB")  # struct sockaddr_ll, as far as it is needed
_ADDRESS2_AT, _ADDRESS3_AT = 32, 48  # TPACKET_ALIGN of the headers' sizes
_BLOCK = struct.Struct("=III")  # block_status, num_pkts, offset_to_first_pkt of struct tpacket_hdr_v1
_BLOCK_AT = 8
_ROOM_BYTES = 128  # in a slot, before the packet
_CLOSES_BY_ITSELF_MS = 3_600_000


class Seen(NamedTuple):
    """A packet as the ring has it."""

    time_ns: int
    interface: int
    """Its index."""
    outgoing: bool
    data: bytes
    length: int


def _attach(sock: socket.socket, program: bytes) -> None:
    import ctypes

    code = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(code)))


def _bind(sock: socket.socket, index: int) -> None:
    """Have a packet socket receive everything at an interface, or with 0 at all; `socket.bind` wants a name."""
    import ctypes

    address = struct.pack("=H2si12x", socket.AF_PACKET, struct.pack("!H", _ETH_P_ALL), index)
    if ctypes.CDLL(None, use_errno=True).bind(sock.fileno(), address, len(address)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Ring:
    """The socket and its memory; make it in the network namespace, read it from anywhere."""

    def __init__(self, version: int, program: bytes, request: bytes, size: int, index: int) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._lost = 0
        try:
            self._socket.setsockopt(_SOL_PACKET, _VERSION, version)
            _attach(self._socket, program)  # before it is bound, so that no packet gets past it
            self._socket.setsockopt(_SOL_PACKET, _RX_RING, request)
            self._memory = mmap.mmap(self._socket.fileno(), size)
            _bind(self._socket, index)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give back socket and memory; the kernel takes some ten milliseconds for it, in which it waits."""
        if hasattr(self, "_memory"):
            self._memory.close()
        self._socket.close()

    def fileno(self) -> int:
        """The socket's descriptor, for poll."""
        return self._socket.fileno()

    def lost(self) -> int:
        """How many packets found no room in the ring so far."""
        size = 12 if isinstance(self, RecorderRing) else 8
        self._lost += int(struct.unpack_from("=II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, size))[1])
        return self._lost

    def _seen(self, at: int, mac: int, status: int, sizes: tuple[int, int], tag: tuple[int, int], time_ns: int) -> Seen:
        address_at = _ADDRESS3_AT if isinstance(self, RecorderRing) else _ADDRESS2_AT
        _, _, index, _, kind = _ADDRESS.unpack_from(self._memory, at + address_at)
        length, kept = sizes
        data = self._memory[at + mac : at + mac + kept]
        if status & _VLAN_VALID:
            kind_of_tag = tag[1] if status & _VLAN_TPID_VALID else _VLAN_TAG
            data = data[:_MACS_BYTES] + struct.pack("!HH", kind_of_tag, tag[0]) + data[_MACS_BYTES:]
            length += 4
        return Seen(time_ns, index, kind == _OUTGOING, data, length)


class CaptureRing(Ring):
    """A ring of slots, one a packet: each can be read and waited for at once (TPACKET_V2).

    Args:
        program: the classic BPF program that chooses.
        index: the interface.
        slot_bytes: room for one packet and its header; a power of two, at least 256.
        slots: how many fit.
    """

    def __init__(self, program: bytes, index: int, slot_bytes: int, slots: int) -> None:
        block = max(slot_bytes, mmap.PAGESIZE)
        slots = max(slots, block // slot_bytes)
        blocks = slots * slot_bytes // block
        self._slot_bytes, self._slots, self._next = slot_bytes, slots, 0
        request = struct.pack("=IIII", block, blocks, slot_bytes, slots)
        super().__init__(_V2, program, request, block * blocks, index)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a packet; whether there is one."""
        return bool(self._poll.poll(max(0.0, timeout_s) * 1000))

    def take(self) -> Iterator[Seen]:
        """The packets since the last call; their slots are free again."""
        while True:
            at = self._next * self._slot_bytes
            status, length, kept, mac, _, second, nanosecond, tci, tpid = _HEADER2.unpack_from(self._memory, at)
            if not status & _USER:
                return
            found = self._seen(at, mac, status, (length, kept), (tci, tpid), second * 10**9 + nanosecond)
            self._memory[at : at + 4] = bytes(4)  # TP_STATUS_KERNEL
            self._next = (self._next + 1) % self._slots
            yield found


class RecorderRing(Ring):
    """A ring that always has the latest packets of all interfaces of a namespace, and costs little (TPACKET_V3).

    It has blocks of many packets. Nothing has to be done until a block is full; then `release` gives the kernel
    back the oldest ones.

    Args:
        program: the classic BPF program that chooses, and cuts the packets off.
        block_bytes: the size of a block, a multiple of the page size.
        blocks: how many, at least 3.
    """

    def __init__(self, program: bytes, block_bytes: int, blocks: int) -> None:
        self._block_bytes, self._blocks, self._oldest = block_bytes, blocks, 0
        frame = 2048  # not used with blocks of this version, but checked
        slots = block_bytes // frame * blocks
        request = struct.pack("=7I", block_bytes, blocks, frame, slots, _CLOSES_BY_ITSELF_MS, 0, 0)
        super().__init__(_V3, program, request, block_bytes * blocks, 0)

    def _block(self, number: int) -> tuple[int, int, int]:
        status, packets, first = _BLOCK.unpack_from(self._memory, number * self._block_bytes + _BLOCK_AT)
        return status, packets, first

    def release(self) -> None:
        """Give the oldest full blocks back until half of them are free."""
        free = sum(not self._block(number)[0] & _USER for number in range(self._blocks))
        while free < self._blocks // 2 and self._block(self._oldest)[0] & _USER:
            at = self._oldest * self._block_bytes + _BLOCK_AT
            self._memory[at : at + 4] = bytes(4)
            self._oldest = (self._oldest + 1) % self._blocks
            free += 1

    def packets(self) -> list[Seen]:
        """The packets in the ring, the oldest first; those of the block that is being filled too."""
        found: list[Seen] = []
        for step in range(self._blocks):
            number = (self._oldest + step) % self._blocks
            status, packets, first = self._block(number)
            found += self._of_block(number * self._block_bytes, packets, first)
            if not status & _USER:  # the kernel is at this one; those behind it are older, and given back
                break
        return found

    def _of_block(self, start: int, packets: int, first: int) -> Iterator[Seen]:
        at, end = start + first, start + self._block_bytes
        for _ in range(packets):
            if not start < at <= end - _ROOM_BYTES:
                return
            following, second, nanosecond, kept, length, status, mac, _, _, tci, tpid = _HEADER3.unpack_from(
                self._memory, at
            )
            if not second or at + mac + kept > end:  # the kernel is writing it at this moment
                return
            yield self._seen(at, mac, status, (length, kept), (tci, tpid), second * 10**9 + nanosecond)
            if not following:
                return
            at += following


def close_in_background(rings: Sequence[Ring]) -> None:
    """Give rings back without waiting for it: the kernel takes its time, and nobody needs the result."""

    def close() -> None:
        for ring in rings:
            ring.close()

    threading.Thread(target=close, name="infra-rings", daemon=True).start()
