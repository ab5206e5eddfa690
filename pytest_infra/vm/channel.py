"""This end of the agent's port: requests, their answers, and what stays in the guest and is used from here."""

from __future__ import annotations

import itertools
import os
import pickle
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..core.errors import InfraError, StartFailed, WaitTimeout
from .wire import Frame, read_frame, to_bytes

__all__ = ["Channel", "GuestTraceback", "Remote"]

T = TypeVar("T")
_FAILED_TO_IMPORT = (ModuleNotFoundError, AttributeError)


class GuestTraceback(Exception):
    """Where in the guest an error came from: the cause of the error that is raised here."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


class Channel:
    """The connection to a guest's agent.

    Args:
        connection: the connected socket.
        name: the guest's name, for messages.
        obituary: says why the guest does not answer any more.
    """

    def __init__(self, connection: socket.socket, name: str, obituary: Callable[[], str] = str) -> None:
        self.name = name
        self.facts: dict[str, Any] = {}
        """What the agent said of itself when it was ready."""
        self.ready = threading.Event()
        self.warm = threading.Event()
        """Whether the agent has imported what it will need."""
        self.gone = threading.Event()
        self._obituary = obituary
        self._numbers = itertools.count(1)
        self._listeners: dict[int, Callable[[Frame], None]] = {}
        self._writing = threading.Lock()
        self._connection = self._reading = connection
        threading.Thread(target=self._read, name=f"infra-{name}-agent", daemon=True).start()

    def quiet(self) -> AbstractContextManager[object]:
        """Send nothing meanwhile."""
        return self._writing

    def ping(self, timeout_s: float = 120.0) -> None:
        """Wait until the guest has taken everything that was sent.

        Raises:
            WaitTimeout: it has not in time.
        """
        self.ask("call", pickle.dumps((os.getpid, (), {})), timeout_s=timeout_s)

    def move_to(self, connection: socket.socket) -> None:
        """Go on through another connection, to the same guest in another process; call it within `quiet`."""
        self._connection = connection

    def _receive(self, length: int) -> bytes:
        """Up to so many bytes; what comes through a connection that is given up is read to its end first."""
        while True:
            connection = self._reading
            with suppress(ConnectionError):
                if content := connection.recv(length):
                    return content
            if connection is self._connection:
                return b""
            self._reading = self._connection

    def _read(self) -> None:
        try:
            while (frame := read_frame(self._receive)) is not None:
                if frame[:2] == (0, "ready"):
                    self.facts = frame[2]
                    self.ready.set()
                elif frame[:2] == (0, "warm"):
                    self.warm.set()
                elif listener := self._listeners.get(frame[0]):
                    listener(frame)
        except (OSError, EOFError, pickle.UnpicklingError):
            pass
        self.gone.set()
        for number, listener in list(self._listeners.items()):
            listener((number, "gone", None))

    def request(self, kind: str, *content: Any, listener: Callable[[Frame], None]) -> int:
        """Send a request; `listener` is called, in another thread, with each frame that answers it."""
        number = next(self._numbers)
        self._listeners[number] = listener
        if self.gone.is_set():
            raise self.lost()
        data = to_bytes((number, kind, content))
        try:
            with self._writing:
                self._connection.sendall(data)
        except OSError:
            raise self.lost() from None
        return number

    def forget(self, number: int) -> None:
        """Take no more answers to a request."""
        self._listeners.pop(number, None)

    def ask(self, kind: str, *content: Any, timeout_s: float = 120.0) -> Any:
        """Send a request and wait for its answer.

        Raises:
            WaitTimeout: none came in time.
            InfraError: the guest has ended.
        """
        answers: SimpleQueue[Frame] = SimpleQueue()
        number = self.request(kind, *content, listener=answers.put)
        try:
            _, answer, value = answers.get(timeout=timeout_s)
        except Empty:
            raise WaitTimeout(f"the guest {self.name} has not answered within {timeout_s:g} s") from None
        finally:
            self.forget(number)
        if answer == "gone":
            raise self.lost()
        if answer == "error":
            error, trace = value
            raise error from GuestTraceback(trace)
        if answer == "remote":
            return Remote(self, number, value)
        return value

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function of an importable module in the guest's Python, and return its value or raise its error."""
        try:
            pickled = pickle.dumps((function, args, kwargs))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InfraError(
                f"this cannot be sent into the guest {self.name}: {error}; give a function of an importable module, "
                "and arguments that can be pickled"
            ) from error
        try:
            value: T = self.ask("call", pickled)
        except _FAILED_TO_IMPORT as error:
            if isinstance(error.__cause__, GuestTraceback) and "pickle.loads" in str(error.__cause__):
                module = getattr(function, "__module__", "?")
                raise InfraError(
                    f"the guest {self.name} cannot import {module}: {error}; only installed modules can be, so put the "
                    "function into one, or run a program: run(['python3', …]) with rootfs='host'"
                ) from error
            raise
        return value

    def agent(self, function: Callable[..., T], *args: Any) -> T:
        """As `call`, for a function that takes the agent itself first."""
        value: T = self.ask("agent", pickle.dumps((function, args)))
        return value

    def lost(self) -> InfraError:
        """The error of a guest that has gone."""
        return StartFailed(f"the guest {self.name} does not answer any more: {self._obituary()}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Remote:
    """Something that stayed in the guest because it cannot be sent: a socket, an open file.

    Its methods are called there; an attribute is read by calling it without arguments.
    """

    def __init__(self, channel: Channel, number: int, kind: str) -> None:
        self._channel, self._number, self._kind = channel, number, kind
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"<{self._kind} in the guest {self._channel.name}>"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def use(*args: Any, **kwargs: Any) -> Any:
            return self._channel.ask("use", self._number, name, pickle.dumps((args, kwargs)))

        return use

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *exc: object) -> None:
        self.use("close")
        self._channel.ask("drop", self._number)

    def use(self, name: str, *args: Any) -> Any:
        """Call a method by its name."""
        return self._channel.ask("use", self._number, name, pickle.dumps((args, {})))
