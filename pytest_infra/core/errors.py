"""The errors of the project: *could not test* is never *tested, and wrong*.

`InfraError` and its children say that a test could not be carried out.
`CheckFailed` is an `AssertionError`: the test was carried out, and the answer is no.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

__all__ = [
    "BadInput",
    "CheckFailed",
    "CleanupFailed",
    "CommandFailed",
    "Inconclusive",
    "InfraError",
    "StartFailed",
    "Unavailable",
    "WaitTimeout",
    "reason",
]


_LONGEST_COMMAND = 1000
"""Characters of a command that a message shows."""


class InfraError(Exception):
    """The test could not be carried out; nothing is said of the thing under test."""

    __module__ = "pytest_infra"  # where it is imported from, and what a traceback shows


class BadInput(InfraError, ValueError):
    """An argument that cannot be used: what was wrong, and what is allowed."""

    __module__ = "pytest_infra"


class Unavailable(InfraError):
    """Something this machine lacks. The plugin turns it into a skip, or with ``--infra-require`` into an error.

    Args:
        what: the capability's name, as ``--infra-require`` and ``infra_requires`` take it.
        why: what was looked for and not found.
        remedy: what cures it, a command where there is one.
    """

    __module__ = "pytest_infra"

    def __init__(self, what: str, why: str, remedy: str = "") -> None:
        super().__init__(what, why, remedy)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what} ({self.why}{'; ' + self.remedy if self.remedy else ''})"


class StartFailed(InfraError):
    """A resource could not be started; what had been made of it has been undone."""

    __module__ = "pytest_infra"


class CommandFailed(InfraError):
    """A command ended with another status than 0, or ran out of time.

    Args:
        argv: the command.
        where: the node it ran in.
        returncode: its exit status; None when it was ended after running out of time.
        stdout: what it wrote to standard output.
        stderr: what it wrote to standard error.
        reason: the first line of the message; made up from the status where not given.
    """

    __module__ = "pytest_infra"

    def __init__(
        self,
        argv: tuple[str, ...],
        where: str,
        returncode: int | None,
        stdout: str = "",
        stderr: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(argv, where, returncode, stdout, stderr, reason)
        self.argv = argv
        self.where = where
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        self.reason = reason or f"exit status {returncode}"

    def __str__(self) -> str:
        command = " ".join(self.argv)
        shown = command if len(command) <= _LONGEST_COMMAND else f"{command[:_LONGEST_COMMAND]}…"
        lines = [f"{shown!r} in {self.where}: {self.reason}"]
        for label, text in (("stderr", self.stderr), ("stdout", self.stdout)):
            lines += [f"  {label}  {line}" for line in text.splitlines()[-10:]]
        return "\n".join(lines)


class Inconclusive(InfraError):
    """What was measured cannot decide, or the kernel cannot measure what was claimed; the message says why."""


class CleanupFailed(InfraError):
    """Something could not be undone; the message names what is left and how to remove it."""

    __module__ = "pytest_infra"


class WaitTimeout(InfraError):
    """A condition did not come true in time; the message says what was seen last."""

    __module__ = "pytest_infra"


class CheckFailed(AssertionError):
    """A check was carried out and failed; the text says what was measured and wanted, and why.

    Args:
        text: the explanation.
        report: what was measured, in JSON types (`Report.to_dict`).
    """

    __module__ = "pytest_infra"

    def __init__(self, text: str = "", report: Mapping[str, object] | None = None) -> None:
        super().__init__(text)
        self.report = report


def reason(error: BaseException) -> str:
    """The text of an error, with what cures it where only the process's limits are in the way (getrlimit(2))."""
    if not isinstance(error, OSError) or isinstance(error, InfraError):
        return str(error)
    text = error.strerror or str(error)
    if error.errno == errno.EMFILE:
        text += "; this process may have no more: raise its limit with 'ulimit -n' before it starts"
    return f"{text}: {error.filename!r}" if error.filename and error.errno != errno.EMFILE else text
