"""Evidence that goes with an error: taken while the thing was still up, read by whoever reports the error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .errors import BadInput, Unavailable

__all__ = ["NOT_TAKEN", "Artifact", "attach", "attached", "attached_apart", "says_something"]

NOT_TAKEN = "diagnosis-failed.txt"
"""The name of an artifact that says why others are missing."""
_ATTRIBUTE = "__infra_artifacts__"
_SAYS_NOTHING = (BadInput, Unavailable, KeyboardInterrupt, SystemExit, GeneratorExit)


@dataclass(frozen=True)
class Artifact:
    """A piece of evidence: a file name, which may have folders in it, and its content."""

    name: str
    content: str | bytes


def says_something(error: BaseException | None) -> bool:
    """Whether the state of things explains this error: not where a mistake in the test or an interrupt does."""
    return error is not None and not isinstance(error, _SAYS_NOTHING)


def attach(error: BaseException, artifacts: Iterable[Artifact]) -> None:
    """Have an error carry artifacts, in addition to those that it has.

    Taking them must not hide the error: what cannot be taken becomes an artifact that says why.
    """
    taken: list[Artifact] = []
    try:
        taken.extend(artifacts)
    except Exception as failure:  # noqa: BLE001 - whatever it is, the error that is being explained is the one to show
        taken.append(Artifact(NOT_TAKEN, f"{type(failure).__name__}: {failure}\n"))
    setattr(error, _ATTRIBUTE, (*getattr(error, _ATTRIBUTE, ()), tuple(taken)))


def attached(error: BaseException | None) -> list[Artifact]:
    """The artifacts of an error and of those that led to it, each name once: the one taken first."""
    return _each_name_once(attached_apart(error))


def attached_apart(error: BaseException | None) -> list[Sequence[Artifact]]:
    """The artifacts of an error and of those that led to it, as they were attached: two labs have the same names."""
    return [taken for link in reversed(list(_chain(error))) for taken in getattr(link, _ATTRIBUTE, ())]


def _each_name_once(groups: Iterable[Sequence[Artifact]]) -> list[Artifact]:
    found: dict[str, Artifact] = {}
    for artifact in (artifact for group in groups for artifact in group):
        found.setdefault(artifact.name, artifact)
    return list(found.values())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
