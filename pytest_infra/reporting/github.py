"""A job summary for GitHub Actions, in Markdown (docs.github.com, "Adding a job summary")."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["append", "job_summary", "summary_file"]

_MOST_PICTURES = 20
_TOO_LONG = b"\n\nThe rest is too long for this page.\n"
_MOST_BYTES = 1 << 20  # what GitHub takes of a step


def summary_file(environment: Mapping[str, str] = os.environ) -> str:
    """Where GitHub Actions wants the summary of this step; empty outside of it."""
    return environment.get("GITHUB_STEP_SUMMARY", "") if environment.get("GITHUB_ACTIONS") == "true" else ""


def job_summary(failed: Sequence[tuple[str, str, str]], lacks: Iterable[tuple[Sequence[str], int]]) -> str:
    """The text; empty where nothing has failed and nothing was skipped.

    Args:
        failed: of each failed test its name, the folder of its evidence, and its labs' topology as Mermaid.
        lacks: of each thing that the machine lacks ``(what, why, remedy)``, and how many tests were skipped for it.
    """
    lines: list[str] = []
    if failed:
        lines += [f"## {len(failed)} failed with evidence", ""]
    for number, (nodeid, folder, topology) in enumerate(failed):
        lines += [f"<details><summary><code>{_html(nodeid)}</code></summary>", ""]
        lines += [f"Evidence: <code>{_html(folder)}</code>", ""]
        if topology and number < _MOST_PICTURES:
            lines += ["```mermaid", topology.rstrip(), "```", ""]
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
