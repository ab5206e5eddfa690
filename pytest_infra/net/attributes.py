"""Attributes and link messages of rtnetlink as bytes, for what is seldom asked for (rtnetlink(7), netlink(7))."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["NESTED", "attribute", "attributes_of", "link_message"]

NESTED = 0x8000
"""Marks an attribute that consists of attributes (NLA_F_NESTED)."""

_REQUEST = 0x1
_LINK = struct.Struct("=BxHiII")


def link_message(kind: int, flags: int, family: int, index: int, attributes: bytes, change: int = 0) -> bytes:
    """A request about a link; `change` are the interface flags that are set (IFF_UP)."""
    body = _LINK.pack(family, 0, index, change, change) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 0, 0) + body


def attribute(kind: int, content: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(content), kind) + content + b"\0" * (-len(content) % 4)


def attributes_of(message: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message from `offset` on."""
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        yield kind & 0x3FFF, message[offset + 4 : offset + length]
        offset += max((length + 3) & ~3, 4)
