"""`Resource`: a probed context manager that undoes what it did, whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, ClassVar, TypeVar

from .errors import InfraError, StartFailed, reason
from .evidence import Artifact, attach, says_something
from .keep import CannotKeep, Holdings
from .requirement import Requirement
from .worker import whole

__all__ = ["Artifact", "Facts", "Resource"]

Facts = dict[str, object]
"""What a resource says of itself: JSON types only."""

R = TypeVar("R", bound="Resource")


class _Undo(ExitStack):
    """A stack that remembers which resources were entered on it."""

    def __init__(self) -> None:
        super().__init__()
        self.resources: list[Resource] = []

    def enter_context(self, cm: Any) -> Any:
        entered = super().enter_context(cm)
        if isinstance(cm, Resource):
            self.resources.append(cm)
        return entered


class Resource:
    """Something that is made, used and undone.

    A subclass overrides `_start` and registers the undoing of each step on the stack it is given,
    *as it goes*; there is no other clean-up code. `start` unwinds that stack when a step fails, so a
    half-started resource cannot leak.
    """

    requires: ClassVar[tuple[Requirement, ...]] = ()
    """What the machine must have: gives the skip's reason, the doctor's row and the table in the docs."""

    _undo: _Undo | None = None
    _process = 0

    def _start(self, undo: ExitStack) -> None:
        """Make the thing; register each undo on `undo` as soon as there is something to undo."""

    def describe(self) -> Facts:
        """What this is, for pictures and reports; JSON types only."""
        return {}

    def diagnose(self) -> Iterator[Artifact]:
        """Evidence, read-only, taken while the resource is still up, or half up where its start has failed."""
        return iter(())

    def hand_over(self, holdings: Holdings) -> None:
        """Say what another process must hold so that this stays when it is stopped here (see `core.keep`).

        A resource can be kept where it says so, by overriding this.

        Raises:
            CannotKeep: it cannot outlive this process.
        """
        del holdings
        what = f"{getattr(self, 'kind', type(self).__name__)} {getattr(self, 'name', '')}".rstrip()
        raise CannotKeep(f"{what} cannot outlive the process that made it")

    def _hand_over_parts(self, holdings: Holdings) -> None:
        """Hand over every resource that was entered on this one's stack."""
        for part in self._undo.resources if self._undo is not None else ():
            if part.started:
                part.hand_over(holdings)

    @property
    def started(self) -> bool:
        """Whether the resource is up."""
        return self._undo is not None

    def start(self: R) -> R:
        """Check what is required, make the resource, and return it.

        An interrupt (Ctrl-C, a test's time limit) is raised when it has been made and undone again.

        Raises:
            Unavailable: the machine lacks something.
            StartFailed: a step failed; the steps before it have been undone.
        """
        if self._undo is None:
            for requirement in self.requires:
                requirement.demand()
            try:
                self._as_a_whole(self.__begin)
            except BaseException:
                self.stop()
                raise
        return self

    def __begin(self) -> None:
        undo = _Undo()
        try:
            self._start(undo)
        except BaseException as error:
            if says_something(error):
                attach(error, self.diagnose())
            undo.close()
            if isinstance(error, InfraError) or not isinstance(error, Exception):
                raise
            raise StartFailed(f"{type(self).__name__} could not be started: {reason(error)}") from error
        self._process = os.getpid()
        self._undo = undo

    def stop(self) -> None:
        """Undo all of it, in reverse order; a second call does nothing, nor does one in a forked process."""
        if self._undo is not None and self._process == os.getpid():
            self._as_a_whole(self.__end)

    def __end(self) -> None:
        undo, self._undo = self._undo, None
        if undo is not None:
            undo.close()

    def _as_a_whole(self, function: Callable[[], None]) -> None:
        """How the steps of starting and stopping are run: out of the reach of interrupts."""
        whole(function)

    def __enter__(self: R) -> R:
        try:
            return self.start()
        except BaseException:  # also an interrupt between the end of start and the body of the with statement
            self.stop()
            raise

    def __exit__(self, kind: object, error: BaseException | None = None, traceback: object = None) -> None:
        if error is not None and says_something(error) and self.started:
            attach(error, self.diagnose())
        self.stop()
