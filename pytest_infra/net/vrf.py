"""Virtual routing and forwarding: links of one router that know only each other's routes (vrf.rst of the kernel)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING

from ..core.errors import BadInput, CommandFailed, Unavailable
from ..core.naming import interface_name
from ..core.requirement import Command
from . import messages, replies
from .port import Port

if TYPE_CHECKING:
    from .host import Host

__all__ = ["IP", "make_vrf"]

IP = Command("ip", purpose="VRFs", packages={
    "apt": "iproute2", "dnf": "iproute", "pacman": "iproute2", "apk": "iproute2"})  # fmt: skip
_FIRST_TABLE = 1001
_LAST_TABLE = 0xFFFFFFFF
_OF_THE_KERNEL = (0, 253, 254, 255)


def make_vrf(host: Host, name: str, ports: Sequence[Port], table: int | None) -> int:
    """Put ports of a host into a VRF of their own, with the routes that the lab has planned by them.

    Returns:
        The number of its routing table.

    Raises:
        BadInput: a name or a table that cannot be, or a port that is in a VRF or named twice.
        Unavailable: the kernel has no VRF.
    """
    table = _check(host, name, ports, table)
    ip = IP.path()
    try:
        host.run([ip, "link", "add", name, "type", "vrf", "table", str(table)])
    except CommandFailed as error:
        if "Unknown device type" not in str(error) and "not supported" not in str(error):
            raise BadInput(f"{host.name} does not take the VRF {name!r} with table {table}: {error}") from error
        why = "it has no virtual routing and forwarding (CONFIG_NET_VRF)"
        raise Unavailable("kernel", why, "use a kernel that has it, or network namespaces") from error
    with ExitStack() as undo:  # nothing half-made stays
        undo.callback(_put_back, ports)
        undo.callback(host.run, [ip, "link", "del", name], check=False)
        host.run([ip, "link", "set", name, "up"])
        for port in ports:
            host.run([ip, "link", "set", port.name, "master", name])
            port.table = table
            port.vrf_routes = {net: hop.gateway for net, hop in host.planned_routes.items() if hop.port is port}
            _give_back(port)
        undo.pop_all()
    host.auto_routes = False
    host.planned_routes = {net: hop for net, hop in host.planned_routes.items() if hop.port not in ports}
    return table


def _put_back(ports: Sequence[Port]) -> None:
    for port in ports:
        port.table, port.vrf_routes = messages.MAIN_TABLE, {}
        _give_back(port)


def _give_back(port: Port) -> None:
    """Give a port what the kernel drops when it gets another master; one that is down gets it when it comes up."""
    if port.interface.up:
        port.restore(port)


def _check(host: Host, name: str, ports: Sequence[Port], table: int | None) -> int:
    """Look at what `make_vrf` takes; gives the table."""
    if interface_name(name) in {port.name for port in host.ports}:
        raise BadInput(f"a VRF of {host.name} cannot be called {name!r}: a port of it is")
    if len(set(ports)) < len(ports):
        raise BadInput(f"a link is named twice for the VRF {name!r}: {', '.join(map(str, ports))}")
    if table is not None:
        usable = isinstance(table, int) and not isinstance(table, bool) and 0 < table <= _LAST_TABLE
        if not usable or table in _OF_THE_KERNEL:
            raise BadInput(f"table {table!r} cannot be used for a VRF; allowed are 1 to {_LAST_TABLE}, but 253 to 255")
    with host.namespace.netlink() as netlink:
        links = list(netlink.dump(messages.dump_links(), f"list the interfaces of {host.name}"))
        routes, rules = (
            [reply for version in (4, 6) for reply in netlink.dump(request(version), f"list the tables of {host.name}")]
            for request in (messages.dump_routes, messages.dump_rules)
        )
    there, members = replies.parse_vrf_devices(links), replies.parse_vrfs(links)
    owners = {number: device for device, number in there.items()}
    if name in there:
        raise BadInput(f"{host.name} has a VRF {name!r} already, with table {there[name]}")
    for port in ports:
        if port.name in members:
            raise BadInput(f"{port} is in the VRF {owners[members[port.name]]!r} already")
    if table in owners:
        raise BadInput(f"table {table} of {host.name} is that of its VRF {owners[table]!r}: two VRFs would be one")
    taken = {*owners, *replies.parse_tables(routes, rules)}
    return table if table is not None else next(number for number in count(_FIRST_TABLE) if number not in taken)
