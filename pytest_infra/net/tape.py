"""`Tape`: a packet socket that has the latest frames of a network namespace in its receive buffer (packet(7)).

A ring of memory shared with the kernel would cost 11 ms to make, in which the kernel waits for a grace period; a plain
socket costs some 40 us, and its buffer only takes memory for what is in it. A full buffer drops the newest frames. So
there are two sockets: when the buffer of one is half full, it takes no more, another one takes over, and the one
before it is given back. Nothing is copied out before somebody wants to see it.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from ..core.sockets import SO_TIMESTAMPNS
from .ring import VLAN_TAG, attach_filter, bind_to_all, with_tag

__all__ = ["Recorded", "Tape"]

_SOL_PACKET = 263
_AUXDATA, _STATISTICS = 8, 6
_SO_RCVBUFFORCE, _SO_MEMINFO = 33, 55
_MEMINFO = struct.Struct("=9I")
_AUX = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_TIMESPEC = struct.Struct("@ll")
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40
_TAKE_NOTHING = struct.pack("=HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0
_ANCILLARY_BYTES = 256
_SNAP_BYTES = 2048
"""So much of a frame is kept."""


class Recorded(NamedTuple):
    """A frame as it was recorded."""

    time_ns: int
    interface: str
    """Its name; empty when it is gone."""
    outgoing: bool
    data: bytes
    length: int


class _Reel:
    """One of the sockets."""

    def __init__(self, buffer_bytes: int) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._found: list[Recorded] = []
        self._lost = 0
        try:
            for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
                with suppress(PermissionError):  # in a user namespace: as much as is allowed
                    self.socket.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
                    break
            self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self.socket.setsockopt(_SOL_PACKET, _AUXDATA, 1)
            self.socket.setblocking(False)
            bind_to_all(self.socket)
        except BaseException:
            self.socket.close()
            raise

    def fill(self) -> float:
        """The part of the buffer that is in use."""
        used, size, *_ = _MEMINFO.unpack(self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
        return float(used / size)

    def end(self) -> None:
        """Take no more frames; those in the buffer stay."""
        attach_filter(self.socket, _TAKE_NOTHING)

    def lost(self) -> int:
        """How many frames found no room."""
        self._lost += int(struct.unpack("=II", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1])
        return self._lost

    def frames(self) -> list[Recorded]:
        """All frames that it has had; they stay for the next time."""
        self._found += self._take()
        return self._found

    def _take(self) -> Iterator[Recorded]:
        buffer = bytearray(_SNAP_BYTES)
        while True:
            try:
                size, extra, _, (interface, _, kind, *_) = self.socket.recvmsg_into(
                    [buffer], _ANCILLARY_BYTES, socket.MSG_TRUNC
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:  # an interface went down: that is told once, before the rest
                    continue
                return
            yield _recorded(bytes(buffer[:size]), size, extra, str(interface), kind == socket.PACKET_OUTGOING)


def _recorded(
    data: bytes, length: int, extra: Iterable[tuple[int, int, bytes]], interface: str, outgoing: bool
) -> Recorded:
    time_ns = 0
    for level, kind, content in extra:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            second, nanosecond = _TIMESPEC.unpack_from(content)
            time_ns = second * 10**9 + nanosecond
        elif (level, kind) == (_SOL_PACKET, _AUXDATA) and len(content) >= _AUX.size:
            status, _, _, _, _, tci, tpid = _AUX.unpack_from(content)
            if status & _VLAN_VALID:
                data, length = with_tag(data, tpid if status & _VLAN_TPID_VALID else VLAN_TAG, tci), length + 4
    return Recorded(time_ns, interface, outgoing, data, length)


class Tape:
    """The latest frames of all interfaces of a namespace; make it there.

    Args:
        buffer_bytes: the size of a receive buffer; without root the kernel allows less (net.core.rmem_max).
    """

    def __init__(self, buffer_bytes: int) -> None:
        self._buffer_bytes = buffer_bytes
        self._reels = [_Reel(buffer_bytes)]
        self._lost = 0

    @property
    def full(self) -> bool:
        """Whether it is time to `wind`."""
        return self._reels[-1].fill() >= 0.5

    def wind(self) -> list[socket.socket]:
        """Begin another reel, within the namespace; returns the sockets that are to be closed."""
        now, new = self._reels[-1], _Reel(self._buffer_bytes)
        old, self._reels = self._reels[:-1], [now, new]
        now.end()
        self._lost += sum(reel.lost() for reel in old)
        return [reel.socket for reel in old]

    def lost(self) -> int:
        """How many frames found no room so far; those that gave way to later ones do not count."""
        return self._lost + sum(reel.lost() for reel in self._reels)

    def frames(self) -> list[Recorded]:
        """The frames at hand, the oldest first."""
        found = (frame for reel in self._reels for frame in reel.frames())
        return list(dict.fromkeys(found))  # for a moment both sockets were there

    def sockets(self) -> list[socket.socket]:
        """Its sockets, to be closed."""
        return [reel.socket for reel in self._reels]
