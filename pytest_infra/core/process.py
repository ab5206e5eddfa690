"""Commands and background processes: argument lists, captured output, time limits.

Output goes to anonymous files (memfd_create(2)) and not to pipes: nothing can block on a full pipe, a daemon
that keeps its parent's output open delays nobody, and what has been written so far can be read at any time.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .errors import BadInput, CommandFailed
from .wait import until

__all__ = ["Completed", "Popen", "Process", "check_argv", "run", "spawn"]

Popen = Callable[..., "subprocess.Popen[bytes]"]
"""Starts a process somewhere: `subprocess.Popen` itself, or a node's way in."""


@dataclass(frozen=True)
class Completed:
    """A command that has ended."""

    argv: tuple[str, ...]
    where: str
    returncode: int
    stdout: str
    stderr: str
    duration_s: float

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.returncode == 0


def check_argv(argv: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """The argument list as strings.

    Raises:
        BadInput: it is a string (nothing is ever given to a shell), is empty, or holds something else than strings.
    """
    if isinstance(argv, str | bytes):
        words = shlex.split(argv if isinstance(argv, str) else argv.decode(errors="replace"))
        raise BadInput(f"a command is a list of arguments, not a string: write {words!r}")
    items = list(argv)
    for item in items:
        if not isinstance(item, str | os.PathLike):
            raise BadInput(f"a command's arguments are strings, not {type(item).__name__} ({item!r})")
    if not items:
        raise BadInput("a command needs at least a program's name; got an empty list")
    return tuple(os.fspath(item) for item in items)


def _file_holding(content: str | bytes) -> int:
    """A descriptor of a file in memory, at its beginning."""
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class Process:
    """A process in the background. Use it as a context manager, or leave its end to the lab."""

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        where: str = "the machine",
        popen: Popen = subprocess.Popen,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        self.argv = check_argv(argv)
        self.where = where
        self._began_s = time.monotonic()
        self._out = os.memfd_create("stdout", os.MFD_CLOEXEC)
        self._err = os.memfd_create("stderr", os.MFD_CLOEXEC)
        stdin = subprocess.DEVNULL if input is None else _file_holding(input)
        try:
            self._popen = popen(
                self.argv,
                stdin=stdin,
                stdout=self._out,
                stderr=self._err,
                env=None if env is None else {**os.environ, **env},
                cwd=os.getcwd() if cwd is None else os.fspath(cwd),
                start_new_session=True,
            )
        except FileNotFoundError as error:
            self._close()
            if cwd is not None and not os.path.isdir(cwd):
                raise BadInput(f"no folder {os.fspath(cwd)!r} to run {self.argv[0]!r} in") from error
            raise CommandFailed(self.argv, where, 127, reason=f"no program {self.argv[0]!r} there") from error
        except BaseException:
            self._close()
            raise
        finally:
            if input is not None:
                os.close(stdin)
        self._pidfd = os.pidfd_open(self._popen.pid)

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended with {self.returncode}"
        return f"<Process {self.pid} {shlex.join(self.argv)!r} in {self.where}, {state}>"

    @property
    def pid(self) -> int:
        """The process id as the machine sees it."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, the negative number of the signal that ended it, or None while it runs."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    @property
    def stdout(self) -> str:
        """What it has written to standard output so far."""
        return _content(self._out)

    @property
    def stderr(self) -> str:
        """What it has written to standard error so far."""
        return _content(self._err)

    def wait(self, within_s: float = 30.0) -> Completed:
        """Wait for its end.

        Raises:
            CommandFailed: it still runs after `within_s` seconds (and goes on running).
        """
        if self.running:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(max(0.0, within_s) * 1000)
        if (returncode := self._popen.poll()) is None:
            raise self._failed(None, f"still running after {within_s:g} s")
        took_s = time.monotonic() - self._began_s
        return Completed(self.argv, self.where, returncode, self.stdout, self.stderr, took_s)

    def wait_for(self, text: str, within_s: float = 5.0) -> str:
        """Wait until `text` appears in its output (standard output or error), and return the line that has it.

        Raises:
            CommandFailed: it ended without having written it.
            WaitTimeout: it did not write it in time.
        """

        def look() -> str:
            ended = not self.running
            for line in (self.stdout + "\n" + self.stderr).splitlines():
                if text in line:
                    return line
            if ended:
                raise self._failed(self.returncode, f"ended with {self.returncode} before it wrote {text!r}")
            return ""

        return until(look, within_s=within_s, what=f"{text!r} in the output of {shlex.join(self.argv)!r}")

    def send_signal(self, number: int) -> None:
        """Send a signal to the process and every other one in its group; one that has ended gets none."""
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)

    def stop(self, grace_s: float = 2.0) -> Completed:
        """End it: SIGTERM, and after `grace_s` seconds SIGKILL, to its whole process group."""
        self.send_signal(signal.SIGTERM)
        try:
            return self.wait(grace_s)
        except CommandFailed:
            self.send_signal(signal.SIGKILL)
            return self.wait()

    def close(self) -> None:
        """Kill it if it still runs, and give back its files; its output is gone afterwards."""
        self.send_signal(signal.SIGKILL)
        self._popen.wait()
        self._close()
        os.close(self._pidfd)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _close(self) -> None:
        os.close(self._out)
        os.close(self._err)

    def _failed(self, returncode: int | None, reason: str) -> CommandFailed:
        return CommandFailed(self.argv, self.where, returncode, self.stdout, self.stderr, reason)


def _content(fd: int) -> str:
    size = os.fstat(fd).st_size
    return os.pread(fd, size, 0).decode(errors="replace")


def spawn(argv: Sequence[str | os.PathLike[str]], **options: object) -> Process:
    """Start a process in the background; the options are those of `Process`."""
    return Process(argv, **options)  # type: ignore[arg-type]


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    check: bool = True,
    timeout_s: float = 30.0,
    where: str = "the machine",
    popen: Popen = subprocess.Popen,
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> Completed:
    """Run a command to its end.

    Args:
        argv: the program and its arguments; never a shell string.
        check: whether an exit status other than 0 is an error.
        timeout_s: seconds after which the command and its process group are killed.
        where: the node's name, for messages.
        popen: starts the process.
        input: given to it as standard input; nothing by default.
        env: variables added to the environment.
        cwd: the folder to run in; the present one by default.

    Raises:
        BadInput: `argv` is a string, empty, or not made of strings.
        CommandFailed: another exit status than 0 (with `check`), no such program, or out of time.
    """
    process = Process(argv, where=where, popen=popen, input=input, env=env, cwd=cwd)
    try:
        try:
            done = process.wait(timeout_s)
        except CommandFailed as late:
            process.send_signal(signal.SIGKILL)
            reason = f"killed after {timeout_s:g} s"
            raise CommandFailed(process.argv, where, None, process.stdout, process.stderr, reason) from late
    finally:
        process.close()
    if check and not done.ok:
        raise CommandFailed(done.argv, where, done.returncode, done.stdout, done.stderr)
    return done
