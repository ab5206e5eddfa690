"""Commands and background processes: argument lists, captured output, time limits.

Output goes to anonymous files (memfd_create(2)) and not to pipes: nothing can block on a full pipe, a daemon
that keeps its parent's output open delays nobody, and what has been written so far can be read at any time.
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from .errors import BadInput, CommandFailed, InfraError, reason
from .wait import until

__all__ = ["Completed", "Popen", "Process", "await_end", "check_argv", "run", "spawn"]

_KEPT_BYTES = 1 << 16  # of each stream of a process that is closed
_LONGEST_POLL_MS = 2**31 - 1
_END_OF_LINE_S = 0.1
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

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
    if not isinstance(argv, Iterable):
        raise BadInput(f"a command is a list of arguments, not {argv!r}")
    items = list(argv)
    for item in items:
        if not isinstance(item, str | os.PathLike):
            raise BadInput(f"a command's arguments are strings, not {type(item).__name__} ({item!r})")
    texts = tuple(os.fspath(item) for item in items)
    if not texts or not texts[0]:
        raise BadInput(f"a command needs at least a program's name; got {items!r}")
    if any("\0" in text for text in texts):
        raise BadInput(f"a command's arguments cannot hold a NUL character; got {items!r}")
    return texts


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    """This process's variables and those of `env`; PATH has the sbin folders too, which an ordinary user's lacks."""
    if not isinstance(env, Mapping | None):
        raise BadInput(f"env {env!r} cannot be used; a dict of names and values is wanted")
    for name, value in (env or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise BadInput(f"environment variables are strings; got {name!r}: {value!r}")
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join([*folders, *(folder for folder in _SBIN if folder not in folders)])
    return {**os.environ, "PATH": path, **(env or {})}


def _folder(cwd: str | os.PathLike[str] | None) -> str:
    """The folder to run in, from the root: the thread that starts a process may have another present folder."""
    if not isinstance(cwd, str | os.PathLike | None):
        raise BadInput(f"cwd {cwd!r} cannot be used; the path of a folder is wanted")
    try:
        return os.path.abspath(os.fspath(cwd)) if cwd is not None else os.getcwd()
    except FileNotFoundError:
        raise BadInput("the present folder is gone; name an absolute one with cwd=") from None


def _memory_file(undo: ExitStack, name: str, content: str | bytes = b"") -> int:
    """A descriptor of a file in memory, at its beginning; a child may inherit it, a program started beside it not."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    undo.callback(os.close, fd)
    if content:
        with open(fd, "wb", closefd=False) as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.lseek(fd, 0, os.SEEK_SET)
    return fd


def await_end(pid: int, within_s: float) -> bool:
    """Wait until a child of this process has ended, and leave it to be reaped; whether it has ended."""
    opened: list[int] = []
    try:
        opened.extend(map(os.pidfd_open, [pid]))  # one step: an interrupt cannot come between it and its being known
        poll = select.poll()
        poll.register(opened[0], select.POLLIN)
        return bool(poll.poll(min(max(0.0, within_s) * 1000, _LONGEST_POLL_MS)))
    except OSError as error:
        # It has been reaped. EINVAL: and its number still names its group or session, whose others live on.
        if opened or error.errno not in (errno.ESRCH, errno.EINVAL):
            raise
        return True
    finally:
        for pidfd in opened:
            os.close(pidfd)


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
        self._cwd = _folder(cwd)
        self.began_at_s = time.time()
        """When it was started, in seconds since 1970."""
        self.took_s: float | None = None
        """How long it ran, in seconds; None while nobody has seen its end."""
        self._began_s = time.monotonic()
        try:
            self._start(popen, input, _environment(env))
        except OSError as error:
            raise self._not_started(error) from (None if isinstance(error, FileNotFoundError) else error)
        except ValueError as error:  # a NUL, a variable's name with "=", half a surrogate pair
            if isinstance(error, BadInput):
                raise
            what = f"{self.argv[0]!r} cannot be given these arguments, variables and folder"
            raise BadInput(f"{what}: {error}") from error

    def _start(self, popen: Popen, input: str | bytes | None, env: dict[str, str]) -> None:
        with ExitStack() as only_now, ExitStack() as undo:
            if not isinstance(input, str | bytes | None):
                raise BadInput(f"input {input!r} cannot be used; text or bytes are wanted")
            stdin = subprocess.DEVNULL if input is None else _memory_file(only_now, "stdin", input)
            self._out, self._err = _memory_file(undo, "stdout"), _memory_file(undo, "stderr")
            files = {"stdin": stdin, "stdout": self._out, "stderr": self._err}
            self._popen = popen(self.argv, **files, env=env, cwd=self._cwd, start_new_session=True)
            self._files = undo.pop_all()

    def _not_started(self, error: OSError) -> InfraError:
        program = self.argv[0]
        if error.filename == self._cwd and self._cwd != program:
            return BadInput(f"no folder {self._cwd!r} to run {program!r} in: {error.strerror}")
        if isinstance(error, FileNotFoundError):
            return CommandFailed(self.argv, self.where, 127, reason=f"no program {program!r} there")
        return CommandFailed(self.argv, self.where, 126, reason=f"cannot be started: {reason(error)}")

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
        return _content(self._out) if self._out >= 0 else self._kept[0]

    @property
    def stderr(self) -> str:
        """What it has written to standard error so far."""
        return _content(self._err) if self._err >= 0 else self._kept[1]

    def wait(self, within_s: float = 30.0) -> Completed:
        """Wait for its end.

        Raises:
            CommandFailed: it still runs after `within_s` seconds (and goes on running).
        """
        if self.running:
            self._await_end(within_s)
        if (returncode := self._popen.poll()) is None:
            raise self._failed(None, f"still running after {within_s:g} s")
        return Completed(self.argv, self.where, returncode, self.stdout, self.stderr, self._note_end())

    def _note_end(self) -> float:
        if self.took_s is None:
            self.took_s = time.monotonic() - self._began_s
        return self.took_s

    def wait_for(self, text: str, within_s: float = 5.0) -> str:
        """Wait until `text` appears in its output (standard output or error), and return the line that has it.

        A line that has no end yet is given 0.1 s for the rest of it; a prompt has none.

        Raises:
            CommandFailed: it ended without having written it.
            WaitTimeout: it did not write it in time.
        """
        line_ends = time.monotonic() + within_s

        def look() -> str:
            nonlocal line_ends
            ended = not self.running
            lines = [*self.stdout.splitlines(keepends=True), *self.stderr.splitlines(keepends=True)]
            if line := next((line for line in lines if text in line), ""):
                line_ends = min(line_ends, time.monotonic() + _END_OF_LINE_S)
                if ended or line.endswith("\n") or time.monotonic() >= line_ends:
                    return line.rstrip("\r\n")
            elif ended:
                raise self._failed(self.returncode, f"ended with {self.returncode} before it wrote {text!r}")
            return ""

        what = f"{text!r} in the output of {shlex.join(self.argv)!r} in {self.where}"
        return until(look, within_s=within_s, what=what, last_words=self._last_lines)

    def _last_lines(self) -> str:
        lines = (self.stdout + "\n" + self.stderr).strip().splitlines()[-10:]
        return "\n  ".join(["it wrote", *lines]) if lines else "it wrote nothing"

    def send_signal(self, number: int) -> None:
        """Send a signal to the process and every other one in its group; one that has ended gets none."""
        if self.running:
            self._signal_group(number)

    def stop(self, grace_s: float = 2.0) -> Completed:
        """End it: SIGTERM to its process group, and when it has ended, or after `grace_s` seconds, SIGKILL."""
        if self.running:
            self._signal_group(signal.SIGTERM)
            self._await_end(grace_s)
            self._signal_group(signal.SIGKILL)  # not reaped yet: the number of the group is still its own
        return self.wait()

    def let_go(self) -> None:
        """Have `close` leave it running: somebody else looks after it from now on."""
        if self.running:
            self._popen.returncode = 0  # nobody here waits for it: Popen would warn

    def close(self) -> None:
        """Kill it if it still runs, and give back its files; the end of its output is kept. Again: does nothing."""
        self.send_signal(signal.SIGKILL)
        self._popen.wait()
        self._note_end()
        if self._out >= 0:
            self._kept = _tail(self._out), _tail(self._err)
        self._files.close()
        self._out = self._err = -1

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def _await_end(self, within_s: float) -> None:
        await_end(self.pid, within_s)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _failed(self, returncode: int | None, reason: str) -> CommandFailed:
        return CommandFailed(self.argv, self.where, returncode, self.stdout, self.stderr, reason)


def _content(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


def _tail(fd: int) -> str:
    return os.pread(fd, _KEPT_BYTES, max(0, os.fstat(fd).st_size - _KEPT_BYTES)).decode(errors="replace")


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
    kind: Callable[..., Process] = Process,
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
        kind: makes the process: another class, for one that is no child of this one, or somebody who watches.

    Raises:
        BadInput: `argv` is a string, empty, or not made of strings, or another argument cannot be used.
        CommandFailed: another exit status than 0 (with `check`), no such program, or out of time.
    """
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s > 0:
        raise BadInput(f"timeout_s {timeout_s!r} cannot be used; a number of seconds above 0 is wanted")
    process = kind(argv, where=where, popen=popen, input=input, env=env, cwd=cwd)
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
