"""The device program, run by an interpreter of the few instructions that it uses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_infra.cgroup.device_filter import program

KINDS = {"b": 1, "c": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}


def run(code: bytes, kind: str, access: int, major: int, minor: int) -> bool:
    """What the kernel would be told for this request."""
    context = struct.pack("=III", access << 16 | KINDS[kind], major, minor)
    instructions = list(struct.iter_unpack("=BBhi", code))
    registers, at = [0] * 11, 0
    while True:
        operation, both, offset, value = instructions[at]
        to, source = both & 15, both >> 4
        at += 1
        if operation == 0x61:
            registers[to] = struct.unpack_from("=I", context, offset)[0]
        elif operation == 0x54:
            registers[to] &= value & 0xFFFFFFFF
        elif operation == 0x74:
            registers[to] >>= value
        elif operation == 0xBC:
            registers[to] = registers[source]
        elif operation == 0xB7:
            registers[to] = value
        elif operation == 0x55:
            at += offset if registers[to] != value else 0
        else:
            assert operation == 0x95
            return bool(registers[0])


def covered(rules: list[str], kind: str, access: int, major: int, minor: int) -> bool:
    for rule in rules:
        its_kind, number, letters = rule.split()
        its_major, its_minor = number.split(":")
        if (
            its_kind in ("a", kind)
            and its_major in ("*", str(major))
            and its_minor in ("*", str(minor))
            and not access & ~sum(ACCESS[letter] for letter in letters)
        ):
            return True
    return False


numbers = st.integers(0, 3)
rules = st.builds(
    lambda kind, major, minor, letters: f"{kind} {major}:{minor} {''.join(sorted(letters))}",
    st.sampled_from("abc"),
    st.one_of(st.just("*"), numbers),
    st.one_of(st.just("*"), numbers),
    st.sets(st.sampled_from("rwm"), min_size=1),
)


@given(st.lists(rules, max_size=5), st.sampled_from("bc"), st.integers(1, 7), numbers, numbers)
def test_what_a_rule_covers_is_allowed_and_nothing_else(
    chosen: list[str], kind: str, access: int, major: int, minor: int
) -> None:
    assert run(program(chosen), kind, access, major, minor) == covered(chosen, kind, access, major, minor)


@pytest.mark.parametrize(("major", "allowed"), [(1, True), (2, False)])
def test_a_rule_for_one_device(major: int, allowed: bool) -> None:
    assert run(program(["c 1:3 rw"]), "c", 2, major, 3) is allowed
