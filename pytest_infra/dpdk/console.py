"""testpmd's console: for what telemetry cannot do (DPDK's Testpmd Application User Guide)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from ..core.errors import InfraError
from ..core.process import Process
from ..core.wait import until

__all__ = ["PROMPT", "Console", "with_console"]

PROMPT = "testpmd> "


def with_console(popen: Callable[..., Any], reading: int) -> Callable[..., Any]:
    """A way to start processes whose standard input is a pipe that stays open."""

    def start(argv: Sequence[str], **options: Any) -> Any:
        return popen(argv, **{**options, "stdin": reading})

    return start


class Console:
    """Types commands, and reads what is said until the prompt comes again.

    Args:
        process: testpmd.
        writing: the end of the pipe that its standard input is.
    """

    def __init__(self, process: Process, writing: int) -> None:
        self._process = process
        self._writing = writing

    def ready(self) -> bool:
        """Whether the first prompt is there."""
        return PROMPT in self._process.stdout

    def command(self, text: str, within_s: float = 10.0) -> str:
        """One command; returns what testpmd said to it.

        Raises:
            InfraError: testpmd has ended.
            WaitTimeout: it did not come back to its prompt in time.
        """
        before, before_errors = len(self._process.stdout), len(self._process.stderr)
        os.write(self._writing, text.encode() + b"\n")

        def answer() -> str:
            said = self._process.stdout[before:]
            if PROMPT in said:
                return said
            if not self._process.running:
                raise InfraError(f"{self._process.where}: testpmd ended at the command {text!r}")
            return ""

        said = until(answer, within_s=within_s, what=f"testpmd in {self._process.where} answers {text!r}")
        said = self._process.stderr[before_errors:] + said.replace("\r", "")
        lines = [line.replace(PROMPT, "").rstrip() for line in said.split("\n")]
        return "\n".join(line for line in lines if line and line.strip() != text)
