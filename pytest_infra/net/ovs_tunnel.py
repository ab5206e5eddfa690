"""`OvsTunnel`: a tunnel whose headers Open vSwitch's userspace datapath makes, on any kernel (ovs-vswitchd.conf.db(5)).

A bridge of the userspace datapath finds the way of tunnel packets by the addresses of bridges in the same instance. So
each host has a bridge that is linked with the other host's, `over`, and an address on that. The tunnel's own
end is a port of a small bridge, which a wire joins with the switch: that wire can be cut like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_interface
from typing import Any

from ..core.errors import BadInput
from ..core.node import IPAddress, IPNetwork
from ..core.wait import until
from . import messages
from .ovs import OvsBridge
from .ovs_rows import add_ports, make_bridge
from .ovs_rpc import mapping
from .port import Port
from .tunnel import Tunnel, TunnelKind

__all__ = ["OvsTunnel", "check_over"]

_LEARNS_WITHIN_S = 10.0


def check_over(ends: Iterable[Any], over: Any) -> tuple[OvsBridge, OvsBridge]:
    """Look at the bridges that carry a tunnel.

    Raises:
        BadInput: they are not two bridges of Open vSwitch's userspace datapath, one in the host of each end.
    """
    ends = tuple(ends)
    carriers = tuple(over) if isinstance(over, list | tuple) else ()
    for end in (*ends, *carriers):
        if not isinstance(end, OvsBridge) or end.datapath != "netdev":
            raise BadInput(f"over= is for bridges of Open vSwitch's userspace datapath, lab.ovs(); got {end!r}")
    if len(carriers) != 2 or any(a.host is not b.host or a is b for a, b in zip(ends, carriers, strict=True)):
        raise BadInput(
            "over= names two other bridges, one in the host of each end: lab.ovs('u1', host=m1), lab.ovs('u2', host=m2)"
        )
    return carriers[0], carriers[1]


class OvsTunnel(Tunnel):
    """A tunnel between two bridges of Open vSwitch's userspace datapath, over two others that are linked.

    Args:
        a: the port of one switch.
        b: the port of the other.
        kind: of `TUNNEL_KINDS`.
        key: the VXLAN or Geneve network identifier, the GRE key.
        over: the bridges that carry it, in the order of the ends.
        network: gives each of these an address.
    """

    def __init__(
        self, a: Port, b: Port, kind: TunnelKind, key: int, over: tuple[OvsBridge, OvsBridge], network: IPNetwork
    ) -> None:
        super().__init__(a, b, kind, key)
        self.over = over
        self._network = network

    def _endpoints(self) -> tuple[IPAddress, ...]:
        """An address on each of the bridges that carry it, which every one knows the other's place of."""
        found = tuple(self._network[number] for number in (1, 2))
        places = [carrier.interfaces[carrier.name] for carrier in self.over]
        for carrier, place, address in zip(self.over, places, found, strict=True):
            what = f"give {address} to {carrier.name}, for the tunnel {self} declared at {self.declared_at}"
            own = messages.add_address(place.index, ip_interface((address, self._network.prefixlen)))
            with carrier.namespace.netlink() as netlink:
                netlink.request([(messages.set_link(place.index, up=True), what), (own, what)])
        for carrier, place, address in zip(self.over, reversed(places), reversed(found), strict=True):
            self._know(carrier, place.mac, address)
        return found

    def _know(self, carrier: OvsBridge, mac: str, address: IPAddress) -> None:
        """Have Open vSwitch know its route, and the other end as a neighbour: so the first packet passes."""
        ask = carrier.instance.appctl

        def routed() -> bool:
            return f"{self._network} dev {carrier.name}" in ask("ovs/route/show")

        until(routed, within_s=_LEARNS_WITHIN_S, what=f"{carrier.name} knows the route of the tunnel {self}")
        ask("tnl/neigh/set", carrier.name, str(address), mac)

    def _make(self, port: Port, local: IPAddress, remote: IPAddress) -> None:
        switch = port.node
        assert isinstance(switch, OvsBridge)
        space = switch.namespace
        port.index, far = space.next_index(), space.next_index()
        inner, outer, bridge = f"tw{far}", f"tun{far}", f"tb{far}"
        what = f"make {port}, declared at {port.declared_at}, a {self.kind} tunnel from {local} to {remote}"
        pair = messages.add_veth(
            port.name,
            index=port.index,
            mac=port.mac,
            mtu=port.mtu,
            peer_name=inner,
            peer_index=far,
            peer_mac=f"02:5e:ee:{far >> 16 & 255:02x}:{far >> 8 & 255:02x}:{far & 255:02x}",
            peer_fd=space.fd,
        )
        both_up = [(messages.set_link(index, up=True), what) for index in (port.index, far)]
        with space.netlink() as netlink:
            netlink.request([(pair, what), *both_up, port.sync()])
        options = {"local_ip": str(local), "remote_ip": str(remote), "key": str(self.key)}
        columns = {outer: {"type": self.kind, "options": mapping(options)}}
        switch.instance.commit(*make_bridge(bridge, "netdev"), *add_ports(bridge, {inner: 1, outer: 2}, columns))
