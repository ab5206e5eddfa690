"""`LabRouting`: the part of a lab that declares routers with routing daemons."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .base import LabBase

if TYPE_CHECKING:
    from ..net.frr import FrrRouter

__all__ = ["LabRouting"]


class LabRouting(LabBase):
    """The part of a lab that declares routers with routing daemons."""

    def _add_frr_router(
        self, name: str | None, daemons: Sequence[str], config: str | os.PathLike[str], options: dict[str, Any]
    ) -> FrrRouter:
        from ..net.frr import Daemons, FrrRouter, check_daemons, config_text

        chosen, text = check_daemons(daemons), config_text(config)
        router = self._add_node(FrrRouter(self._name(name, "r"), daemons=chosen, config=text, **options))
        waiting = next((late for late in self._new_late if isinstance(late, Daemons)), None)
        if waiting is None:
            waiting = Daemons()
            self._new_late.append(waiting)
        waiting.routers.append(router)
        return router
