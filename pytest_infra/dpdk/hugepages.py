"""Huge pages that are set aside for a while, and given back to the machine even after SIGKILL.

How many the machine keeps is one number for everybody. So each claim is a file, the number before the first claim is
another, and whoever holds the lock writes the sum: giving back is exact, and may be done twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from ..core.errors import BadInput, InfraError, Unavailable
from ..core.lease import Lease
from ..core.lock import exclusive
from ..core.resource import Resource
from ..core.units import format_size, size_bytes
from .requirement import HUGEPAGES, nr_hugepages

__all__ = ["CLAIMS", "HugePages", "give_back"]

CLAIMS = "/run/pytest-infra-hugepages"
"""The folder of the claims, which is there as long as there is one; only root makes any."""

_PAGE_KIB = 2048
_LARGEST_BYTES = 1 << 40
_LARGEST_SHARE = 0.5
_LOCK_S = 30.0


@contextmanager
def _locked() -> Iterator[str]:
    with exclusive("hugepages", timeout_s=_LOCK_S):
        os.makedirs(CLAIMS, 0o755, exist_ok=True)
        yield CLAIMS


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _write(path: str, number: int) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(str(number))


def _kept() -> int:
    """How many pages the machine keeps: not those that it only waits to free, because somebody has them still.

    Those may be freed at any moment, also between two readings: both numbers must be of the same one.
    """
    path = nr_hugepages(_PAGE_KIB)
    surplus_path = os.path.join(os.path.dirname(path), "surplus_hugepages")
    while True:
        surplus, pages = _number(surplus_path), _number(path)
        if _number(surplus_path) == surplus:
            return pages - surplus


def _apply(folder: str) -> int:
    """Have the machine keep what is claimed and what it kept before; returns how many pages are missing."""
    base = os.path.join(folder, "before")
    wanted = _number(base) + sum(_number(os.path.join(folder, name)) for name in os.listdir(folder) if name != "before")
    _write(nr_hugepages(_PAGE_KIB), wanted)
    return wanted - _kept()


def give_back(claim: str) -> None:
    """Undo a claim; it may have been undone already.

    Raises:
        BadInput: this is no name of a claim.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+", claim) or claim == "before":
        raise BadInput(f"{claim!r} is no claim of huge pages")
    with _locked() as folder:
        path = os.path.join(folder, claim)
        if os.path.exists(path):
            os.unlink(path)
            _apply(folder)
        if set(os.listdir(folder)) <= {"before"}:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, "before"))
            os.rmdir(folder)


class HugePages(Resource):
    """Huge pages of 2 MiB, set aside from memory that is free now.

    Args:
        size: how much, ``"256 MiB"`` or bytes.
        lease: remembers them, in case this process is killed.

    Raises:
        BadInput: the size cannot be used.
    """

    requires = (HUGEPAGES,)

    def __init__(self, size: str | int, lease: Lease) -> None:
        wanted = size_bytes(size)
        if not 0 < wanted <= _LARGEST_BYTES:
            raise BadInput(f"hugepages={size!r} cannot be used: more than 0 and at most 1 TiB are wanted")
        self.pages = -(-wanted // (_PAGE_KIB * 1024))
        self._lease = lease

    @property
    def size_bytes(self) -> int:
        """How much memory they are."""
        return self.pages * _PAGE_KIB * 1024

    def _start(self, undo: ExitStack) -> None:
        self._demand_memory()
        claim = f"{os.getpid()}-{os.urandom(4).hex()}"
        entry = self._lease.add("hugepages", claim=claim)
        undo.callback(self._lease.done, entry)
        undo.callback(give_back, claim)
        with _locked() as folder:
            base = os.path.join(folder, "before")
            if not os.path.exists(base):
                _write(base, _kept())
            _write(os.path.join(folder, claim), self.pages)
            try:
                missing = _apply(folder)
            except OSError as error:
                raise InfraError(f"huge pages cannot be set aside: {error.strerror}") from error
        if missing > 0:
            raise Unavailable(
                "hugepages",
                f"{format_size(self.size_bytes)} were asked for, and the kernel found {missing} of {self.pages} pages "
                "too few: that much memory is not free in pieces of 2 MiB",
                "ask for less, or free memory: echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory",
            )

    def _demand_memory(self) -> None:
        """Refuse what would leave the machine without memory: the kernel would take all that it can find."""
        with open("/proc/meminfo", encoding="ascii") as file:
            available = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
        if self.size_bytes > available * _LARGEST_SHARE:
            raise Unavailable(
                "hugepages",
                f"{format_size(self.size_bytes)} were asked for, and {format_size(available)} of memory are available, "
                f"of which {_LARGEST_SHARE:.0%} may be set aside",
                "ask for less",
            )
