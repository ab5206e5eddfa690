"""The frames between this process and the agent in a guest: a length, and a pickled tuple.

Both ends run the same version of Python and of this package. What is unpickled here was sent by the guest: a guest is
trusted as much as the test that started it.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["Frame", "read_frame", "to_bytes"]

Frame = tuple[int, str, Any]
"""The number of the request that it belongs to, what it is, and its content."""

_LENGTH = struct.Struct("!I")


def to_bytes(frame: Frame) -> bytes:
    """The frame as it goes over the wire."""
    content = pickle.dumps(frame)
    return _LENGTH.pack(len(content)) + content


def read_frame(read: Callable[[int], bytes]) -> Frame | None:
    """The next frame; None at the end.

    Args:
        read: returns up to that many bytes, and none at the end.
    """
    header = _exactly(read, _LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    content = _exactly(read, length)
    if len(content) < length:
        return None
    frame: Frame = pickle.loads(content)  # noqa: S301 - see above
    return frame


def _exactly(read: Callable[[int], bytes], length: int) -> bytes:
    parts, missing = [], length
    while missing and (part := read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
