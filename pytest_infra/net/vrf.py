"""Virtual routing and forwarding: links of one router that know only each other's routes (vrf.rst of the kernel)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..core.errors import BadInput, CommandFailed, Unavailable
from ..core.naming import interface_name
from ..core.requirement import Command
from .port import Port

if TYPE_CHECKING:
    from .host import Host

__all__ = ["IP", "make_vrf"]

IP = Command("ip", purpose="VRFs", packages={
    "apt": "iproute2", "dnf": "iproute", "pacman": "iproute2", "apk": "iproute2"})  # fmt: skip
_NODAD = {4: (), 6: ("nodad",)}
_FIRST_TABLE = 1001
_LAST_TABLE = 0xFFFFFFFF
_OF_THE_KERNEL = (0, 253, 254, 255)


def make_vrf(host: Host, name: str, ports: Sequence[Port], table: int | None, number: int) -> int:
    """Put ports of a host into a VRF of their own, with the routes that the lab has planned by them.

    Returns:
        The number of its routing table.

    Raises:
        BadInput: a name or a table that cannot be.
        Unavailable: the kernel has no VRF.
    """
    if interface_name(name) in {port.name for port in host.ports}:
        raise BadInput(f"a VRF of {host.name} cannot be called {name!r}: a port of it is")
    table = _FIRST_TABLE + number if table is None else table
    if isinstance(table, bool) or not 0 < table <= _LAST_TABLE or table in _OF_THE_KERNEL:
        raise BadInput(f"table {table!r} cannot be used for a VRF; allowed are 1 to {_LAST_TABLE}, but 253 to 255")
    ip = IP.path()
    try:
        host.run([ip, "link", "add", name, "type", "vrf", "table", str(table)])
    except CommandFailed as error:
        if "Unknown device type" not in str(error) and "not supported" not in str(error):
            raise BadInput(f"{host.name} does not take the VRF {name!r} with table {table}: {error}") from error
        why = "it has no virtual routing and forwarding (CONFIG_NET_VRF)"
        raise Unavailable("kernel", why, "use a kernel that has it, or network namespaces") from error
    with ExitStack() as undo:  # nothing half-made stays
        undo.callback(host.run, [ip, "link", "del", name], check=False)
        host.run([ip, "link", "set", name, "up"])
        for port in ports:
            host.run([ip, "link", "set", port.name, "master", name])
            for address in port.addresses:  # the kernel drops those of IPv6 when an interface gets a master
                words = [f"-{address.version}", "address", "replace", str(address), "dev", port.name]
                host.run([ip, *words, *_NODAD[address.version]])
        moved = {network: hop for network, hop in host.planned_routes.items() if hop.port in ports}
        for network, hop in moved.items():
            way = ["via", str(hop.gateway), "dev", hop.port.name, "table", str(table)]
            host.run([ip, f"-{network.version}", "route", "replace", str(network), *way])
        undo.pop_all()
    host.auto_routes = False
    for network in moved:
        del host.planned_routes[network]
    return table
