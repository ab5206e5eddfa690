"""`BorrowedHost`: a host in a network namespace that somebody else made, to look around in and never to rewire."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

from ..core.keep import CannotKeep, Holdings
from .host import Host

__all__ = ["BorrowedHost"]


class BorrowedHost(Host):
    """A host whose network namespace belongs to somebody else: nothing in it is set, and no link can end there.

    Args:
        name: its name.
        namespace: gives a new descriptor of the namespace.
        options: as of `Host`.
    """

    kind = "borrowed"
    docker_network = "host"
    sysctl_defaults: ClassVar[Mapping[str, str]] = {}

    def __init__(self, name: str, *, namespace: Callable[[], int], **options: Any) -> None:
        super().__init__(name, **options)
        self._open_namespace = namespace

    def hand_over(self, holdings: Holdings) -> None:
        """Refused: its namespace goes with the engine.

        Raises:
            CannotKeep: always.
        """
        del holdings
        raise CannotKeep(f"{self.name} is the network of the container engine, which ends with the session")

    def _start(self, undo: ExitStack) -> None:
        super()._start(undo)
        fd = self._open_namespace()
        try:
            self.namespace.replace(fd)
        finally:
            os.close(fd)
