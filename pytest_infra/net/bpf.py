"""Classic BPF programs from trees of tests (linux/filter.h; McCanne and Jacobson, The BSD Packet Filter, 1993)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["Test", "Tree", "both", "either", "negated", "program"]

_LOAD = {1: 0x30, 2: 0x28, 4: 0x20}  # BPF_LD | size | BPF_ABS
_LOAD_INDEXED = {1: 0x50, 2: 0x48, 4: 0x40}  # BPF_LD | size | BPF_IND
_IPV4_HEADER_LENGTH = 0xB1  # BPF_LDX | BPF_B | BPF_MSH: X = 4 * (byte & 0xf)
_AND, _JUMP_IF_EQUAL, _RETURN = 0x54, 0x15, 0x06
_FARTHEST_JUMP = 255


@dataclass(frozen=True)
class Test:
    """Whether `size` bytes at `offset`, masked, are a number; a packet that is too short for it is refused."""

    __test__ = False  # no test of pytest's

    size: int
    offset: int
    value: int
    mask: int | None = None
    behind_ipv4: bool = False
    """Whether the length of the IPv4 header at 14 is added to the offset."""


@dataclass(frozen=True)
class _Choice:
    """If `test` then `yes` else `no`; where they are missing, true and false."""

    test: Tree
    yes: Tree | None
    no: Tree | None
    inverted: bool = False


Tree = Test | _Choice


def both(a: Tree, b: Tree) -> Tree:
    """`a` and `b`."""
    return _Choice(a, yes=b, no=None)


def either(a: Tree, b: Tree) -> Tree:
    """`a` or `b`."""
    return _Choice(a, yes=None, no=b)


def negated(a: Tree) -> Tree:
    """Not `a`."""
    return _Choice(a, yes=None, no=None, inverted=True)


class _Assembler:
    """Instructions from the last to the first, so that every jump's target is known."""

    def __init__(self, snap_bytes: int) -> None:
        self._reversed = [(_RETURN, 0, 0, 0), (_RETURN, 0, 0, snap_bytes)]
        self.refuse, self.keep = 1, 2  # places, counted from the end

    def add(self, tree: Tree, yes: int, no: int) -> int:
        """Add a tree that goes on at the places `yes` and `no`; returns the place where it begins."""
        if isinstance(tree, Test):
            return self._test(tree, yes, no)
        if tree.inverted:
            return self.add(tree.test, no, yes)
        if tree.yes is not None:
            return self.add(tree.test, self.add(tree.yes, yes, no), no)
        assert tree.no is not None
        return self.add(tree.test, yes, self.add(tree.no, yes, no))

    def _test(self, test: Test, yes: int, no: int) -> int:
        here = len(self._reversed)
        distances = here - yes, here - no
        if max(distances) > _FARTHEST_JUMP:
            raise OverflowError("too many tests for one program")
        self._reversed.append((_JUMP_IF_EQUAL, *distances, test.value))
        if test.mask is not None:
            self._reversed.append((_AND, 0, 0, test.mask))
        self._reversed.append(((_LOAD_INDEXED if test.behind_ipv4 else _LOAD)[test.size], 0, 0, test.offset))
        if test.behind_ipv4:
            self._reversed.append((_IPV4_HEADER_LENGTH, 0, 0, 14))
        return len(self._reversed)

    def content(self) -> bytes:
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in reversed(self._reversed))


def program(tree: Tree | None, snap_bytes: int) -> bytes:
    """The program that keeps the first `snap_bytes` of the packets for which `tree` is true; None is true for all.

    Raises:
        OverflowError: the tree is too large for the jumps of classic BPF.
    """
    assembler = _Assembler(snap_bytes)
    if tree is None:
        return struct.pack("=HBBI", _RETURN, 0, 0, snap_bytes)
    assembler.add(tree, assembler.keep, assembler.refuse)
    return assembler.content()
