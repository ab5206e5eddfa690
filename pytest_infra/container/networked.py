"""`Networked`: the part of a container that is its network, which is a lab host's."""

from __future__ import annotations

from typing import Any

from ..core.node import Address, Interface, Neighbour, Route

__all__ = ["Networked"]


class Networked:
    """A node whose network is that of a host: what the lab plans with, and what the kernel has now."""

    _network: Any

    def _demand(self) -> None:
        """See to it that the node is there."""

    @property
    def ports(self) -> list[Any]:
        """The interfaces that the lab gave it, in the order of their links."""
        found: list[Any] = self._network.ports
        return found

    @property
    def namespace(self) -> Any:
        """Its network namespace."""
        return self._network.namespace

    @property
    def forwards(self) -> bool:
        """Whether it is a router."""
        return bool(self._network.forwards)

    @property
    def auto_routes(self) -> bool:
        """Whether the lab works out its routes."""
        return bool(self._network.auto_routes)

    @property
    def planned_routes(self) -> Any:
        """The routes that the lab gave it."""
        return self._network.planned_routes

    @planned_routes.setter
    def planned_routes(self, routes: Any) -> None:
        self._network.planned_routes = routes

    @property
    def interfaces(self) -> dict[str, Interface]:
        """The network interfaces now, by name."""
        self._demand()
        found: dict[str, Interface] = self._network.interfaces
        return found

    @property
    def addresses(self) -> list[Address]:
        """The IP addresses now."""
        self._demand()
        found: list[Address] = self._network.addresses
        return found

    @property
    def routes(self) -> list[Route]:
        """The routes of the main table now, IPv4 before IPv6."""
        self._demand()
        found: list[Route] = self._network.routes
        return found

    @property
    def neighbours(self) -> list[Neighbour]:
        """The ARP and neighbour discovery tables now."""
        self._demand()
        found: list[Neighbour] = self._network.neighbours
        return found

    @property
    def sysctl(self) -> Any:
        """The kernel settings of its network namespace, by dotted name."""
        return self._network.sysctl
