"""Which devices a version 2 group may open: a small BPF program, since version 2 has no files for it.

The kernel asks the program at each open(2) and mknod(2) of a device (Linux: cgroup-v2.rst, "Device controller", and
bpf(2)). It is freed with the group.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator

from ..core.bpf import call, instruction, load
from ..core.errors import Unavailable

__all__ = ["attach", "detach", "program"]

_ATTACH, _DETACH = 8, 9
_CGROUP_DEVICE_PROGRAM, _CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_LOAD_WORD, _AND, _SHIFT_RIGHT, _MOVE, _SET, _JUMP_IF_NOT, _EXIT = 0x61, 0x54, 0x74, 0xBC, 0xB7, 0x55, 0x95
_RESULT, _CONTEXT, _KIND, _WANTED, _MAJOR, _MINOR = range(6)  # registers


def _conditions(rule: str) -> Iterator[tuple[int, int]]:
    """The registers and the values that they must have for a rule to apply, besides the access."""
    kind, number, _ = rule.split()
    if kind != "a":
        yield _KIND, _KINDS[kind]
    for register, text in zip((_MAJOR, _MINOR), number.split(":"), strict=True):
        if text != "*":
            yield register, int(text)


def _allow(rule: str) -> list[bytes]:
    """The instructions that let a request through which the rule covers, and go on with the next rule otherwise."""
    allowed = sum(_ACCESS[letter] for letter in rule.split()[2])
    conditions = list(_conditions(rule))
    code = [
        instruction(_MOVE, _RESULT, _WANTED),
        instruction(_AND, _RESULT, value=7 & ~allowed),
        instruction(_JUMP_IF_NOT, _RESULT, offset=len(conditions) + 2, value=0),
    ]
    for left, (register, value) in enumerate(conditions[::-1]):
        code.insert(3, instruction(_JUMP_IF_NOT, register, offset=left + 2, value=value))
    return [*code, instruction(_SET, _RESULT, value=1), instruction(_EXIT)]


def program(rules: Iterable[str]) -> bytes:
    """The program that allows what the rules cover and nothing else; the rules are those of `limits.device_rule`."""
    code = [
        instruction(_LOAD_WORD, _KIND, _CONTEXT, 0),
        instruction(_MOVE, _WANTED, _KIND),
        instruction(_AND, _KIND, value=0xFFFF),
        instruction(_SHIFT_RIGHT, _WANTED, value=16),
        instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    for rule in rules:
        code += _allow(rule)
    return b"".join([*code, instruction(_SET, _RESULT, value=0), instruction(_EXIT)])


def _change(command: int, folder: str, fd: int, flags: int) -> None:
    group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(command, struct.pack("=IIII", group, fd, _CGROUP_DEVICE, flags))
    finally:
        os.close(group)


def attach(folder: str, rules: Iterable[str]) -> int:
    """Let a group open only these devices; returns the program's descriptor, for `detach`.

    Raises:
        Unavailable: the kernel refuses the program, or this process may not load one.
    """
    try:
        fd = load(_CGROUP_DEVICE_PROGRAM, program(rules))
        try:
            _change(_ATTACH, folder, fd, _ALLOW_MULTI)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        why = f"version 2 takes device rules as a BPF program, and the kernel refused it: {error.strerror}"
        raise Unavailable("cgroup-devices", why, "run as root, on a kernel with CONFIG_CGROUP_BPF") from error
    return fd


def detach(folder: str, fd: int) -> None:
    """Take a program away from its group, and close it."""
    try:
        _change(_DETACH, folder, fd, 0)
    finally:
        os.close(fd)
