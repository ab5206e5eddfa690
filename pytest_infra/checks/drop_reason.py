"""`DropReasons`: why the kernel dropped a packet, in its own words: the tracepoint ``skb:kfree_skb``.

It is read by perf_event_open(2) and for the calling thread only, so that the drops of others are not taken for the
probe's; the kernel frees it with the descriptor. A packet that is handed from one network namespace of this kernel to
the next is worked off by the thread that sent it, until a process (such as Open vSwitch in user space) takes it over.
Only root may do this.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import lru_cache

from ..core import linux

__all__ = ["DropReasons", "parse_format"]

_TRACING = "/sys/kernel/tracing"
_FORMAT = "events/skb/kfree_skb/format"
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "s390x": 331, "ppc64le": 319}
_ATTR_BYTES, _TYPE_TRACEPOINT, _SAMPLE_RAW, _FLAG_CLOEXEC = 112, 2, 1 << 10, 8
_RECORD_SAMPLE = 9
_PAGES = 16
_HEAD_AT = 1024  # struct perf_event_mmap_page
_HEADER = struct.Struct("=IHH")
_IP_PROTOCOLS = (0x0800, 0x86DD)
_SAYS_NOTHING = ("NOT_SPECIFIED", "NOT_DROPPED_YET", "CONSUMED", "SOCKET_FILTER", "OTHERHOST")
"""No reason at all; that a socket did not want its copy; and that a switch in user space took the frame instead of the
port's own kernel (a frame for a wrong MAC address is found in the neighbours)."""


class DropReasons:
    """Takes down the reasons of the calling thread's drops between its beginning and `stop`."""

    def __init__(self) -> None:
        self.blind = ""
        """Why nothing can be seen; empty when it can."""
        self._reasons: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> DropReasons:
        try:
            self._event, self._layout, self._names = _format()
            with ExitStack() as stack:
                self._fd = _open(self._event)
                stack.callback(os.close, self._fd)
                self._ring = stack.enter_context(mmap.mmap(self._fd, (1 + _PAGES) * mmap.PAGESIZE))
                self._stack = stack.pop_all()
        except OSError as error:
            root_only = "only root can read it" if linux.in_child_user_namespace() else ""
            self.blind = root_only or error.strerror or str(error)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> list[str]:
        """Stop, and return the reasons of dropped IP packets in their order, without those that say nothing."""
        if not self.blind and not self._reasons:
            self._reasons = [name for name in self._read() if name not in _SAYS_NOTHING]
        self._stack.close()
        return self._reasons

    def _read(self) -> Iterator[str]:
        if self._ring.closed:
            return
        (head,) = struct.unpack_from("=Q", self._ring, _HEAD_AT)
        data = self._ring[mmap.PAGESIZE :]
        offset = 0
        while offset + _HEADER.size <= min(head, len(data)):
            kind, _, size = _HEADER.unpack_from(data, offset)
            if kind == _RECORD_SAMPLE and (name := self._name(data[offset + _HEADER.size + 4 : offset + size])):
                yield name
            offset += max(size, _HEADER.size)

    def _name(self, record: bytes) -> str:
        (protocol_at, _), (reason_at, _) = self._layout["protocol"], self._layout["reason"]
        if len(record) < reason_at + 4 or struct.unpack_from("=H", record, protocol_at)[0] not in _IP_PROTOCOLS:
            return ""
        number = struct.unpack_from("=I", record, reason_at)[0]
        return self._names.get(number, f"reason {number}")


def _open(event: int) -> int:
    """A descriptor that samples the tracepoint for the calling thread, on all CPUs."""
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise OSError(f"perf_event_open is not known for {platform.machine()}")
    attr = struct.pack("=IIQQQ", _TYPE_TRACEPOINT, _ATTR_BYTES, event, 1, _SAMPLE_RAW).ljust(_ATTR_BYTES, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(number, ctypes.create_string_buffer(attr, _ATTR_BYTES), 0, -1, -1, _FLAG_CLOEXEC)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"perf_event_open: {os.strerror(code)}")
    return fd


@lru_cache(maxsize=1)
def _format() -> tuple[int, dict[str, tuple[int, int]], dict[int, str]]:
    """The tracepoint's number, the places of its fields, and the names of the reasons, as this kernel has them."""
    path = f"{_TRACING}/{_FORMAT}"
    if os.path.exists(path):
        return parse_format(_read(path))
    found: list[str | OSError] = []

    def look() -> None:
        try:
            linux.unshare(linux.CLONE_NEWNS)
            linux.mount("none", "/", "", linux.MS_REC | linux.MS_SLAVE)
            linux.mount("tracefs", _TRACING, "tracefs")
            found.append(_read(path))
        except OSError as error:
            found.append(error)

    # A mount namespace of the thread's own: what is mounted there goes with the thread.
    thread = threading.Thread(target=look, name="infra-tracefs")
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise found[0]
    return parse_format(found[0])


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def parse_format(text: str) -> tuple[int, dict[str, tuple[int, int]], dict[int, str]]:
    """A tracepoint's ``format`` file: its number, its fields (offset and size), the names of its reasons.

    Raises:
        OSError: this kernel gives no reasons (before 5.17).
    """
    event = re.search(r"^ID: (\d+)", text, re.MULTILINE)
    fields = re.findall(r"field:[^;]*?(\w+);\s*offset:(\d+);\s*size:(\d+);", text)
    layout = {name: (int(offset), int(size)) for name, offset, size in fields}
    if event is None or "reason" not in layout or "protocol" not in layout:
        raise OSError("this kernel gives no reasons for drops")
    names = {int(number): name for number, name in re.findall(r'\{ (\d+), "(\w+)" \}', text)}
    return int(event[1]), layout, names
