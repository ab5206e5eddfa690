"""Commands in a running container, as `core.process.Process` has them: the engine's exec, with its output in files.

The engine starts the command with the container's user, environment, capabilities and control groups.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..core.errors import CommandFailed, WaitTimeout
from ..core.process import Completed, Process
from ..core.wait import until
from .engine import Engine, EngineError

__all__ = ["ContainerProcess", "Exec", "check_found"]

_FRAME = struct.Struct(">BxxxL")  # stream, length (Docker Engine API, "Attach to a container", stream format)
_STDERR = 2
_NOT_RUN = 126
_IDLE_S, _IDLE_AT_MOST_S = 0.1, 1.0
_LAST_WORDS_S = 1.0  # what a command has written may still be on its way through the engine when it has ended
_NOT_FOUND = ("no such file or directory", "executable file not found", "not found in $PATH")


def _read_ahead(stream: Any, channel: socket.socket) -> bytes:
    """What the HTTP client has read beyond the response's header: the first output may come along with it."""
    channel.settimeout(0)
    buffered: bytes = stream._response.raw._fp.fp.peek()
    return buffered


class Exec:
    """A command that the engine has started in a container; it has what `Process` needs of a `subprocess.Popen`.

    Args:
        engine: the engine.
        container: the container's id.
        argv: the command.
        stdin: a descriptor whose content is its standard input, or something negative for none.
        stdout: the descriptor that gets its standard output.
        stderr: the descriptor that gets its standard error.
        env: variables added to the container's.
        cwd: the folder in the container to run in; its own by default.
        user: the user to run as; the container's by default.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str = "",
    ) -> None:
        self._engine = engine
        self._client = engine.new_client()
        self._stream: Any = None
        self._ended = threading.Event()
        self.returncode: int | None = None
        self._outputs = [os.dup(stdout), os.dup(stderr)]
        try:
            self.id = self._call(
                "exec_create",
                container,
                list(argv),
                stdin=stdin >= 0,
                environment=dict(env or {}),
                workdir=cwd,
                user=user,
            )["Id"]
            self._stream = self._call("exec_start", self.id, socket=True)
            self._channel: socket.socket = getattr(self._stream, "_sock", self._stream)
            self._ahead = _read_ahead(self._stream, self._channel)
            self._channel.settimeout(None)
        except BaseException:
            self._close()
            raise
        self._reader = threading.Thread(target=self._read, name="infra-exec-output", daemon=True)
        self._reader.start()
        if stdin >= 0:
            self._feed(os.pread(stdin, os.fstat(stdin).st_size, 0))

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._engine.translate(getattr(self._client, method), *args, **kwargs)

    def _feed(self, content: bytes) -> None:
        """In a thread: a command that does not read its input must not hold up whoever waits for its end."""
        threading.Thread(target=self._write, args=(content,), name="infra-exec-input", daemon=True).start()

    def _write(self, content: bytes) -> None:
        with suppress(OSError):  # it has ended without reading everything
            self._channel.sendall(content)
            self._channel.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        """Sort the frames into the two files until the command has ended, even if a child of it holds its output."""
        idle_s = _IDLE_S
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        ended = False
        try:
            with suppress(OSError, EngineError):
                while True:
                    if self._ahead or poll.poll((_LAST_WORDS_S if ended else idle_s) * 1000):
                        if not self._take_frame():
                            break
                    elif ended:
                        break
                    elif not (ended := bool(self._ended_with())):
                        idle_s = min(idle_s * 2, _IDLE_AT_MOST_S)
            with suppress(EngineError, WaitTimeout):
                self.returncode = until(self._ended_with, within_s=5, what="the exit status")[0]
        finally:
            if self.returncode is None:
                self.returncode = -signal.SIGKILL  # the engine, or the container with all its processes, has gone
            self._ended.set()
            self._close()

    def _take_frame(self) -> bool:
        """Copy one frame; False at the end of the stream."""
        header = self._take(_FRAME.size)
        if len(header) < _FRAME.size:
            return False
        kind, length = _FRAME.unpack(header)
        os.write(self._outputs[kind == _STDERR], self._take(length))
        return True

    def _take(self, length: int) -> bytes:
        content, self._ahead = self._ahead[:length], self._ahead[length:]
        while len(content) < length and (more := self._channel.recv(length - len(content))):
            content += more
        return content

    def _ended_with(self) -> tuple[int, ...]:
        state = self._call("exec_inspect", self.id)
        if state["Running"] or (state["ExitCode"] is None and state["Pid"]):
            return ()
        return (_NOT_RUN if state["ExitCode"] is None else state["ExitCode"],)

    def _close(self) -> None:
        for fd in self._outputs:
            os.close(fd)
        self._outputs = []
        if self._stream is not None:
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)  # wakes the thread that writes
            self._stream._response.close()  # before what it reads from: it would look at that when it is freed
            self._stream.close()
            self._channel.close()
        self._client.close()

    @property
    def pid(self) -> int:
        """The process id as the engine sees it; 0 where it has ended."""
        with suppress(EngineError, WaitTimeout):
            return until(self._find_pid, within_s=5, what="the process id")[0]
        return 0

    def _find_pid(self) -> tuple[int, ...]:
        pid = int(self._engine.ask("exec_inspect", self.id)["Pid"] or 0)
        return (pid,) if pid or self._ended.is_set() else ()

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self.returncode if self._ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end, `timeout` seconds at most."""
        self._ended.wait(timeout)
        return self.poll()

    def signal_group(self, number: int) -> None:
        """Send a signal to it and the processes of its group: the engine starts each command as a group's leader."""
        if (pid := self.pid) and self.poll() is None:
            self._engine.kill_group(pid, number)


class ContainerProcess(Process):
    """A process in a container, started by the engine."""

    _popen: Any

    def _signal_group(self, number: int) -> None:
        self._popen.signal_group(number)

    def _await_end(self, within_s: float) -> None:
        self._popen.wait(max(0.0, within_s))


def check_found(done: Completed) -> None:
    """Tell a program that is not in the image from one that fails.

    Raises:
        CommandFailed: the engine found no such program.
    """
    if done.returncode in (126, 127) and any(words in done.stdout + done.stderr for words in _NOT_FOUND):
        raise CommandFailed(done.argv, done.where, 127, reason=f"no program {done.argv[0]!r} there")
