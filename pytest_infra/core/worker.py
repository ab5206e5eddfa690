"""A thread that runs functions for others: how code enters a namespace without moving the test's own thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Worker", "in_thread"]

T = TypeVar("T")


class _Job:
    __slots__ = ("args", "done", "error", "function", "kwargs", "value")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def run(self) -> None:
        try:
            self.value = self.function(*self.args, **self.kwargs)
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            self.error = error
        finally:
            self.done.release()

    def result(self) -> Any:
        try:
            self.done.acquire()
            if self.error is not None:
                raise self.error
            return self.value
        finally:
            self.error = None  # an exception that refers to its job would keep every frame alive


class Worker:
    """One daemon thread and a queue of calls to it.

    Args:
        name: the thread's name, as debuggers show it.
        enter: called once in the new thread, before the first call; its error reaches the maker.
    """

    def __init__(self, name: str, enter: Callable[[], None] | None = None) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()
        if enter is not None:
            try:
                self.call(enter)
            except BaseException:
                self.stop()
                raise

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `function` in the thread and return its value, or raise its error, here.

        Called from within the thread itself, it runs at once.
        """
        if threading.current_thread() is self._thread:
            return function(*args, **kwargs)
        job = _Job(function, args, kwargs)
        self._jobs.put(job)
        value: T = job.result()
        return value

    def stop(self, join_s: float = 1.0) -> None:
        """End the thread after the calls that are queued; waits at most `join_s` seconds for it."""
        self._jobs.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(join_s)

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job


def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run `function` in a thread of its own that ends afterwards, and return its value or raise its error."""
    job = _Job(function, args, kwargs)
    thread = threading.Thread(target=job.run, daemon=True)
    thread.start()
    value: T = job.result()
    thread.join()
    return value
