"""Verdicts of measurements: pass, fail, or inconclusive, where the machine was too busy to tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ..core.errors import Inconclusive
from ..core.evidence import Artifact
from ..core.report import Report

__all__ = ["Measured", "Verdict"]

Verdict = Literal["pass", "fail", "inconclusive"]


class Measured(Report):
    """A report that is judged; a child says how in `verdict`."""

    @property
    def verdict(self) -> Verdict:
        """Whether what was measured is what was wanted, or cannot be told."""
        return "pass"

    @property
    def ok(self) -> bool:
        """Whether the verdict is "pass"."""
        return self.verdict == "pass"

    def to_dict(self) -> dict[str, object]:
        """The report in JSON types."""
        return {**super().to_dict(), "verdict": self.verdict}

    def demand(self, artifacts: Iterable[Artifact] = ()) -> None:
        """Raise unless the verdict is "pass".

        Args:
            artifacts: evidence that goes with a failure.

        Raises:
            CheckFailed: the verdict is "fail".
            Inconclusive: it is "inconclusive"; ``--infra-inconclusive`` says what becomes of the test.
        """
        __tracebackhide__ = True
        if self.verdict == "inconclusive":
            raise Inconclusive(self.explain())
        super().demand(artifacts)
