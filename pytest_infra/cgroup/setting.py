"""`Setting`: one value to be written to one file of one controller."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Setting"]


@dataclass(frozen=True)
class Setting:
    """What a limit means to one version of control groups."""

    limit: str
    """The limit's name, as the user writes it."""
    controller: str
    """Whose file it is; ``""`` is what each version 2 group has."""
    file: str
    text: str
    optional: bool = False
    """Whether it may be left out where the kernel has no such file: nobody asked for it by name."""
