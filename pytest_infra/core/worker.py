"""Threads that run functions for others: how code enters a namespace without moving the test's own thread.

Python raises the error of a signal (Ctrl-C, a test's time limit) in the main thread, between any two of its steps. What
must be done as a whole is therefore done in another thread, and the main thread waits for its end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from .errors import InfraError

__all__ = ["Worker", "whole"]

T = TypeVar("T")


class _Job:
    """A call for another thread. It is begun there or given up here, whichever comes first."""

    __slots__ = ("_args", "_begun", "_ended", "_error", "_function", "_kwargs", "_lock", "_value", "goes_on")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._function, self._args, self._kwargs = function, args, kwargs
        self._value: Any = None
        self._error: BaseException | None = None
        self._begun = threading.Lock()  # taken by the one who begins it, or gives it up
        self._ended = False
        self.goes_on = False
        """Whether its caller was interrupted, and it runs on."""
        self._lock = threading.Lock()  # held until it has ended
        self._lock.acquire()

    def run(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._value = self._function(*self._args, **self._kwargs)
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            self._error = error
        finally:
            self._ended = True
            self._lock.release()

    def result(self, begin: Callable[[], object], whole: bool) -> Any:
        """Have it begun, and wait for its end; on an interrupt, give it up, or if `whole` see it through."""
        try:
            begin()
            self._lock.acquire()
        except BaseException:
            if not self._begun.acquire(blocking=False) and not self._ended:
                if whole:
                    self._lock.acquire()
                else:
                    self.goes_on = True
            raise
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._error = None  # an exception that refers to its job would keep every frame alive


class Worker:
    """One daemon thread and a queue of calls to it.

    Args:
        name: the thread's name, as debuggers show it.
        enter: called once in the new thread, before the first call; its error reaches the maker.
    """

    def __init__(self, name: str, enter: Callable[[], None] | None = None) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._process = os.getpid()
        self._change = threading.Lock()
        self._stopped = False
        self.abandoned = False
        """Whether a call was interrupted that may run for ever: further calls would wait for it."""
        try:
            self._begin()
            if enter is not None:
                self.call(enter)
        except BaseException:
            self._jobs.put(None)
            raise

    @property
    def is_current(self) -> bool:
        """Whether the caller is in its thread."""
        return threading.current_thread() is self._thread

    def _begin(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:
            raise InfraError(f"the thread {self._thread.name} cannot be started: {error}") from error

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `function` in the thread and return its value, or raise its error, here.

        Called from within the thread itself, it runs at once. An interrupt is raised at once, and leaves the function
        running.

        Raises:
            InfraError: the thread has been ended, or is that of the process that this one was forked from.
        """
        return self._call(function, args, kwargs, whole=False)

    def call_whole(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As `call`, for a function that ends soon: an interrupt is raised when it has ended, or before it begins."""
        return self._call(function, args, kwargs, whole=True)

    def _call(self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], *, whole: bool) -> T:
        if self.is_current:
            return function(*args, **kwargs)
        job = _Job(function, args, kwargs)
        try:
            value: T = job.result(lambda: self._put(job), whole)
        finally:
            self.abandoned |= job.goes_on
        return value

    def _put(self, job: _Job) -> None:
        if self._process != os.getpid():
            raise InfraError(f"{self._thread.name} is a thread of process {self._process}, which a fork does not copy")
        with self._change:
            if self._stopped:
                raise InfraError(f"{self._thread.name} has ended")
            self._jobs.put(job)

    def stop(self, join_s: float = 1.0) -> None:
        """End the thread after the calls that are queued; waits at most `join_s` seconds for it."""
        with self._change:
            self._stopped = True
            self._jobs.put(None)
        if not self.is_current:
            self._thread.join(join_s)

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job


def whole(function: Callable[..., T], *args: Any) -> T:
    """Run `function`, which ends soon, as a whole: an interrupt is raised when it has ended, or before it begins.

    Where no thread can be had for it, it is run here, and an interrupt breaks it off.
    """
    if threading.current_thread() is not threading.main_thread():
        return function(*args)
    job = _Job(function, args, {})
    thread = threading.Thread(target=job.run, name=f"infra-{function.__name__}", daemon=True)

    def begin() -> None:
        try:
            thread.start()
        except RuntimeError:
            job.run()

    value: T = job.result(begin, whole=True)
    return value
