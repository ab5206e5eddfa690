"""A small assembler of BPF instructions: named places, loads that look at the packet's end first, and calls."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ..core.bpf import instruction

__all__ = ["CONTEXT", "END", "PACKET", "START", "Assembler"]

CONTEXT, PACKET, END, START = 6, 7, 8, 9
"""The registers that keep the context, where parsing is, the packet's end, and its first byte."""
_FRAME = 10  # the register of the stack
_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_LOAD, _STORE_VALUE, _STORE = 0x61, 0x62, 0x63  # BPF_MEM with BPF_LDX, BPF_ST, BPF_STX
_SWAP, _WIDE, _CALL, _EXIT, _GO, _ATOMIC_ADD = 0xDC, 0x18, 0x85, 0x95, 0x05, 0xDB
_JUMPS = {"==": 0x16, "!=": 0x56, ">": 0x26, "<": 0xA6}  # of 32 bits, with a number
_JUMP_IF_BEYOND, _JUMP_IF_OTHER = 0x2D, 0x5D  # of 64 bits, with a register
_MAP, _MAP_VALUE = 1, 2  # what the number of a wide load stands for


def _signed(value: int) -> int:
    """A number of 32 bits as the instruction's signed field has it."""
    return int(struct.unpack("=i", struct.pack("=I", value & 0xFFFFFFFF))[0])


class Assembler:
    """Instructions in the order in which they are added; jumps name the place that they go to."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str, int]] = []
        self._places: dict[str, int] = {}

    def place(self, name: str) -> None:
        """Name the place of the next instruction."""
        self._places[name] = len(self._code)

    def assemble(self) -> bytes:
        """The program, with the jumps' distances."""
        return b"".join(
            instruction(code, to, source, self._places[where] - at - 1 if isinstance(where, str) else where, value)
            for at, (code, to, source, where, value) in enumerate(self._code)
        )

    def _add(self, code: int, to: int = 0, source: int = 0, where: int | str = 0, value: int = 0) -> None:
        self._code.append((code, to, source, where, _signed(value)))

    def load(self, to: int, source: int, offset: int, size: int = 4) -> None:
        """Read `size` bytes in the machine's order."""
        self._add(_LOAD + _SIZES[size], to, source, offset)

    def field(self, to: int, offset: int, size: int) -> None:
        """Read `size` bytes of the packet, in network order."""
        self.load(to, PACKET, offset, size)
        if size > 1:
            self._add(_SWAP, to, value=size * 8)

    def keep(self, slot: int, source: int) -> None:
        """Write a register of 64 bits to a slot of the stack."""
        self._add(_STORE + _SIZES[8], _FRAME, source, -8 * slot)

    def clear(self, slot: int) -> None:
        """Write 0 to a slot of the stack."""
        self._add(_STORE_VALUE + _SIZES[8], _FRAME, 0, -8 * slot)

    def recall(self, to: int, slot: int) -> None:
        """Read a slot of the stack."""
        self.load(to, _FRAME, -8 * slot, 8)

    def write(self, to: int, offset: int, data: bytes) -> None:
        """Write bytes, two at a time, to where a register points."""
        for at in range(0, len(data), 2):
            (pair,) = struct.unpack("=H", data[at : at + 2])
            self._add(_STORE_VALUE + _SIZES[2], to, 0, offset + at, pair)

    def store(self, to: int, offset: int, source: int, size: int = 4) -> None:
        """Write a register to where another one points."""
        self._add(_STORE + _SIZES[size], to, source, offset)

    def move(self, to: int, source: int) -> None:
        """Copy a register."""
        self._add(0xBF, to, source)

    def set(self, to: int, value: int) -> None:
        """Give a register a number of 32 bits."""
        self._add(0xB4, to, value=value)

    def wide(self, to: int, value: int) -> None:
        """Give a register a number of 64 bits."""
        self._wide(to, 0, value & 0xFFFFFFFF, value >> 32)

    def map(self, to: int, fd: int) -> None:
        """Have a register stand for a map."""
        self._wide(to, _MAP, fd, 0)

    def map_value(self, to: int, fd: int, offset: int) -> None:
        """Have a register point into the one value of an array."""
        self._wide(to, _MAP_VALUE, fd, offset)

    def _wide(self, to: int, what: int, low: int, high: int) -> None:
        self._add(_WIDE, to, what, value=low)
        self._add(0, value=high)

    def add(self, to: int, value: int) -> None:
        """Add a number to a register of 64 bits."""
        self._add(0x07, to, value=value)

    def add_register(self, to: int, source: int) -> None:
        """Add a register to another one."""
        self._add(0x0F, to, source)

    def mask(self, to: int, value: int) -> None:
        """Keep only the bits of a mask of 32 bits."""
        self._add(0x54, to, value=value)

    def right(self, to: int, bits: int) -> None:
        """Shift a register of 32 bits to the right."""
        self._add(0x74, to, value=bits)

    def join(self, to: int, low: int, bits: int) -> None:
        """Shift a register of 64 bits to the left, and put another one below it."""
        self._add(0x67, to, value=bits)
        self._add(0x4F, to, low)

    def count(self, fd: int, offset: int) -> None:
        """Add 1 to a number of 64 bits in the one value of an array; uses registers 1 and 2."""
        self.map_value(1, fd, offset)
        self.set(2, 1)
        self._add(_ATOMIC_ADD, 1, 2)

    def go(self, where: str) -> None:
        """Go on at a place."""
        self._add(_GO, where=where)

    def go_if(self, register: int, relation: str, value: int, where: str) -> None:
        """Go on at a place where a register of 32 bits is ``==``, ``!=``, ``<`` or ``>`` a number."""
        self._add(_JUMPS[relation], register, where=where, value=value)

    def go_if_other(self, one: int, other: int, where: str) -> None:
        """Go on at a place where two registers differ."""
        self._add(_JUMP_IF_OTHER, one, other, where)

    def go_if_beyond(self, register: int, where: str) -> None:
        """Go on at a place where a register points beyond the packet's end."""
        self._add(_JUMP_IF_BEYOND, register, END, where)

    def demand(self, size: int, otherwise: str) -> None:
        """Make sure that the packet has so many bytes from where parsing is; uses register 2."""
        self.move(2, PACKET)
        self.add(2, size)
        self.go_if_beyond(2, otherwise)

    def call(self, helper: int, arguments: Sequence[int] = ()) -> None:
        """Call a function of the kernel (bpf-helpers(7)) with numbers from register 2 on; register 1 has been set."""
        for register, value in enumerate(arguments, 2):
            self.set(register, value)
        self._add(_CALL, value=helper)

    def leave(self, result: int | None = None) -> None:
        """End the program, with a result or with what the last call returned."""
        if result is not None:
            self.set(0, result)
        self._add(_EXIT)
