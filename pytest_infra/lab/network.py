"""`LabNetwork`: the part of a lab that declares hosts, routers, switches and links."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, overload

from ..core.caller import caller_line
from ..core.errors import BadInput
from ..core.units import duration_s
from ..net.bridge import LinuxBridge
from ..net.dns import resolv_conf
from ..net.host import Host
from ..net.impair import Impairer
from ..net.impairment import parse_impairment
from ..net.isolated import IsolatedHost, check_files, check_isolation
from ..net.link import Link
from ..net.rootfs import RootedHost, check_layers
from ..net.router import Router
from ..net.switch import Switch
from ..net.vlan import check_vlans
from ..net.wiring import LinkOptions, wire
from .routing import LabRouting

if TYPE_CHECKING:
    from ..net.ovs import OvsBridge
    from ..net.ovs_dpdk_bridge import OvsDpdkBridge
    from .base import LabNode

__all__ = ["LabNetwork"]


class LabNetwork(LabRouting):
    """The part of a lab that declares hosts, routers, switches and links."""

    _impairer: Impairer | None = None

    def host(
        self,
        name: str | None = None,
        *,
        isolate: Iterable[str] = (),
        rootfs: str | os.PathLike[str] | None = None,
        layers: Sequence[str | os.PathLike[str]] = (),
        clock_offset: str | float = 0,
        files: Mapping[str, str] | None = None,
        dns: Host | str | None = None,
        search: Sequence[str] = (),
        routes: bool = True,
    ) -> Host:
        """Declare a host.

        Args:
            name: at most 15 characters; ``h1``, ``h2``, … by default.
            isolate: what it has of its own besides its network: ``mount``, ``pid``, ``uts``, ``ipc``, ``user``,
                ``cgroup``, ``time`` (namespaces(7)).
            rootfs: the folder that is its root file system, ``"/"`` for the machine's; it is not written to.
            layers: folders laid over it, the last one on top (overlayfs). See `net.rootfs.RootedHost`.
            clock_offset: how far its monotonic clock is ahead, in whole seconds or as ``"2 h"`` (time_namespaces(7)).
            files: files that have another text there than on the machine: ``{"/etc/hosts": "…"}``.
            dns: its name server: a node of the lab, such as one of `dns`, or an address (resolv.conf(5)).
            search: domains in which a name is looked for too.
            routes: whether the lab works out its routes.

        Raises:
            BadInput: the name cannot be used or is taken, an unknown isolation, no such folder or file, or a name
                server or domain that cannot be.
        """
        isolate, lowers = check_isolation(isolate), check_layers(rootfs, layers)
        own: dict[str, str | Callable[[], str]] = check_files(files or {})
        if dns is not None or search:
            own["/etc/resolv.conf"] = self._resolver(dns, search)
        options = {**self._of_hosts(routes), "isolate": isolate}
        if own:
            options |= {"files": own, "isolate": tuple(dict.fromkeys([*isolate, "mount"]))}
        if offset_s := round(duration_s(clock_offset)):
            isolate = options["isolate"]
            options |= {"clock_offset_s": offset_s, "isolate": tuple(dict.fromkeys([*isolate, "time"]))}
        chosen = self._name(name, "h")
        if lowers:
            return self._add_node(RootedHost(chosen, lowers=lowers, **options))
        if options["isolate"]:
            return self._add_node(IsolatedHost(chosen, **options))
        return self._add_node(Host(chosen, **self._of_hosts(routes)))

    def _resolver(self, dns: Host | str | None, search: Sequence[str]) -> Callable[[], str]:
        if isinstance(dns, Host):
            self._check_mine(dns)
        return resolv_conf(dns, search)

    def router(
        self,
        name: str | None = None,
        *,
        routes: bool | None = None,
        daemons: Sequence[str] | None = None,
        config: str | os.PathLike[str] = "",
    ) -> Router:
        """Declare a router: a host that forwards between its links. The lab works out the routes of all.

        Args:
            name: at most 15 characters; ``r1``, ``r2``, … by default.
            routes: whether the lab works out its routes; by default unless it has routing daemons.
            daemons: FRR's routing daemons that run there, ``["ospfd", "bgpd"]``; zebra is always among them.
            config: FRR's integrated configuration (vtysh(1)), as text or as a path.

        Raises:
            BadInput: the name cannot be used or is taken, an unknown daemon, or a configuration without daemons.
        """
        if daemons is None:
            if config:
                raise BadInput("a router's config is for its routing daemons: name them, daemons=['ospfd']")
            return self._add_node(Router(self._name(name, "r"), **self._of_hosts(routes is not False)))
        return self._add_frr_router(name, daemons, config, self._of_hosts(bool(routes)))

    def bridge(self, name: str | None = None, *, host: Host | None = None, spanning_tree: bool = False) -> LinuxBridge:
        """Declare a switch that is a Linux bridge.

        Args:
            name: at most 15 characters; ``sw1``, ``sw2``, … by default.
            host: the host in whose network namespace it is, as on a machine with guests; by default in one of its own.
            spanning_tree: whether it speaks the spanning tree protocol (IEEE 802.1D): a port forwards after 4 s then.

        Raises:
            BadInput: the name cannot be used or is taken, or the host is not of this lab.
        """
        if host is not None:
            self._check_mine(host)
        bridge = LinuxBridge(
            self._switch_name(name),
            mac=self._macs.take(),
            entrance=self._services.entrance,
            host=host,
            spanning_tree=spanning_tree,
            lab=self,
            observe=self.up,
            declared_at=caller_line(),
        )
        return self._add_switch(bridge)

    @overload
    def ovs(
        self,
        name: str | None = ...,
        *,
        datapath: str = ...,
        private: bool = ...,
        dpdk: Literal[False] = ...,
        host: Host | None = ...,
        spanning_tree: Literal["stp", "rstp"] | None = ...,
        controller: str | None = ...,
    ) -> OvsBridge: ...

    @overload
    def ovs(
        self,
        name: str | None = ...,
        *,
        datapath: str = ...,
        private: bool = ...,
        dpdk: Literal[True] | str,
        host: None = ...,
        spanning_tree: Literal["stp", "rstp"] | None = ...,
        controller: str | None = ...,
    ) -> OvsDpdkBridge: ...

    def ovs(
        self,
        name: str | None = None,
        *,
        datapath: str = "netdev",
        private: bool = False,
        dpdk: bool | str = False,
        host: Host | None = None,
        spanning_tree: Literal["stp", "rstp"] | None = None,
        controller: str | None = None,
    ) -> OvsBridge:
        """Declare a switch that is an Open vSwitch bridge.

        Args:
            name: at most 15 characters; ``sw1``, ``sw2``, … by default.
            datapath: ``netdev`` (in user space, everywhere) or ``system`` (the kernel's, where its module is).
            private: an instance of its own, for a test that kills daemons; else the lab's switches share one,
                which no other lab uses at the same time.
            dpdk: whether its ports are DPDK devices, with poll mode threads: ``True``, or the virtual device that they
                are, ``"af_packet"`` or ``"af_xdp"``. Only with the datapath ``netdev``, and without `host`.
            host: the host in whose network namespace its daemons run, as on a machine with guests.
            spanning_tree: ``"stp"`` (IEEE 802.1D-1998) or ``"rstp"`` (802.1D-2004), with the shortest times allowed.
            controller: the OpenFlow controller, ``"tcp:192.0.2.1:6653"``, as the switch's host reaches it; the switch
                then forwards nothing by itself.

        Raises:
            BadInput: the name cannot be used or is taken, an unknown datapath, device or spanning tree, no controller.
        """
        from ..net.ovs_dpdk_bridge import make_ovs_bridge
        from ..net.ovs_features import BridgeSettings

        if host is not None:
            self._check_mine(host)
            if dpdk:
                raise BadInput("a switch with DPDK ports runs in a namespace of its own; leave out host= or dpdk=")
        options = {"pool": self._services.ovs_pool, "lab": self, "observe": self.up, "declared_at": caller_line()}
        options |= {"host": host, "settings": BridgeSettings(spanning_tree, controller)}
        chosen = self._switch_name(name)
        return self._add_switch(make_ovs_bridge(chosen, dpdk, datapath=datapath, private=private, **options))

    def link(
        self,
        a: LabNode | Switch,
        b: LabNode | Switch,
        *,
        ip: str | Sequence[str] | None = None,
        peer_ip: str | Sequence[str] | None = None,
        mtu: int = 1500,
        mac: str | None = None,
        peer_mac: str | None = None,
        name: str | None = None,
        peer_name: str | None = None,
        vlan: int | None = None,
        trunk: Sequence[int] | Literal["all"] | None = None,
        native: int | None = None,
        rate: str | float | None = None,
        delay: str | float | None = None,
        jitter: str | float | None = None,
        loss: str | float | None = None,
        reorder: str | float | None = None,
        duplicate: str | float | None = None,
        corrupt: str | float | None = None,
    ) -> Link:
        """Declare a wire between two nodes, or a node and a switch, or two switches.

        `ip`, `mac` and `name` are of the first end that is not a switch, the `peer_` ones of the other end. Without an
        address it gets those that come next in the subnets of its segment, or an IPv4 and an IPv6 subnet of its own.

        Args:
            a: one end.
            b: the other end.
            ip: an address with its prefix length (``"192.168.1.10/24"``), or several; an empty list for none.
            peer_ip: the other end's.
            mtu: in bytes, 68 to 65535 (RFC 791; IPv6 needs 1280, RFC 8200).
            mac: a unicast MAC address; by default one that no other port has.
            peer_mac: the other end's.
            name: the interface's name; ``eth0``, ``eth1``, … by default, on a switch ``SWITCH-p1``, …
            peer_name: the other end's.
            vlan: the VLAN of its switch ports, whose frames have no tag on the wire (access port, IEEE 802.1Q).
            trunk: the VLANs whose frames have a tag on the wire, or ``"all"``.
            native: the VLAN of a trunk whose frames have no tag on the wire.
            rate: the most bits per second of layer 2, in each direction (``"50 Mbit/s"``).
            delay: how much later a frame arrives, in each direction.
            jitter: each delay is drawn from `delay` less to plus this.
            loss: the part of the frames that is lost (``"5 %"`` or 0.05).
            reorder: the part that is not delayed, and so overtakes others.
            duplicate: the part that arrives twice.
            corrupt: the part in which one bit is wrong. See `Link.impair`, which changes all of these at run time.

        Raises:
            BadInput: an address, MAC address, MTU or name cannot be used or is taken, an end is not of this lab, or an
                impairment cannot be.
        """
        for end in (a, b):
            self._check_mine(end)
        impairments = {"rate": rate, "delay": delay, "jitter": jitter, "loss": loss}
        impairments |= {"reorder": reorder, "duplicate": duplicate, "corrupt": corrupt}
        parse_impairment(impairments)
        options = LinkOptions(ip, peer_ip, mtu, mac, peer_mac, name, peer_name, check_vlans(vlan, trunk, native))
        link = wire(a, b, options, macs=self._macs, plan=self._addresses, declared_at=caller_line())
        link.apply = self._impair
        if any(value is not None for value in impairments.values()):
            link.ask(impairments)
        for port in link.ports:
            port.restore = self._restore
        self.links.append(link)
        self._new_links.append(link)
        return link

    def _impair(self, link: Link) -> None:
        if self._impairer is None:
            self._impairer = Impairer(self.guard, self._stack, self.links)
        impairer = self._impairer
        self._as_a_whole(lambda: impairer.apply(link))
