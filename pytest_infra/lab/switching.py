"""`LabSwitching`: the part of a lab that declares bonds and tunnels between switches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.caller import caller_line
from ..core.errors import BadInput
from ..net.bond import Bond, BondMode, check_bond
from ..net.port import Port
from ..net.tunnel import Tunnel, TunnelKind, check_tunnel
from ..net.wiring import switch_port_name
from .network import LabNetwork

if TYPE_CHECKING:
    from ..net.ovs import OvsBridge
    from ..net.switch import Switch

__all__ = ["LabSwitching"]


class LabSwitching(LabNetwork):
    """The part of a lab that declares bonds and tunnels between switches."""

    def bond(
        self, a: OvsBridge, b: OvsBridge, *, links: int = 2, mode: BondMode = "balance-slb", lacp: bool = True
    ) -> Bond:
        """Declare several links between two Open vSwitch bridges that are one (IEEE 802.1AX).

        Args:
            a: one end.
            b: the other end.
            links: how many, 2 to 16.
            mode: ``active-backup``, ``balance-slb`` (by MAC address and VLAN) or ``balance-tcp`` (by flow).
            lacp: whether both ends negotiate, which finds a wire that is dead with its carrier on.

        Returns:
            The bond, with its `links`; ``a.bond(bond)`` says what it does.

        Raises:
            BadInput: an end that is no Open vSwitch bridge, an unknown mode, or a number of links that is not allowed.
        """
        from ..net.ovs import OvsBridge

        for end in (a, b):
            if not isinstance(end, OvsBridge):
                raise BadInput(f"a bond is between two Open vSwitch bridges, lab.ovs(); got {end!r}")
        bond = check_bond(self._bonds + 1, mode, lacp, links)
        self._bonds += 1
        for _ in range(links):
            link = self.link(a, b)
            for port in link.ports:
                port.bond = bond
            bond.links.append(link)
        return bond

    def tunnel(
        self,
        a: Switch,
        b: Switch,
        *,
        kind: TunnelKind = "vxlan",
        key: int = 1,
        mtu: int = 1500,
        over: tuple[OvsBridge, OvsBridge] | None = None,
    ) -> Tunnel:
        """Declare a tunnel between switches of two hosts: frames of one come out of the other.

        The packets go by the way that the hosts have to each other, from and to addresses of a subnet of both where
        there is one.

        Args:
            a: one end, a switch that was made with ``host=``.
            b: the other end.
            kind: ``vxlan`` (RFC 7348), ``geneve`` (RFC 8926) or ``gre`` (Ethernet in GRE, RFC 2784 and 2890), where
                the kernel has it.
            key: the network identifier, 24 bits; the GRE key, 32 bits.
            mtu: of the packets inside, in bytes. The way between the hosts needs some 50 bytes more (38 with GRE):
                ``lab.link(m1, m2, mtu=1600)``, else give the guests less.
            over: two further Open vSwitch bridges, one in each host, linked with each other: Open vSwitch itself makes
                the headers then, also on a kernel without such tunnels.

        Raises:
            BadInput: an end that is no switch of a host, both in one host, an unknown kind, or no such key.
        """
        for end in (a, b):
            self._check_mine(end)
        check_tunnel(a, b, kind, key)
        carriers = self._carriers(a, b, over)
        ports = []
        for end in (a, b):
            mac, line = self._macs.take(), caller_line()
            port = Port(end, switch_port_name(end), mac=mac, mtu=mtu, addresses=(), declared_at=line)
            port.restore = self._restore
            end.ports.append(port)
            ports.append(port)
        tunnel = Tunnel(ports[0], ports[1], kind, key)
        if carriers:
            from ..net.ovs_tunnel import OvsTunnel

            tunnel = OvsTunnel(ports[0], ports[1], kind, key, carriers, self._addresses.new_ipv4(2))
        self.links.append(tunnel)
        self._new_late.append(tunnel)
        return tunnel

    def _carriers(self, a: Switch, b: Switch, over: object) -> tuple[OvsBridge, OvsBridge] | None:
        if over is None:
            return None
        from ..net.ovs_tunnel import check_over

        carriers = check_over((a, b), over)
        for carrier in carriers:
            self._check_mine(carrier)
        return carriers
