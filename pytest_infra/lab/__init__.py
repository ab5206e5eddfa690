"""The lab: its parts declare what there is, and its base orders, settles and undoes it."""

from .lab import Lab

__all__ = ["Lab"]
