"""The small text files that control groups are made of."""

from __future__ import annotations

import os

__all__ = ["flat", "number", "read", "write"]


def read(folder: str, name: str) -> str | None:
    """The content of a file; None where there is no such file."""
    try:
        with open(os.path.join(folder, name), encoding="ascii", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(folder: str, name: str, text: str) -> None:
    """Give a file its value in one go, as the kernel wants it.

    Raises:
        OSError: the kernel refuses it; the file's path is in the error.
    """
    path = os.path.join(folder, name)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def number(folder: str, name: str) -> int | None:
    """The number in a file; None where there is no such file, or where it says ``max``."""
    text = (read(folder, name) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else None


def flat(folder: str, name: str) -> dict[str, int]:
    """A file of lines ``KEY NUMBER``; empty where there is no such file."""
    values = {}
    for line in (read(folder, name) or "").splitlines():
        key, _, value = line.rpartition(" ")
        if value.lstrip("-").isdigit():
            values[key] = int(value)
    return values
