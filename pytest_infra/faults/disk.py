"""`fill_disk`: a small file system that is full, where a node writes its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..checks import workload
from ..checks.limits import Runner
from ..core.errors import BadInput, StartFailed
from ..core.fault import noted
from ..core.units import format_size, size_bytes

__all__ = ["fill_disk"]

_FILLER = ".filled"


@contextmanager
def fill_disk(
    node: Runner, path: str | os.PathLike[str], *, size: str | float = "1 MiB", free: str | float = 0
) -> Iterator[None]:
    """Mount a small file system over a folder of a node and fill it: writing there ends in ENOSPC (errno(3)).

    What the folder held before is hidden meanwhile. The machine does not see the mount; the other hosts of the lab
    do, unless the node has a mount namespace of its own (``lab.host(isolate=["mount"])``).

    Args:
        node: a node, or a group.
        path: a folder that exists there.
        size: of the file system, in whole pages.
        free: how much of it is left to be written.

    Raises:
        BadInput: no room for what is to be left free, or less than a page.
        CommandFailed: it could not be mounted, for instance because there is no such folder.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    pages, left = size_bytes(size) // page, -(-size_bytes(free) // page)
    if not 0 <= left <= pages or pages < 1:
        raise BadInput(f"a disk of {size!r} cannot have {free!r} free; the least size is {format_size(page)}")
    where = os.fspath(path)
    node.run(["mount", "-t", "tmpfs", "-o", f"size={pages * page}", "fill_disk", where])
    try:
        if pages > left:
            node.run(workload.write(os.path.join(where, _FILLER), (pages - left) * page, how="buffered"))
        with noted(f"fill_disk {where} in {node.name}", [node]):
            yield
    finally:
        with suppress(StartFailed):  # the lab has ended, and the mount with it
            node.run(["umount", "-l", where])
