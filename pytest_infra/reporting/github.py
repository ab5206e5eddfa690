"""A job summary for GitHub Actions, in Markdown (docs.github.com, "Adding a job summary")."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["append", "job_summary", "summary_file"]

_MOST_PICTURES = 20
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
        lines += [f"<details><summary><code>{_html(nodeid)}</code></summary>", "", f"Evidence: `{folder}`", ""]
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
    return _html(text).replace("|", "\\|").replace("\n", " ")


def append(path: str, text: str) -> None:
    """Add the text to the summary, whole or not at all: GitHub refuses what is too long."""
    content = text.encode(errors="replace")
    with open(path, "ab") as file:
        if file.tell() + len(content) > _MOST_BYTES:
            content = b"\nThe summary of the labs is too long for this page.\n"
        file.write(content)
