"""bpf(2): load a program of instructions, and share numbers with it in a map; both go with their descriptors."""

from __future__ import annotations

import errno
import os
import platform
import struct
from typing import Any

from .errors import Unavailable

__all__ = ["call", "create_map", "instruction", "load", "lookup", "update"]

_SYSCALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _LOOKUP, _UPDATE, _LOAD = 0, 1, 2, 5
_LOG_BYTES = 1 << 20


def instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One instruction (Linux: Documentation/bpf/standardization/instruction-set.rst)."""
    return struct.pack("=BBhi", code, source << 4 | to, offset, value)


def call(command: int, attributes: bytes) -> int:
    """bpf(2) with one of its commands (linux/bpf.h, enum bpf_cmd) and the attributes that it takes.

    Raises:
        OSError: the kernel refuses.
        Unavailable: the number of the system call is not known on this machine.
    """
    import ctypes

    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise Unavailable("bpf", f"the number of bpf(2) on {platform.machine()} is not known", "use another machine")
    libc: Any = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(ctypes.c_long(number), ctypes.c_int(command), buffer, ctypes.c_uint(len(attributes)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)


def load(kind: int, code: bytes, licence: str = "MIT") -> int:
    """Have the kernel verify and take a program; the descriptor that holds it.

    Args:
        kind: the type of program (linux/bpf.h, enum bpf_prog_type).
        code: its instructions.
        licence: some of the kernel's functions are only for programs under the GPL.

    Raises:
        OSError: the kernel refuses it; the text has what its verifier said last.
    """
    import ctypes

    instructions = ctypes.create_string_buffer(code, len(code))
    text = ctypes.create_string_buffer(licence.encode())
    addresses = ctypes.addressof(instructions), ctypes.addressof(text)
    head = struct.pack("=IIQQ", kind, len(code) // 8, *addresses)
    try:
        return call(_LOAD, head + bytes(48))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
    log = ctypes.create_string_buffer(_LOG_BYTES)
    try:
        return call(_LOAD, head + struct.pack("=IIQ", 1, _LOG_BYTES, ctypes.addressof(log)) + bytes(32))
    except OSError as error:
        lines = log.value.decode(errors="replace").strip().splitlines()
        said = lines[-2:-1] if lines and lines[-1].startswith("processed") else lines[-1:]
        raise OSError(error.errno, " ".join([os.strerror(error.errno or 0), *said])) from None


def create_map(kind: int, value_bytes: int, entries: int) -> int:
    """Make a map whose keys are numbers of 4 bytes (linux/bpf.h, enum bpf_map_type); the descriptor that holds it.

    Raises:
        OSError: the kernel refuses.
    """
    return call(_MAP_CREATE, struct.pack("=IIIII", kind, 4, value_bytes, entries, 0) + bytes(44))


def _element(fd: int, key: int, value: bytes, command: int) -> bytes:
    import ctypes

    where = ctypes.create_string_buffer(struct.pack("=I", key), 4)
    content = ctypes.create_string_buffer(value, len(value))
    call(command, struct.pack("=IIQQQ", fd, 0, ctypes.addressof(where), ctypes.addressof(content), 0))
    return content.raw


def lookup(fd: int, key: int, value_bytes: int) -> bytes:
    """The value of a key.

    Raises:
        OSError: there is none.
    """
    return _element(fd, key, bytes(value_bytes), _LOOKUP)


def update(fd: int, key: int, value: bytes) -> None:
    """Set the value of a key.

    Raises:
        OSError: the kernel refuses.
    """
    _element(fd, key, value, _UPDATE)
