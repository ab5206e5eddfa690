"""Files that only their owner may read: captures and evidence hold what went over the wire."""

from __future__ import annotations

import os
import stat

__all__ = ["write_private"]


def write_private(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file for its owner only (mode 0600), whatever the umask is; one that is there already is replaced.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # and not /dev/stdout
            os.fchmod(descriptor, 0o600)
        file.write(content)
