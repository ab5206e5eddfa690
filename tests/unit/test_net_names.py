"""Names of interfaces, read without decoding the rest."""

from __future__ import annotations

import struct

from pytest_infra.net.replies import parse_names


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def link(index: int, *attributes: bytes) -> bytes:
    return bytes(16) + struct.pack("=BxHiII", 0, 1, index, 1, 0) + b"".join(attributes)


def test_names_are_found_behind_other_attributes() -> None:
    first = link(7, attribute(1, b"\x02\0\0\0\0\x01"), attribute(3, b"eth0\0"))
    second = link(8, attribute(3, b"sw1-p1\0"), attribute(4, b"\0\0\0\0"))
    assert parse_names([first, second, link(9)]) == {7: "eth0", 8: "sw1-p1"}
