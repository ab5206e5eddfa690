"""A guest's console: read as it comes, kept within bounds, and asked for its last lines."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter, deque

__all__ = ["Console"]

_FIRST_BYTES, _LAST_CHUNKS = 1 << 18, 256
_CHUNK_BYTES = 4096
_ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1bc|\r|\0")
_LONGEST_LINE = 200
_LATEST_LINES = 100


class Console:
    """What a guest has written to its first serial line: its beginning and its end; a flood loses its middle."""

    def __init__(self) -> None:
        self._first = bytearray()
        self._last: deque[bytes] = deque(maxlen=_LAST_CHUNKS)
        self.written_bytes = 0
        self._readers: list[threading.Thread] = []

    def read_from(self, fd: int) -> None:
        """Take what comes through a pipe until its end, in a thread; the descriptor is closed then."""
        reader = threading.Thread(target=self._read, args=(fd,), name="infra-console", daemon=True)
        try:
            reader.start()
        except RuntimeError:
            os.close(fd)
            raise
        self._readers.append(reader)

    def await_end(self, within_s: float = 2.0) -> None:
        """Wait until what a guest that has ended wrote has been read."""
        for reader in self._readers:
            reader.join(within_s)

    def _read(self, fd: int) -> None:
        try:
            while content := os.read(fd, _CHUNK_BYTES):
                self.written_bytes += len(content)
                if len(self._first) < _FIRST_BYTES:
                    self._first += content
                else:
                    self._last.append(content)
        finally:
            os.close(fd)

    @property
    def text(self) -> str:
        """What was written; where the middle is missing, a line says so."""
        first, last = bytes(self._first), b"".join(tuple(self._last))
        missing = self.written_bytes - len(first) - len(last)
        gap = f"\n… {missing} bytes left out …\n".encode() if missing > 0 else b""
        return _ESCAPE.sub(b"", first + gap + last).decode(errors="replace")

    @property
    def flood(self) -> str:
        """The commonest of the latest lines, where more was written than is kept of the beginning; else nothing."""
        if self.written_bytes <= _FIRST_BYTES:
            return ""
        ((line, _),) = Counter(self.last_lines(_LATEST_LINES)).most_common(1)
        return line

    def last_lines(self, count: int = 8) -> list[str]:
        """The last lines that have something in them."""
        lines = [line.rstrip() for line in self.text.splitlines() if line.strip()]
        return [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…" for line in lines[-count:]]
