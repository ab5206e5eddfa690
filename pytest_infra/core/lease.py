"""`Lease`: what must not outlive this process, written down before it is made.

What the kernel frees by itself when a process dies needs no lease. The rest (files, and later containers, control
groups, mounts) is added to the lease's ledger first. A lease belongs to one process; when that dies, by
whatever signal, a tiny process that waits for it clears the lease within a second or two. Should that one die too, the
next session's sweep does it (see `core.sweep`).
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import ExitStack, suppress

from .errors import BadInput, CleanupFailed, InfraError
from .requirement import LINUX
from .resource import Resource
from .rundir import run_directory
from .selfrun import module_argv
from .sweep import KINDS, LEDGER, SESSION, Swept, clear, lock_folder, sweep

__all__ = ["Lease"]

_REAPER = 'trap "" INT TERM HUP QUIT; read word && exit 0; exec "$@"'
# `read` ends with a word when the session ends in order, and with end-of-file when it dies.


class Lease(Resource):
    """This process's folder below the run directory, its ledger, and the process that clears it if this one dies.

    Files in `folder` need no entry of their own: the folder goes as a whole.

    Args:
        base: the run directory; by default this user's (`core.rundir.run_directory`).
        about: more that ``pytest-infra list`` is to know of the session; JSON types.
    """

    requires = (LINUX,)

    def __init__(self, base: str | None = None, about: Mapping[str, object] | None = None) -> None:
        self._base = base
        self._about = dict(about or {})
        self.folder = ""
        """The folder of this session, while the lease is up."""
        self.swept: list[Swept] = []
        """What dead sessions had left, and was cleared when this lease began."""

    def _start(self, undo: ExitStack) -> None:
        self.swept = sweep([self._base or run_directory()])
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self._open: set[int] = set()
        self._writing = threading.Lock()
        self._lock = self._make_folder()
        undo.callback(self._close, "_lock")
        undo.callback(self._clear)  # for a step below that fails; in an orderly end the later one does the work
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._ledger = os.open(os.path.join(self.folder, LEDGER), flags, 0o600)
        undo.callback(self._close, "_ledger")
        self._start_reaper(undo)
        undo.callback(self._clear)
        _close_in_children(self)
        self._write_session()

    def _make_folder(self) -> int:
        """Make the folder and lock it; sweeps are kept out of the moment in between by the lock on the one above."""
        for _ in range(100):
            base = self._base or run_directory()
            os.makedirs(base, 0o700, exist_ok=True)
            base_lock = lock_folder(base, wait=True)
            if base_lock is None:
                continue  # it went with the last lease in it
            try:
                self.folder = os.path.join(base, f"{self._pid}-{os.urandom(3).hex()}")
                os.mkdir(self.folder, 0o700)
                lock = lock_folder(self.folder)
                assert lock is not None, "nobody else knows this folder"
                return lock
            except FileNotFoundError:
                continue
            finally:
                os.close(base_lock)
        raise InfraError(f"the run directory {base} goes away whenever a folder is to be made in it")

    def _write_session(self) -> None:
        import json

        session = {"pid": self._pid, "argv": sys.orig_argv, "started": time.time(), **self._about}
        with open(os.path.join(self.folder, SESSION), "w", encoding="utf-8") as file:
            json.dump(session, file)

    def _start_reaper(self, undo: ExitStack) -> None:
        """Start the process that clears this lease when this process dies: it listens to a pipe."""
        read_end, self._pipe = os.pipe2(os.O_CLOEXEC)
        try:
            reaper = subprocess.Popen(
                ["/bin/sh", "-c", _REAPER, "pytest-infra-reaper", *module_argv("pytest_infra.core.sweep", self.folder)],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        except BaseException:
            self._close("_pipe")
            raise
        finally:
            os.close(read_end)
        undo.callback(self._dismiss, reaper)

    def _dismiss(self, reaper: subprocess.Popen[bytes]) -> None:
        if os.getpid() != self._pid:
            return
        with suppress(BrokenPipeError):  # somebody may have killed it
            os.write(self._pipe, b"done\n")
        self._close("_pipe")
        reaper.wait()

    def _clear(self) -> None:
        if os.getpid() != self._pid:
            return  # a forked child that ends like its parent would
        errors = clear(self.folder).errors
        if errors:
            raise CleanupFailed(f"left by this session: {'; '.join(errors)} (then: pytest-infra clean)")

    def _close(self, name: str) -> None:
        fd = getattr(self, name)
        setattr(self, name, -1)
        if fd >= 0:
            os.close(fd)

    def add(self, kind: str, **facts: object) -> int:
        """Write down what is about to be made, and return the entry's number for `done`.

        Args:
            kind: one of `core.sweep.KINDS`.
            facts: what its undo function needs, in JSON types: ``path=…`` for a directory or a file.

        Raises:
            BadInput: an unknown kind.
        """
        if kind not in KINDS:
            raise BadInput(f"a lease knows no {kind!r}; it knows {', '.join(sorted(KINDS))}")
        return self._record(next(self._numbers), {"kind": kind, "facts": facts})

    def done(self, entry: int) -> None:
        """Write down that the thing of this entry has been undone; one that is not there any more is ignored."""
        with self._writing:
            if entry in self._open:
                self._open.discard(entry)
                if self._open:
                    self._append({"done": entry})
                else:
                    os.ftruncate(self._ledger, 0)  # nothing is left, so the ledger does not grow with the session

    def publish(self, lab_name: str, facts: Mapping[str, object], entry: int | None = None) -> int:
        """Make a lab known to ``pytest-infra list`` and ``shell``; returns the entry's number for `withdraw`.

        Args:
            lab_name: the lab's name.
            facts: JSON types: ``{"nodes": {NAME: {"namespaces": {"net": PATH, "mnt": PATH, …}, "env": {…}}}}``.
            entry: the number that an earlier call returned, whose facts are replaced.
        """
        return self._record(next(self._numbers) if entry is None else entry, {"lab": lab_name, "facts": facts})

    def withdraw(self, entry: int) -> None:
        """The lab is about to go."""
        self.done(entry)

    def _record(self, entry: int, item: Mapping[str, object]) -> int:
        with self._writing:
            self._append({"entry": entry, **item})
            self._open.add(entry)
        return entry

    def _append(self, item: Mapping[str, object]) -> None:
        import json

        line = json.dumps(item).encode() + b"\n"
        before = os.fstat(self._ledger).st_size
        try:
            written = os.write(self._ledger, line)  # one write: it stays when this process dies
        except OSError as error:
            raise InfraError(f"the ledger in {self.folder} cannot be written: {error.strerror}") from error
        if written < len(line):
            os.ftruncate(self._ledger, before)
            raise InfraError(f"the ledger in {self.folder} cannot be written: its disk is full")


def _close_in_children(lease: Lease) -> None:
    """A forked child must not hold what says that this process lives (a child made by exec never does)."""
    known = weakref.ref(lease)

    def close() -> None:
        if (lease := known()) is not None and lease.started:
            for name in ("_lock", "_ledger", "_pipe"):
                lease._close(name)

    os.register_at_fork(after_in_child=close)
