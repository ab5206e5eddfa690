"""Kernel settings of a network namespace (sysctl(8)): /proc/sys shows those of the thread that looks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from ..core.errors import BadInput

__all__ = ["Sysctl", "read_all_sysctl", "read_sysctl", "write_sysctl"]

_ROOT = "/proc/sys"


def _path(name: str) -> str:
    if name.startswith("/") or ".." in name:
        raise BadInput(f"no kernel setting {name!r}; write it as sysctl does: 'net.ipv4.ip_forward'")
    if "/" in name:  # the other spelling of sysctl(8), for interfaces with a dot in their name
        return f"{_ROOT}/{name}"
    return f"{_ROOT}/{name.replace('.', '/')}"


def read_sysctl(name: str) -> str:
    """A setting of the calling thread's namespaces."""
    with open(_path(name), encoding="ascii") as file:
        return file.read().strip()


def write_sysctl(name: str, value: str) -> None:
    """Change a setting of the calling thread's namespaces."""
    fd = os.open(_path(name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read_all_sysctl() -> dict[str, str]:
    """All ``net/…`` settings of the calling thread's namespaces that can be read, with slashes in their names."""
    found = {}
    for folder, _, files in os.walk(f"{_ROOT}/net"):
        for file in files:
            path = f"{folder}/{file}"
            try:
                with open(path, encoding="ascii", errors="replace") as setting:
                    found[path[len(_ROOT) + 1 :]] = setting.read().strip()
            except OSError:  # one that can only be written
                continue
    return found


class Sysctl(MutableMapping[str, str]):
    """The ``net.…`` settings of one node: ``node.sysctl["net.ipv4.ip_forward"] = "1"``.

    Only settings that belong to the node's network namespace can be reached; the machine's stay as they are.
    """

    def __init__(self, call: Callable[..., Any], where: str) -> None:
        self._call = call
        self._where = where

    def _checked(self, name: str) -> str:
        if not isinstance(name, str) or not name.replace("/", ".").startswith("net.") or "\0" in name:
            raise BadInput(
                f"{name!r} is no setting of {self._where}'s network namespace; allowed are names that begin with 'net.'"
            )
        return name

    def __getitem__(self, name: str) -> str:
        try:
            value: str = self._call(read_sysctl, self._checked(name))
        except (FileNotFoundError, IsADirectoryError):
            raise KeyError(f"{self._where} has no setting {name!r}") from None
        except OSError as error:
            raise BadInput(f"{self._where} does not tell {name}: {error.strerror}") from error
        return value

    def __setitem__(self, name: str, value: str | int) -> None:
        try:
            self._call(write_sysctl, self._checked(name), str(value))
        except (FileNotFoundError, IsADirectoryError):
            raise KeyError(f"{self._where} has no setting {name!r}") from None
        except OSError as error:
            raise BadInput(f"{self._where} does not take {name} = {value!r}: {error.strerror}") from error

    def __delitem__(self, name: str) -> None:
        raise TypeError("a kernel setting cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        names: list[str] = self._call(_all_names)
        return iter(names)

    def __len__(self) -> int:
        return len(list(iter(self)))


def _all_names() -> list[str]:
    """The settings that have a value to read, as `_path` takes them; some can only be written."""
    paths = [os.path.join(folder, file) for folder, _, files in os.walk(f"{_ROOT}/net") for file in files]
    names = [os.path.relpath(path, _ROOT) for path in paths]
    return [name if "." in name else name.replace("/", ".") for name in names if _can_be_read(name)]


def _can_be_read(name: str) -> bool:
    try:
        read_sysctl(name)
    except OSError:
        return False
    return True
