"""Kernel images: which release one is, and the uncompressed kernel inside, which QEMU starts directly (PVH)."""

from __future__ import annotations

import lzma
import re
import struct
import subprocess
import zlib
from collections.abc import Callable

from ..core.errors import BadInput
from ..core.requirement import find_program

__all__ = ["has_pvh_entry", "release_of", "uncompressed"]

_BOOT_MAGIC_AT, _VERSION_AT, _PAYLOAD_AT = 0x202, 0x20E, 0x248  # The Linux/x86 Boot Protocol
_ELF = b"\x7fELF"
_PVH_NOTE = 18  # XEN_ELFNOTE_PHYS32_ENTRY
_PT_NOTE = 4


def release_of(content: bytes, path: str) -> str:
    """The release of a kernel image, as ``uname -r`` would say it.

    Raises:
        BadInput: it is no kernel image.
    """
    if content[_BOOT_MAGIC_AT : _BOOT_MAGIC_AT + 4] == b"HdrS":
        at = struct.unpack_from("<H", content, _VERSION_AT)[0] + 0x200
        return content[at : content.index(b"\0", at)].split()[0].decode()
    if content.startswith(_ELF) and (found := re.search(rb"Linux version (\S+) \(", content)):
        return found.group(1).decode()
    raise BadInput(f"{path} is no Linux kernel for x86: it is neither a bzImage nor a vmlinux")


def _by_program(*argv: str) -> Callable[[bytes], bytes]:
    def unpack(content: bytes) -> bytes:
        if find_program(argv[0]) is None:
            return b""
        return subprocess.run(argv, input=content, capture_output=True, check=False).stdout

    return unpack


def _unpack_xz(content: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(content)


def _unpack_gzip(content: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(content)


_FORMATS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\xfd7zXZ\x00", _unpack_xz),
    (b"\x1f\x8b\x08", _unpack_gzip),
    (b"\x28\xb5\x2f\xfd", _by_program("zstd", "-dcq")),
    (b"\x02\x21\x4c\x18", _by_program("lz4", "-dcq")),
)


def uncompressed(content: bytes) -> bytes:
    """The uncompressed kernel (an ELF file) inside a bzImage; empty where it cannot be had here."""
    if content.startswith(_ELF):
        return content
    setup_bytes = (content[0x1F1] + 1) * 512
    start = setup_bytes + struct.unpack_from("<I", content, _PAYLOAD_AT)[0]
    payload = content[start : start + struct.unpack_from("<I", content, _PAYLOAD_AT + 4)[0]]
    for magic, unpack in _FORMATS:
        if payload.startswith(magic):
            try:
                kernel = unpack(payload)
            except (lzma.LZMAError, zlib.error):
                return b""
            return kernel if kernel.startswith(_ELF) else b""
    return b""


def has_pvh_entry(kernel: bytes) -> bool:
    """Whether QEMU can start this ELF kernel directly: it has the note of CONFIG_PVH (elf(5))."""
    if kernel[4:5] != b"\x02":
        return False
    offset, size, count = struct.unpack_from("<Q", kernel, 0x20)[0], *struct.unpack_from("<HH", kernel, 0x36)
    for number in range(count):
        kind, _, at, _, _, length = struct.unpack_from("<IIQQQQ", kernel, offset + number * size)
        if kind == _PT_NOTE and any(note == _PVH_NOTE for note in _notes(kernel[at : at + length])):
            return True
    return False


def _notes(content: bytes) -> list[int]:
    """The types of the notes whose name is Xen."""
    found, at = [], 0
    while at + 12 <= len(content):
        name_bytes, value_bytes, kind = struct.unpack_from("<III", content, at)
        if content[at + 12 : at + 16] == b"Xen\0":
            found.append(kind)
        at += 12 + (name_bytes + 3 & ~3) + (value_bytes + 3 & ~3)
    return found
