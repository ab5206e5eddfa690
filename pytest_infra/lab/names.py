"""`LabNames`: the part of a lab with names and services: DNS, virtual addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from ..core.errors import BadInput
from ..net.dns import DnsServer, check_domain, is_domain
from ..net.host import Host
from ..net.plan_services import Virtual
from ..net.virtual_service import VirtualService, checked
from ..services import LabServices
from .base import LabBase

__all__ = ["LabNames"]


class _Serving:
    """Starts a name server once the links are up."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def __enter__(self) -> object:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def await_ready(self) -> None:
        """Serve."""
        self._server.serve()


class LabNames(LabBase):
    """The part of a lab with names and services."""

    def __init__(self, name: str, services: LabServices) -> None:
        super().__init__(name, services)
        self._virtual: dict[str, VirtualService] = {}
        self._name_servers: list[DnsServer] = []

    def dns(
        self, name: str | None = None, *, records: Mapping[str, Any] | None = None, domain: str | None = None
    ) -> DnsServer:
        """Declare a host with a name server (dnsmasq(8)) that knows these names only; hosts ask it with ``dns=``.

        Args:
            name: at most 15 characters; ``dns1``, ``dns2``, … by default.
            records: names with addresses, nodes, services or lists of them: ``{"web.prod.svc": service}``; a
                name may begin with ``*.``.
            domain: in which all nodes of the lab have their names too, those declared later among them: with
                ``"lab.test"``, ``web`` is ``web.lab.test``.

        Raises:
            BadInput: a name cannot be used or is taken, or a target that cannot be.
        """
        nodes = self._in_domain(domain)
        server = DnsServer(self._name(name, "dns"), records=records or {}, nodes=nodes, **self._of_hosts())
        self._add_node(server)
        self._name_servers.append(server)
        self._new_late.append(_Serving(server))
        return server

    def _in_domain(self, domain: str | None) -> Callable[[], Mapping[str, Any]]:
        if domain is None:
            return dict
        suffix = check_domain(domain)
        return lambda: {f"{name}.{suffix}": node for name, node in self.nodes.items() if is_domain(name)}

    def service(
        self,
        name: str,
        backends: Sequence[Host | tuple[Host, int]],
        *,
        port: int,
        protocol: str = "tcp",
        address: str = "",
        on: Sequence[Host] | None = None,
    ) -> VirtualService:
        """Declare a service: an address that is translated to one of its back ends, in turn, by the nodes that ask.

        Args:
            name: letters, digits and ``-``.
            backends: the servers, or servers with the port they listen on where it is another one.
            port: the service's port.
            protocol: ``tcp`` or ``udp``.
            address: IPv4; the next one of 10.96.0.0/16 by default.
            on: the nodes that know it; by default all hosts and routers of the lab, those declared later too. Others
                reach it by way of a router that does, if there is one.

        Raises:
            BadInput: an argument that cannot be.
        """
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", name):
            raise BadInput(f"a service's name is made of small letters, digits and '-', not {name!r}")
        if protocol not in ("tcp", "udp"):
            raise BadInput(f"a service's protocol is 'tcp' or 'udp', not {protocol!r}")
        if name in self._virtual:
            raise BadInput(f"the name {name!r} is taken by another service of this lab")
        if not isinstance(port, int) or not 1 <= port <= 65535:
            raise BadInput(f"a port is a whole number from 1 to 65535, not {port!r}")
        servers = checked(backends, port)
        for end in (*(server.node for server in servers), *(on or ())):
            self._check_mine(end)
        if address:
            try:
                IPv4Address(address)
            except ValueError:
                raise BadInput(f"a service's address is one of IPv4, not {address!r}") from None

        def nodes() -> Sequence[Host]:
            return (
                list(on)
                if on is not None
                else [node for node in self.nodes.values() if isinstance(node, Host) and _knows_services(node)]
            )

        number = next(self._numbers["service"])
        service = VirtualService(name, number, servers, port, protocol, address, nodes, self._plan_anew)
        self._virtual[name] = service
        self._stale = True
        self._new_late.append(service)
        return service

    def _plan_anew(self) -> None:
        self._stale = True
        self.up()

    def _virtual_addresses(self) -> Iterable[Virtual]:
        return [service.virtual() for service in self._virtual.values()]

    def _follow(self) -> None:
        for service in self._virtual.values():
            if service.started:
                service.follow()
        for server in self._name_servers:
            server.follow()


def _knows_services(node: Host) -> bool:
    return node.kind in ("host", "router")
