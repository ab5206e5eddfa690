"""`LabKeeping`: the part of a lab that lets it outlive the process that made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.evidence import attach, says_something
from ..core.holder import HOLDER_PID, hold
from ..core.keep import CannotKeep, Holdings
from ..net.entries import entries
from .base import LabBase

__all__ = ["LabKeeping"]


class LabKeeping(LabBase):
    """The part of a lab that lets it stay."""

    def keep(self, **about: Any) -> str:
        """End the lab here and have a process of its own hold it, until ``pytest-infra clean``.

        Its namespaces, links, switches, control groups and processes stay as they are; its captures and faults end.

        Args:
            about: why and for whom, in JSON types, for ``pytest-infra list``.

        Returns:
            The name by which ``pytest-infra shell`` knows it: the lab's, with a number where that one is taken.

        Raises:
            CannotKeep: something in it cannot outlive this process, or it is not up; it goes on as before.
        """
        if not self.started or not (self.nodes or self.switches) or self._new:
            first_line = self._failure.partition("\n")[0]
            raise CannotKeep(f"it could not be made: {first_line}" if self._failure else "nothing of it had been made")
        self.guard()  # so that commands find a way in; a lab that has run none has no guard yet
        holdings = Holdings()
        self.hand_over(holdings)
        name = hold(holdings, self._lease, lab=self.name, facts=self._entries(HOLDER_PID), about=about)
        self.stop()
        return name

    def hand_over(self, holdings: Holdings) -> None:
        """All that is in it."""
        self._hand_over_parts(holdings)
        holdings.taken += [child.let_go for child in self.journal.processes]

    def _entries(self, pid: int) -> Mapping[str, Any]:
        return entries((*self.nodes.values(), *self.switches.values()), pid, self._guard)

    def __exit__(self, kind: object, error: BaseException | None = None, traceback: object = None) -> None:
        try:
            if error is not None and says_something(error) and self.started:
                attach(error, self.diagnose())
            if self.started or self._failure:
                self._services.before_end(self, error)
        finally:
            self.stop()
