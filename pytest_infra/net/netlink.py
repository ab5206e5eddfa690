"""An rtnetlink socket that takes many requests at once (netlink(7))."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..core.errors import InfraError

__all__ = ["NetlinkError", "NetlinkSocket", "Request"]

T = TypeVar("T")

Request = tuple[bytes, str]
"""An encoded message, and what it asks for, in words, for the error."""

_HEADER = struct.Struct("=IHHII")
_ERROR, _DONE = 2, 3
_F_ACK, _F_DUMP_INTR, _F_CAPPED, _F_ACK_TLVS = 0x4, 0x10, 0x100, 0x200
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_DUMPS = 100  # how often a list is asked for again that changed while it was given
_CHUNK = 64  # messages in one send; the answers to 64 RTM_GETLINK fit into the default receive buffer
_RECEIVE_BYTES = 1 << 20
_TIMEOUT_S = 10.0


class NetlinkError(InfraError, OSError):
    """The kernel refused a request; the text says which one and, where the kernel tells, why."""

    def __init__(self, number: int, what: str, said: str = "") -> None:
        OSError.__init__(self, number, os.strerror(number))
        self.what = what
        self.said = said

    def __str__(self) -> str:
        return f"{self.what}: {self.strerror}" + (f" ({self.said})" if self.said else "")


class NetlinkSocket:
    """A socket of the NETLINK_ROUTE family, in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._sequence = 0
        self._changed = False
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.settimeout(_TIMEOUT_S)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def request(self, requests: Sequence[Request]) -> list[bytes]:
        """Send all requests, in order, and return the messages that come back.

        The kernel works through a chunk even when one request fails.

        Raises:
            NetlinkError: the first request that was refused.
        """
        replies: list[bytes] = []
        for start in range(0, len(requests), _CHUNK):
            replies += self._exchange(requests[start : start + _CHUNK])
        return replies

    def dump(self, request: bytes, what: str) -> list[bytes]:
        """Send one dump request and return all messages of the answer, which are of one moment.

        Raises:
            NetlinkError: it was refused.
        """
        for _ in range(_DUMPS):
            self._changed = False
            replies = self._exchange([(request, what)], dump=True)
            if not self._changed:
                return replies
        raise NetlinkError(errno.EAGAIN, what, "it changed each time while it was read")

    def _exchange(self, requests: Sequence[Request], dump: bool = False) -> list[bytes]:
        first = self._sequence + 1
        packet = bytearray()
        for number, (message, _) in enumerate(requests, first):
            length, kind, flags, _, _ = _HEADER.unpack_from(message)
            if number == first + len(requests) - 1 and not dump:
                flags |= _F_ACK
            packet += _HEADER.pack(length, kind, flags, number, 0) + message[16:] + b"\0" * (-length % 4)
        self._sequence = last = first + len(requests) - 1
        replies: list[bytes] = []
        refused: NetlinkError | None = None
        self._transfer(self._socket.send, packet, requests[0][1])
        while True:
            data = self._transfer(self._socket.recv, _RECEIVE_BYTES, requests[0][1])
            offset = 0
            while offset < len(data):
                length, kind, flags, number, _ = _HEADER.unpack_from(data, offset)
                message = data[offset : offset + length]
                offset += (length + 3) & ~3
                if number < first:
                    continue  # left over from an exchange that was broken off
                self._changed |= bool(flags & _F_DUMP_INTR)
                if kind in (_ERROR, _DONE):
                    refused = refused or _refusal(message, flags, requests[number - first][1])
                else:
                    replies.append(message)
                if number == last and kind in (_ERROR, _DONE):
                    if refused is not None:
                        raise refused
                    return replies

    @staticmethod
    def _transfer(function: Callable[[Any], T], argument: object, what: str) -> T:
        try:
            return function(argument)
        except OSError as error:
            raise NetlinkError(error.errno or errno.ETIMEDOUT, what) from error


def _refusal(message: bytes, flags: int, what: str) -> NetlinkError | None:
    (code,) = struct.unpack_from("=i", message, 16)
    if code == 0:
        return None
    said = ""
    offset = 36  # header, code, and the header of the request: NETLINK_CAP_ACK leaves its content out
    if flags & _F_ACK_TLVS and flags & _F_CAPPED:
        while offset + 4 <= len(message):
            length, kind = struct.unpack_from("=HH", message, offset)
            if kind & 0x3FFF == 1:  # NLMSGERR_ATTR_MSG
                said = message[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
            offset += max((length + 3) & ~3, 4)
    return NetlinkError(-code, what, said)
