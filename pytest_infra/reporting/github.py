"""A job summary for GitHub Actions, in Markdown (docs.github.com, "Adding a job summary")."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["Failure", "append", "cause_line", "job_summary", "summary_file"]

_MOST_PICTURES = 20
_CAUSE = "  cause "
_LONGEST_CAUSE = 300
_TOO_LONG = b"\n\nThe rest is too long for this page.\n"
_MOST_BYTES = 1 << 20  # what GitHub takes of a step


def summary_file(environment: Mapping[str, str] = os.environ) -> str:
    """Where GitHub Actions wants the summary of this step; empty outside of it."""
    return environment.get("GITHUB_STEP_SUMMARY", "") if environment.get("GITHUB_ACTIONS") == "true" else ""


class Failure(NamedTuple):
    """A failed phase of a test."""

    name: str
    cause: str
    folder: str = ""
    """Of its evidence; empty where none was kept."""
    topology: str = ""
    """Of its lab, as Mermaid."""


def cause_line(error: BaseException | None, told: str) -> str:
    """One line: what has failed, and the cause that a check names.

    Args:
        error: what was raised; None where a test has failed without, as one that was expected to fail and passed.
        told: what pytest says of it.
    """
    lines = str(error).splitlines() if error is not None else told.splitlines()[-1:]
    cause = next((line.removeprefix(_CAUSE).strip() for line in lines if line.startswith(_CAUSE)), "")
    line = ": ".join(filter(None, [lines[0] if lines else "", cause])) or type(error).__name__
    return line if len(line) <= _LONGEST_CAUSE else f"{line[:_LONGEST_CAUSE]}…"


def job_summary(failed: Sequence[Failure], lacks: Iterable[tuple[Sequence[str], int]]) -> str:
    """The text; empty where nothing has failed and nothing was skipped.

    Args:
        failed: the failed phases of tests.
        lacks: of each thing that the machine lacks ``(what, why, remedy)``, and how many tests were skipped for it.
    """
    lines: list[str] = []
    if failed:
        lines += [f"## {len(failed)} failed", "", "| test | cause |", "|---|---|"]
        lines += [*(f"| {_cell(item.name)} | {_cell(item.cause)} |" for item in failed), ""]
    for number, item in enumerate(item for item in failed if item.folder):
        lines += [f"<details><summary><code>{_html(item.name)}</code></summary>", ""]
        lines += [f"Evidence: <code>{_html(item.folder)}</code>", ""]
        if item.topology and number < _MOST_PICTURES:
            lines += ["```mermaid", item.topology.rstrip(), "```", ""]
        lines += ["</details>", ""]
    rows = [f"| {count} | {' | '.join(_cell(word) for word in lack)} |" for lack, count in lacks]
    if rows:
        lines += ["## Skipped", "", "| tests | lack | why | remedy |", "|---:|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cell(text: str) -> str:
    """Text as it is: HTML in a table, in which Markdown has no meaning when each of its letters is a reference."""
    return re.sub(r"[^\w ,.;/=-]", lambda letter: f"&#{ord(letter[0])};", " ".join(text.split()))


def append(path: str, text: str) -> None:
    """Add the text to the summary; GitHub refuses what is too long, so the end of that is left out."""
    content = text.encode(errors="replace")
    with open(path, "ab") as file:
        room = _MOST_BYTES - file.tell() - len(_TOO_LONG)
        if len(content) > room:
            content = content[: max(room, 0)].rpartition(b"\n")[0] + _TOO_LONG
        file.write(content)
