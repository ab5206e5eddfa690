"""Making what was declared: one batch of requests per namespace, in three rounds.

1. Where a link is made: both ends at once, the far one directly in its namespace, this end up.
2. In each host: loopback, far ends, addresses, routes. Both ends of each link are up now, and the carrier of
   the far ends is brought up to date.
3. Where links were made: the carrier of the near ends.

Then each host is asked whether its IPv6 addresses can be resolved. The first packet passes from here on.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from ipaddress import ip_network
from typing import Any

from ..core.errors import InfraError, StartFailed, Unavailable, reason
from ..core.node import IPNetwork
from ..core.wait import until
from . import messages, replies
from .host import Host
from .link import Link
from .namespace import NetNamespace
from .netlink import NetlinkError, NetlinkSocket, Request
from .plan import Hop
from .port import Port
from .switch import Switch
from .sysctl import read_sysctl

__all__ = ["Batches", "forget_unresolved", "not_made", "restore", "settle"]

_LOOPBACK = 1
_MOST_SOCKETS = 256  # open at the same time
_IPV6_WITHIN_S = 10.0  # with duplicate address detection, where a test turned it on, one to two seconds (RFC 4862)


class Batches:
    """Requests by namespace; each round is sent with one system call per namespace."""

    def __init__(self, undo: ExitStack) -> None:
        self._sockets: dict[NetNamespace, NetlinkSocket] = {}
        self._requests: dict[NetNamespace, list[Request]] = {}
        undo.callback(self._close)

    def add(self, namespace: NetNamespace, *requests: Request) -> None:
        """Add requests to the next round."""
        if requests:
            self._requests.setdefault(namespace, []).extend(requests)

    def send(self) -> None:
        """Send the round.

        Raises:
            NetlinkError: the kernel refused a request.
        """
        requests, self._requests = self._requests, {}
        for namespace, mine in requests.items():
            self._socket(namespace).request(mine)

    def dump(self, namespace: NetNamespace, request: bytes, what: str) -> list[bytes]:
        """Send one dump request to a namespace."""
        return self._socket(namespace).dump(request, what)

    def _socket(self, namespace: NetNamespace) -> NetlinkSocket:
        if namespace not in self._sockets:
            if len(self._sockets) == _MOST_SOCKETS:
                self._sockets.pop(next(iter(self._sockets))).close()
            self._sockets[namespace] = namespace.netlink()
        return self._sockets[namespace]

    def _close(self) -> None:
        for netlink in self._sockets.values():
            netlink.close()


def settle(
    hosts: Sequence[Host],
    links: Sequence[Link],
    routes: dict[Any, dict[IPNetwork, Hop]],
) -> None:
    """Make new links between nodes that are up, and bring the routes of all nodes up to date.

    Args:
        hosts: those that are new.
        links: those that are new.
        routes: of every node of the lab.
    """
    with ExitStack() as undo:
        batches = Batches(undo)
        for link in links:
            _make(batches, *_near_and_far(link))
        batches.send()
        _attach(links)
        for host in hosts:
            batches.add(host.namespace, (messages.set_link(_LOOPBACK, up=True), f"set the loopback of {host.name} up"))
        for link in links:
            near, far = _near_and_far(link)
            master = far.node.master_index() if isinstance(far.node, Switch) else None
            request = messages.set_link(far.index, up=True, master=master or None), _text("set up", far)
            batches.add(far.node.namespace, request, far.sync())
            for port in link.ports:
                batches.add(port.node.namespace, *_addresses(port))
        for node, wanted in routes.items():
            batches.add(node.namespace, *_new_routes(node, wanted))
        batches.send()
        for node, wanted in routes.items():
            _drop_old_routes(node, wanted)
        for link in links:
            near, _ = _near_and_far(link)
            batches.add(near.node.namespace, near.sync())
        batches.send()
        _wait_for_ipv6(batches, [port for link in links for port in link.ports])


def _wait_for_ipv6(batches: Batches, ports: Iterable[Port]) -> None:
    """Wait until the IPv6 addresses of ports that are up can be resolved by others; mostly they can already."""
    request = messages.dump_addresses(6)
    indices: dict[NetNamespace, list[int]] = {}
    for port in ports:
        if any(ip.version == 6 for ip in port.addresses):
            indices.setdefault(port.node.namespace, []).append(port.index)
    for namespace, mine in indices.items():
        what = f"the IPv6 addresses of {namespace.name} become usable"

        def usable(namespace: NetNamespace = namespace, mine: list[int] = mine, what: str = what) -> bool:
            return not replies.pending_ipv6(batches.dump(namespace, request, what), mine)

        until(usable, within_s=_IPV6_WITHIN_S, what=what, every_s=0.0002, at_most_every_s=0.005)


def _near_and_far(link: Link) -> tuple[Port, Port]:
    """The end in whose namespace the link is made, a switch's where there is one, and the other end."""
    return (link.b, link.a) if isinstance(link.b.node, Switch) else (link.a, link.b)


def _make(batches: Batches, near: Port, far: Port) -> None:
    near.index = near.node.namespace.next_index()
    far.index = far.node.namespace.next_index()
    pair = messages.add_veth(
        near.name,
        index=near.index,
        mac=near.mac,
        mtu=near.mtu,
        peer_name=far.name,
        peer_index=far.index,
        peer_mac=far.mac,
        peer_fd=far.node.namespace.fd,
        master=near.node.master_index() if isinstance(near.node, Switch) else 0,
    )
    batches.add(near.node.namespace, (pair, _text("make", near)))


def _attach(links: Iterable[Link]) -> None:
    ports: dict[Switch, list[Port]] = {}
    for link in links:
        for port in link.ports:
            if isinstance(port.node, Switch):
                ports.setdefault(port.node, []).append(port)
    for switch, mine in ports.items():
        switch.attach(mine)


def _text(what: str, port: Port) -> str:
    return f"{what} {port}, declared at {port.declared_at}"


def _configures_itself(node: Any) -> bool:
    """Whether it gives itself the planned addresses and routes, as the kernel of a guest does."""
    return bool(getattr(node, "configures_itself", False))


def _addresses(port: Port, versions: Collection[int] = (4, 6)) -> list[Request]:
    if _configures_itself(port.node):
        return []
    addresses = [ip for ip in port.addresses if ip.version in versions]
    return [(messages.add_address(port.index, ip), _text(f"give {ip} to", port)) for ip in addresses]


def _new_routes(node: Any, wanted: dict[IPNetwork, Hop]) -> Iterable[Request]:
    if _configures_itself(node):
        return
    known: dict[IPNetwork, Hop] = node.planned_routes
    for network, hop in wanted.items():
        if known.get(network) != hop:
            yield _route(network, hop)


def _drop_old_routes(node: Any, wanted: dict[IPNetwork, Hop]) -> None:
    old = {network: hop for network, hop in node.planned_routes.items() if network not in wanted}
    node.planned_routes = dict(wanted)
    if not old or _configures_itself(node):
        return
    with node.namespace.netlink() as netlink:
        for network, hop in old.items():
            what = f"delete the route to {network} of {node.name}"
            try:
                netlink.request([(messages.delete_route(network, hop.gateway, hop.port.index), what)])
            except NetlinkError as error:
                if error.errno != errno.ESRCH:  # the test has deleted it before us
                    raise


def _route(network: IPNetwork, hop: Hop) -> Request:
    what = f"add the route to {network} by {hop.gateway} to {hop.port.node.name}"
    return messages.add_route(network, hop.gateway, hop.port.index, hop.port.table), what


def forget_unresolved(ports: Iterable[Port]) -> None:
    """Forget neighbours that could not be resolved, whose next try the kernel puts off for up to a second."""
    for port in ports:
        with port.node.namespace.netlink() as netlink:
            found = netlink.dump(messages.dump_neighbours(), f"list the neighbours of {port.node.name}")
            for ip in replies.unresolved(found, port.index):
                try:
                    netlink.request([(messages.delete_neighbour(port.index, ip), f"forget {ip} in {port.node.name}")])
                except NetlinkError as error:
                    if error.errno != errno.ENOENT:  # the kernel has forgotten it meanwhile
                        raise


def _has_ipv6(interface: str) -> bool:
    try:
        return read_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6") == "0"
    except FileNotFoundError:  # a kernel without IPv6
        return False


def restore(port: Port) -> None:
    """Give a port that is up again the addresses and routes that the kernel dropped while it was down.

    Those of IPv6 stay away where the test has turned IPv6 off (``disable_ipv6``).
    """
    if isinstance(port.node, Switch) or _configures_itself(port.node):
        return
    versions = (4, 6) if port.node.namespace.within(_has_ipv6, port.name) else (4,)
    planned: dict[IPNetwork, Hop] = getattr(port.node, "planned_routes", {})
    hops = {**planned, **{network: Hop(gateway, port) for network, gateway in port.vrf_routes.items()}}
    routes = [(network, hop) for network, hop in hops.items() if hop.port is port and network.version in versions]
    if port.router is not None:
        routes.append((ip_network("0.0.0.0/0"), Hop(port.router, port)))
    requests = [*_addresses(port, versions), *(_route(network, hop) for network, hop in routes)]
    with ExitStack() as undo:
        batches = Batches(undo)
        batches.add(port.node.namespace, *requests)
        batches.send()
        if port.carrier:  # without one the addresses stay tentative
            _wait_for_ipv6(batches, [port])


def not_made(what: str, error: Exception) -> InfraError:
    """The error of something that could not be made; what the kernel does not have at all is a lack of the machine."""
    if isinstance(error, NetlinkError) and error.errno == errno.EOPNOTSUPP:
        return Unavailable("kernel", f"it lacks what {what} needs: {error}", "use a kernel that has it")
    return StartFailed(f"{what} could not be made: {reason(error)}")
