"""Captured frames as a pcapng file, which Wireshark and tcpdump read (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from .frame import Frame

__all__ = ["pcapng"]

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_MAGIC, _ETHERNET = 0x1A2B3C4D, 1
_COMMENT, _APPLICATION = 1, 4
_IF_NAME, _IF_TSRESOL, _EPB_FLAGS = 2, 9, 2
_NANOSECONDS = 9
_INBOUND, _OUTBOUND = 1, 2


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _block(kind: int, body: bytes, options: Iterable[tuple[int, bytes]]) -> bytes:
    encoded = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options)
    content = body + (encoded + struct.pack("<HH", 0, 0) if encoded else b"")
    length = struct.pack("<I", len(content) + 12)
    return struct.pack("<I", kind) + length + content + length


def _text(text: str) -> bytes:
    return text.encode(errors="replace")[:65535]


def pcapng(frames: Iterable[Frame], *, comment: str = "", comments: Mapping[int, str] | None = None) -> bytes:
    """The frames as the content of a pcapng file, with the names of their interfaces and their directions.

    Args:
        frames: in the order of the file.
        comment: on the whole file.
        comments: on single frames, by their place from 0.
    """
    from ..version import __version__

    about = [(_COMMENT, _text(comment))] if comment else []
    about.append((_APPLICATION, f"pytest-infra {__version__}".encode()))
    blocks = [_block(_SECTION, struct.pack("<IHHq", _MAGIC, 1, 0, -1), about)]
    interfaces: dict[str, int] = {}
    for place, frame in enumerate(frames):
        if frame.interface not in interfaces:
            interfaces[frame.interface] = len(interfaces)
            options = [(_IF_NAME, _text(frame.interface)), (_IF_TSRESOL, bytes([_NANOSECONDS]))]
            blocks.append(_block(_INTERFACE, struct.pack("<HHI", _ETHERNET, 0, 0), options))
        blocks.append(_packet(frame, interfaces[frame.interface], (comments or {}).get(place, "")))
    return b"".join(blocks)


def _packet(frame: Frame, interface: int, comment: str) -> bytes:
    high, low = frame.time_ns >> 32, frame.time_ns & 0xFFFFFFFF
    head = struct.pack("<IIIII", interface, high, low, len(frame.data), max(frame.length, len(frame.data)))
    options = [(_EPB_FLAGS, struct.pack("<I", _OUTBOUND if frame.outgoing else _INBOUND))]
    if comment:
        options.append((_COMMENT, _text(comment)))
    return _block(_PACKET, head + _padded(frame.data), options)
