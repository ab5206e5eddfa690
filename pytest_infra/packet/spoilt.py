"""`malformed`: frames that no sender should send, to see that a device neither forwards them nor dies."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..core.errors import BadInput
from .packet import Packet
from .strategies import HYPOTHESIS
from .wire import checksum, encode

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["FAULTS", "Malformed", "malformed", "spoil"]

_IP, _L4 = 14, 34  # where the headers of an untagged IPv4 frame begin
_VXLAN_PORT = 4789


@dataclass(frozen=True)
class Malformed:
    """One or more frames that are wrong in one way."""

    fault: str
    frames: tuple[bytes, ...]


def _with(frame: bytes, at: int, data: bytes) -> bytes:
    return frame[:at] + data + frame[at + len(data) :]


def _sealed(frame: bytes) -> bytes:
    """The frame with the right IPv4 header checksum."""
    blank = _with(frame, _IP + 10, b"\0\0")
    return _with(blank, _IP + 10, struct.pack("!H", checksum(blank[_IP : _IP + 20])))


def _fragments(frame: bytes, offset: int) -> tuple[bytes, bytes]:
    """The frame's packet as two fragments, the second of which begins `offset` bytes in (a multiple of 8)."""
    first_bytes = 24
    head, body = frame[:_L4], frame[_L4:]
    first = _with(head, _IP + 2, struct.pack("!H", 20 + first_bytes)) + body[:first_bytes]
    second = _with(head, _IP + 2, struct.pack("!H", 20 + len(body) - offset)) + body[offset:]
    more, last = struct.pack("!HH", 7, 0x2000), struct.pack("!HH", 7, offset // 8)
    return _sealed(_with(first, _IP + 4, more)), _sealed(_with(second, _IP + 4, last))


def _vxlan_in_itself(frame: bytes) -> bytes:
    vxlan = struct.pack("!II", 0x08000000, 5 << 8)
    for _ in range(3):
        frame = encode(Packet(proto="udp", dport=_VXLAN_PORT), vxlan + frame)
    return frame


_Spoiler = Callable[[bytes, int], tuple[bytes, ...]]
FAULTS: Mapping[str, _Spoiler] = MappingProxyType(
    {
        "bad IPv4 checksum": lambda frame, n: (_with(frame, _IP + 10, bytes([frame[_IP + 10] ^ (n % 255 + 1)])),),
        "IP version 5": lambda frame, _n: (_sealed(_with(frame, _IP, b"\x55")),),
        "header length below 20 bytes": lambda frame, n: (_sealed(_with(frame, _IP, bytes([0x40 | n % 5]))),),
        "header length beyond the packet": lambda frame, _n: (_sealed(_with(frame[: _IP + 40], _IP, b"\x4f")),),
        "total length beyond the frame": lambda frame, n: (
            _sealed(_with(frame, _IP + 2, struct.pack("!H", len(frame) - _IP + 1 + n % 1000))),
        ),
        "total length below the header": lambda frame, n: (_sealed(_with(frame, _IP + 2, struct.pack("!H", n % 20))),),
        "cut within the IPv4 header": lambda frame, n: (frame[: _IP + n % 20],),
        "cut within the UDP header": lambda frame, n: (frame[: _L4 + n % 8],),
        "UDP length below its header": lambda frame, n: (_with(frame, _L4 + 4, struct.pack("!H", n % 8)),),
        "overlapping fragments": lambda frame, n: _fragments(frame, 8 + 8 * (n % 2)),
        "two VLAN tags of one kind": lambda frame, _n: (frame[:12] + bytes.fromhex("8100000181000002") + frame[12:],),
        "a VLAN tag and nothing behind it": lambda frame, _n: (frame[:12] + bytes.fromhex("81000001"),),
        "VXLAN within VXLAN": lambda frame, _n: (_vxlan_in_itself(frame),),
        "the source is a group address": lambda frame, _n: (_with(frame, 6, b"\x01\x00\x5e\x00\x00\x01"),),
    }
)
"""What can be wrong: each takes an IPv4 frame with UDP and a number that varies the fault."""


def spoil(packet: Packet, fault: str, number: int = 0) -> Malformed:
    """The frames of a packet with one fault.

    Args:
        packet: IPv4 with UDP, without a VLAN tag.
        fault: one of `FAULTS`.
        number: varies the fault, such as where a header is cut.

    Raises:
        BadInput: no such fault, or another kind of packet.
    """
    if fault not in FAULTS:
        raise BadInput(f"no fault {fault!r}; there are {', '.join(FAULTS)}")
    if packet.proto != 17 or packet.eth_type != 0x0800 or packet.vlan is not None:
        raise BadInput(f"{packet}: only IPv4 with UDP and without a VLAN tag can be spoilt")
    return Malformed(fault, FAULTS[fault](encode(packet), number))


def malformed(packet: Packet | None = None) -> SearchStrategy[Malformed]:
    """Frames that are wrong in one way, and otherwise a device would forward.

    Args:
        packet: what they would be: IPv4 with UDP, without a VLAN tag.

    Raises:
        Unavailable: hypothesis is not installed.
    """
    HYPOTHESIS.demand()
    from hypothesis import strategies as st

    whole = packet or Packet(proto="udp", sport=1024, dport=1024)

    @st.composite
    def made(draw: DrawFn) -> Malformed:
        return spoil(whole, draw(st.sampled_from(sorted(FAULTS))), draw(st.integers(0, 999)))

    return made()
