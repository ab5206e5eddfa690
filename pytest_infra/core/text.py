"""A text that is given as it is, or as the path of a file that has it."""

from __future__ import annotations

import os

from .errors import BadInput

__all__ = ["text_or_file"]


def text_or_file(what: str, given: str | os.PathLike[str]) -> str:
    """The text itself, or that of the file that a path names.

    Args:
        what: for messages, such as ``rule set``.
        given: a `str` is the text, a `pathlib.Path` names a file. A number, which could be an open file, is neither.

    Raises:
        BadInput: it is neither, or the file cannot be read.
    """
    if isinstance(given, str):
        return given
    if not isinstance(given, os.PathLike):
        raise BadInput(f"{what} {given!r} cannot be used; a text, or the pathlib.Path of a file, is wanted")
    try:
        with open(given, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{what} {given!r} is neither a text nor a file that can be read: {error}") from error
