"""The folder of evidence of one test: one for each time it is run, never wiped."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..core.evidence import Artifact
from ..core.private import write_private
from .facts import LabFacts, read_facts
from .reproduce import reproduce
from .summary import summary
from .topology import mermaid, svg

__all__ = ["EvidenceFolder", "Lab", "slug"]

_LONGEST_NAME = 100

Lab = Sequence[Artifact]
"""What a lab's diagnosis gave."""


class EvidenceFolder:
    """A folder for a test, made when it is first asked for; another run of the test gets another one.

    Args:
        base: the folder of all tests.
        nodeid: the test, as pytest names it.
    """

    def __init__(self, base: Path, nodeid: str) -> None:
        self._base = base
        self._nodeid = nodeid
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The folder: the test's name, and a number where there is one of that name already."""
        if self._path is None:
            self._path = self._make()
        return self._path

    def _make(self) -> Path:
        name = slug(self._nodeid)
        self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = 1
        while True:
            path = self._base / (name if number == 1 else f"{name}.{number}")
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:  # from another run, or from another process of this one
                number += 1
            else:
                return path

    def discard(self) -> None:
        """Take the folder away again if nothing has been written."""
        if self._path is not None and not any(self._path.iterdir()):
            self._path.rmdir()
            self._path = None

    def write(self, phase: str, labs: Sequence[Lab], loose: Iterable[Artifact] = ()) -> tuple[Path, str]:
        """Write the evidence of one phase; returns its folder and the short text about it.

        Args:
            phase: ``setup``, ``call`` or ``teardown``.
            labs: the artifacts of each lab; with several, each has a folder of its own.
            loose: artifacts of no lab.
        """
        folder = self.path / phase
        facts: list[LabFacts] = []
        artifacts = list(loose)
        for number, lab in enumerate(labs):
            found = read_facts(lab)
            place = f"{slug(found.name if found else 'lab')}-{number + 1}/" if len(labs) > 1 else ""
            facts += [replace(found, folder=place)] if found is not None else []
            artifacts += [Artifact(place + item.name, item.content) for item in (*lab, *_pictures(found))]
        artifacts.append(Artifact("reproduce.md", reproduce(self._nodeid, phase, facts)))
        unwritten: dict[str, OSError] = {}
        for artifact in artifacts:
            try:
                _write(folder, artifact)
            except OSError as error:  # a full disk, or a name that is a folder of another one
                unwritten[artifact.name] = error
        return folder, summary(_short(folder), [artifact.name for artifact in artifacts], facts, unwritten)


def _pictures(facts: LabFacts | None) -> list[Artifact]:
    if facts is None:
        return []
    return [Artifact("topology.svg", svg(facts)), Artifact("topology.mmd", mermaid(facts))]


def _write(folder: Path, artifact: Artifact) -> None:
    path = folder.joinpath(*(slug(part) for part in artifact.name.split("/")))
    path.parent.mkdir(parents=True, exist_ok=True)
    content = artifact.content
    write_private(path, content.encode(errors="surrogateescape") if isinstance(content, str) else content)


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def slug(text: str) -> str:
    """A file name from any text: letters, digits and ``_ . - [ ]``; long ones keep beginning and end."""
    name = re.sub(r"[^\w.\[\]=+-]+", "-", text).strip("-.") or "unnamed"
    return name if len(name) <= _LONGEST_NAME else f"{name[:60]}--{name[-38:]}"
