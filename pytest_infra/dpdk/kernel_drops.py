"""What the kernel drops before a DPDK process can take it, where DPDK's driver does not count it.

That of AF_PACKET sockets counts since DPDK 24 only, that of TAP devices never: the kernel knows.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from ..core import linux

__all__ = ["KernelDrops"]

_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_TX_DROPPED = 11


class KernelDrops:
    """The kernel's counts of what it dropped on the way to a process, by port.

    Where another process's sockets may not be looked at (pidfd_getfd(2)), those of AF_PACKET stay 0.

    Args:
        sources: by the port's number, the index of the interface that its AF_PACKET sockets are bound to, or the name
            of its TAP device.
    """

    def __init__(self, sources: Callable[[], Mapping[int, int | str]]) -> None:
        self._sources = sources
        self._dropped: dict[int, int] = {}
        self._before: dict[str, int] = {}
        self._change = threading.Lock()

    def begin(self, pid: int) -> None:
        """Count from now on; what came before the process was ready is not its fault."""
        with self._change:
            self._before = _tap_drops(pid)
            self._take(pid)
            self._dropped = {}

    def look(self, pid: int) -> dict[int, int]:
        """How many packets were dropped on the way to each port since the beginning."""
        with self._change:
            sources = self._sources()
            if any(isinstance(source, int) for source in sources.values()):
                self._take(pid)
            taps = _tap_drops(pid) if any(isinstance(source, str) for source in sources.values()) else {}
            return {
                port: taps.get(source, 0) - self._before.get(source, 0)
                if isinstance(source, str)
                else self._dropped.get(source, 0)
                for port, source in sources.items()
            }

    def _take(self, pid: int) -> None:
        """The kernel forgets the number of a socket when it has told it (packet(7), PACKET_STATISTICS)."""
        with suppress(OSError):
            for index, dropped in _packet_sockets(pid):
                self._dropped[index] = self._dropped.get(index, 0) + dropped


def _packet_sockets(pid: int) -> Iterator[tuple[int, int]]:
    """The index of the interface, and the new drops, of each packet socket of a process."""
    import socket

    with open(f"/proc/{pid}/net/packet", encoding="ascii") as file:
        interfaces = {f"socket:[{words[8]}]": int(words[4]) for words in map(str.split, file.readlines()[1:])}
    process = os.pidfd_open(pid)
    try:
        for number in map(int, os.listdir(f"/proc/{pid}/fd")):
            if (index := interfaces.get(os.readlink(f"/proc/{pid}/fd/{number}"))) is None:
                continue
            with socket.socket(fileno=linux.pidfd_getfd(process, number)) as copy:
                yield index, struct.unpack("II", copy.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
    finally:
        os.close(process)


def _tap_drops(pid: int) -> dict[str, int]:
    """What each interface could not hand on; of a TAP device: what its process did not take (proc_net(5))."""
    with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
        lines = [line.partition(":") for line in file.readlines()[2:]]
    return {name.strip(): int(numbers.split()[_TX_DROPPED]) for name, _, numbers in lines}
