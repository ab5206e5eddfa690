"""KSM: the machine's kernel is asked to merge equal pages of guests, and told what it was told before afterwards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress

from ..core.errors import Unavailable
from ..core.lease import Lease
from ..core.lock import exclusive
from ..core.resource import Resource

__all__ = ["MergedPages", "merged_bytes", "put_back"]

_FOLDER = "/sys/kernel/mm/ksm"
_EAGER = {"pages_to_scan": "5000", "sleep_millisecs": "20", "run": "1"}


def _read(name: str) -> str:
    with open(os.path.join(_FOLDER, name), encoding="ascii") as file:
        return file.read().strip()


def _write(settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        with open(os.path.join(_FOLDER, name), "w", encoding="ascii") as file:
            file.write(value)


def put_back(settings: Mapping[str, str]) -> None:
    """Give the kernel the settings that it had."""
    with suppress(FileNotFoundError):
        _write(settings)


class MergedPages(Resource):
    """KSM, switched on for the whole machine and eager, and put back afterwards (the kernel's KSM document).

    Where somebody else has switched it on, nothing is changed. One session at a time can ask for it.

    Args:
        lease: where what it changes is written down.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def _start(self, undo: ExitStack) -> None:
        if not os.path.exists(f"{_FOLDER}/run"):
            raise Unavailable("ksm", "the kernel has no KSM", "use a kernel with CONFIG_KSM")
        if not os.access(f"{_FOLDER}/run", os.W_OK):
            raise Unavailable("ksm", "this process may not change KSM, a setting of the whole machine", "run as root")
        undo.enter_context(exclusive("ksm"))
        before = {name: _read(name) for name in _EAGER}
        if before["run"] == "1":
            return
        entry = self._lease.add("ksm", settings=before)
        undo.callback(self._lease.done, entry)
        undo.callback(put_back, before)
        _write(_EAGER)


def merged_bytes(pid: int) -> int:
    """How much of a process's memory is shared with others because KSM found equal pages (proc(5)).

    Raises:
        Unavailable: the machine's kernel does not merge pages, or nobody has told it to.
    """
    try:
        runs = _read("run") == "1"
        with open(f"/proc/{pid}/ksm_merging_pages", encoding="ascii") as file:
            pages = int(file.read())
    except FileNotFoundError:
        raise Unavailable("ksm", "the kernel has no KSM, or does not count it", "use Linux 6.1 or newer") from None
    if not runs:
        raise Unavailable("ksm", "KSM is switched off on this machine", "lab.merge_memory(), or run it yourself")
    return pages * os.sysconf("SC_PAGESIZE")
