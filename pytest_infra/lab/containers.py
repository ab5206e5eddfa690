"""`LabContainers`: the part of a lab that declares containers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..net.borrowed import BorrowedHost
from ..net.host import Host
from ..net.router import Router
from .base import LabBase

if TYPE_CHECKING:
    from ..container.container import Container
    from ..container.engine import Engine
    from ..container.image import Image
    from ..container.ready import Condition

__all__ = ["LabContainers"]


class LabContainers(LabBase):
    """The part of a lab that declares containers."""

    def container(
        self,
        image: Image | str,
        command: Sequence[str] | None = None,
        *,
        name: str | None = None,
        network: str | None = None,
        router: bool = False,
        wait: Condition | Sequence[Condition] = (),
        within: str | float = "30 s",
        **options: Any,
    ) -> Container:
        """Declare a container: a node like any other. Containers are started in the order of their declaration.

        Args:
            image: one of `infra_image`, or the name of one that the engine has.
            command: its first process; the image's by default.
            name: at most 15 characters; ``c1``, ``c2``, … by default.
            network: one of Docker's: ``"bridge"``, ``"host"`` (the engine's own), ``"none"``; the lab's by default.
            router: whether it forwards between its links.
            wait: the conditions (`pytest_infra.ready`) after which it is ready.
            within: how long each may take.
            options: the rest, as `container.options.ContainerOptions` lists it: ``env``, ``memory``, ``volumes``, …

        Raises:
            BadInput: the name is taken or cannot be used, or an option is unknown or cannot be used.
        """
        from ..container.declare import declare
        from ..container.sandbox import Sandbox

        chosen = self._name(name, "c")
        host = self._network_of(chosen, network, router)
        options |= {"network": network, "wait": wait, "within": within}
        sandbox = Sandbox(host, self, wanted=network is None)
        container = declare(chosen, image, command, lab=self, host=host, sandbox=sandbox, **options)
        self._new += [host, sandbox]
        self._new_late.append(container)
        self.nodes[chosen] = container
        return container

    def _network_of(self, name: str, network: str | None, router: bool) -> Host:
        if network == "host":
            return self._engines_network(name)
        return (Router if router else Host)(name, **self._of_hosts())

    def _engines_network(self, name: str) -> BorrowedHost:
        """The engine's own network; it may be the machine's, so nothing is set in it."""
        open_namespace: Callable[[], int] = lambda: self.engine().network()  # noqa: E731
        return BorrowedHost(name, namespace=open_namespace, **self._of_hosts(routes=False))

    def docker_host(self, name: str | None = None) -> BorrowedHost:
        """The network of the container engine, where it publishes ports, as a host. No link can end there."""
        host = self._engines_network(self._name(name, "docker"))
        self._add_node(host)
        return host

    def engine(self) -> Engine:
        """The session's container engine, started."""
        return self._services.engine()
