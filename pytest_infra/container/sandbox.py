"""`Sandbox`: a lab's network namespace for containers of an engine that cannot be told to join one.

The Docker Engine API knows no network namespace but those that it makes. A private engine is told through its runtime
(`container.dockerd`). The machine's engine makes one: for a container that only sleeps. The lab puts its links there,
and then starts the real container in the network of the sleeping one, as pods do. It outlives restarts too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from ..core.resource import Resource
from .engine import Engine, EngineError
from .image import Images
from .requirement import DOCKER
from .state import read_state

__all__ = ["Sandbox"]

_IPV6 = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
# Docker switches IPv6 off where none of its own networks has it.


class Sandbox(Resource):
    """Where the network of a container comes from; made before the links, which end in it.

    Args:
        host: the lab's host whose network it is.
        lab: gives the engine.
        wanted: whether the container lives in the lab's network at all.
    """

    requires = (DOCKER,)
    kind = "container"

    def __init__(self, host: Any, lab: Any, wanted: bool) -> None:
        self.name = host.name
        self.declared_at = host.declared_at
        self._host = host
        self._lab = lab
        self._wanted = wanted
        self.hostname = host.name
        """Docker gives it to whoever joins the network of the sleeping container."""
        self.id = ""
        """The sleeping container; empty where the engine is a private one."""

    def _start(self, undo: ExitStack) -> None:
        engine: Engine = self._lab.engine()
        if not self._wanted or engine.private:
            return
        image = Images(lambda: engine).scratch(["busybox"])
        host_config = engine.ask("create_host_config", network_mode="none", sysctls=_IPV6)
        options = {"labels": engine.labels, "host_config": host_config, "hostname": self.hostname}
        self.id = engine.ask("create_container", str(image), ["busybox", "sleep", "2147483647"], **options)["Id"]
        undo.callback(self._remove, engine)
        engine.ask("start", self.id)
        pid = read_state(engine.ask("inspect_container", self.id)).pid
        fd = engine.namespace(pid, "net", self.id)
        try:
            self._host.namespace.replace(fd)
        finally:
            os.close(fd)

    def _remove(self, engine: Engine) -> None:
        container, self.id = self.id, ""
        with suppress(EngineError):
            engine.ask("remove_container", container, force=True)

    def network(self, engine: Engine) -> Mapping[str, Any]:
        """What the real container must be made with."""
        return {"network_mode": f"container:{self.id}"} if self.id else engine.joining_options()
