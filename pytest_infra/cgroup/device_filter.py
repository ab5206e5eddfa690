"""Which devices a version 2 group may open: a small BPF program, since version 2 has no files for it.

The kernel asks the program at each open(2) and mknod(2) of a device (Linux: cgroup-v2.rst, "Device controller", and
bpf(2)). It is freed with the group.
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from ..core.errors import Unavailable

__all__ = ["attach", "detach", "program"]

_SYSCALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
_LOAD, _ATTACH, _DETACH = 5, 8, 9
_CGROUP_DEVICE_PROGRAM, _CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_LOAD_WORD, _AND, _SHIFT_RIGHT, _MOVE, _SET, _JUMP_IF_NOT, _EXIT = 0x61, 0x54, 0x74, 0xBC, 0xB7, 0x55, 0x95
_RESULT, _CONTEXT, _KIND, _WANTED, _MAJOR, _MINOR = range(6)  # registers


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | to, offset, value)


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
        _instruction(_MOVE, _RESULT, _WANTED),
        _instruction(_AND, _RESULT, value=7 & ~allowed),
        _instruction(_JUMP_IF_NOT, _RESULT, offset=len(conditions) + 2, value=0),
    ]
    for left, (register, value) in enumerate(conditions[::-1]):
        code.insert(3, _instruction(_JUMP_IF_NOT, register, offset=left + 2, value=value))
    return [*code, _instruction(_SET, _RESULT, value=1), _instruction(_EXIT)]


def program(rules: Iterable[str]) -> bytes:
    """The program that allows what the rules cover and nothing else; the rules are those of `limits.device_rule`."""
    code = [
        _instruction(_LOAD_WORD, _KIND, _CONTEXT, 0),
        _instruction(_MOVE, _WANTED, _KIND),
        _instruction(_AND, _KIND, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, _WANTED, value=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    for rule in rules:
        code += _allow(rule)
    return b"".join([*code, _instruction(_SET, _RESULT, value=0), _instruction(_EXIT)])


def _bpf(command: int, attributes: bytes) -> int:
    import ctypes

    number = _SYSCALLS.get(platform.machine())
    if number is None:
        why = f"the number of bpf(2) on {platform.machine()} is not known"
        raise Unavailable("cgroup-devices", why, "use a machine with version 1 of the devices controller")
    libc: Any = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(ctypes.c_long(number), ctypes.c_int(command), buffer, ctypes.c_uint(len(attributes)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)


def _change(command: int, folder: str, fd: int, flags: int) -> None:
    group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _bpf(command, struct.pack("=IIII", group, fd, _CGROUP_DEVICE, flags))
    finally:
        os.close(group)


def attach(folder: str, rules: Iterable[str]) -> int:
    """Let a group open only these devices; returns the program's descriptor, for `detach`.

    Raises:
        Unavailable: the kernel refuses the program, or this process may not load one.
    """
    import ctypes

    code = program(rules)
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"MIT")
    addresses = ctypes.addressof(instructions), ctypes.addressof(licence)
    attributes = struct.pack("=IIQQ", _CGROUP_DEVICE_PROGRAM, len(code) // 8, *addresses) + bytes(48)
    try:
        fd = _bpf(_LOAD, attributes)
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
