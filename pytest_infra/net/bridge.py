"""`LinuxBridge`: the kernel's own switch (bridge(8))."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..core.errors import Unavailable
from ..core.resource import Artifact
from . import bridge_messages, messages
from .namespace import Entrance, NetNamespace
from .netlink import NetlinkError
from .ovs_flows import FdbEntry
from .port import Port
from .reading import read_interfaces
from .switch import Switch

if TYPE_CHECKING:
    from .host import Host

__all__ = ["SWITCH_SYSCTL", "LinuxBridge"]

SWITCH_SYSCTL = {"net.ipv6.conf.default.disable_ipv6": "1"}
"""A switch forwards frames and speaks no IP itself: without this the kernel sends IPv6 packets from each port."""


class LinuxBridge(Switch):
    """A Linux bridge in a network namespace of its own, or in a host's.

    Args:
        name: the bridge device's name.
        mac: its MAC address.
        entrance: makes the namespace.
        host: the host whose namespace it is in; None for one of its own.
        spanning_tree: whether it speaks the spanning tree protocol (IEEE 802.1D).
        lab: the lab it belongs to.
        observe: settles what the lab has declared.
        declared_at: the line of the test that made it.
    """

    kind = "bridge"

    def __init__(
        self,
        name: str,
        *,
        mac: str,
        entrance: Entrance,
        host: Host | None = None,
        spanning_tree: bool = False,
        lab: object = None,
        observe: Callable[[], None],
        declared_at: str = "",
    ) -> None:
        super().__init__(name, observe=observe, declared_at=declared_at)
        self.host = host
        self.spanning_tree = spanning_tree
        self._lab = lab
        self._mac = mac
        self._index = 0
        self._filtering = False
        self.namespace = NetNamespace(name, entrance, SWITCH_SYSCTL) if host is None else host.namespace

    def siblings(self) -> Iterable[Switch]:
        """The switches of the lab that are in the same host, this one among them."""
        return self._in_same_host(getattr(self._lab, "switches", {}).values())

    def _start(self, undo: ExitStack) -> None:
        if self.host is None:
            undo.enter_context(self.namespace)
        self._index = self.namespace.next_index()
        requests = [(messages.add_bridge(self.name, index=self._index, mac=self._mac), f"make the bridge {self.name}")]
        if self.spanning_tree:
            settings = bridge_messages.bridge_settings(self._index, spanning_tree=True)
            requests.append((settings, f"have the bridge {self.name} speak the spanning tree protocol"))
        with self.namespace.netlink() as netlink:
            netlink.request(requests)

    def master_index(self) -> int:
        """The bridge device: ports are its own from the moment they are made."""
        return self._index

    def attach(self, ports: Sequence[Port]) -> None:
        """Give ports that name VLANs those; a bridge that has such a port looks at the tags of all.

        Raises:
            Unavailable: the kernel's bridge cannot.
        """
        tagged = [port for port in ports if port.vlans is not None]
        if not tagged:
            return
        with self.namespace.netlink() as netlink:
            if not self._filtering:
                request = bridge_messages.bridge_settings(self._index, vlan_filtering=True)
                try:
                    netlink.request([(request, f"have the bridge {self.name} look at VLAN tags")])
                except NetlinkError as error:
                    if error.errno != errno.EOPNOTSUPP:
                        raise
                    why = "its bridge cannot look at VLAN tags (CONFIG_BRIDGE_VLAN_FILTERING)"
                    raise Unavailable("kernel", why, "use lab.ovs(), or a kernel that has it") from error
                self._filtering = True
            for port in tagged:
                assert port.vlans is not None
                what = f"make {port}, declared at {port.declared_at}, {port.vlans}"
                join = messages.set_link(port.index, master=self._index)
                requests = [join, *bridge_messages.vlan_requests(port.index, port.vlans)]
                netlink.request([(request, what) for request in requests])

    @property
    def fdb(self) -> list[FdbEntry]:
        """The MAC addresses that the bridge has learned, now (``bridge fdb show``)."""
        self.observe()
        with self.namespace.netlink() as netlink:
            found = netlink.dump(bridge_messages.dump_fdb(), f"read the MAC table of {self.name}")
        names = {port.index: port.name for port in self.ports}
        return [
            FdbEntry(names[entry.index], entry.vlan, entry.mac, entry.age_s)
            for entry in bridge_messages.fdb_entries(found)
            if entry.index in names and entry.kind != "local"
        ]

    def show(self) -> str:
        """The bridge and its ports, one a line, with their state and the other end."""
        self.observe()
        return self._text()

    def _text(self) -> str:
        with self.namespace.netlink() as netlink:
            found = read_interfaces(netlink)
        lines = [f"bridge {self.name}"]
        for port in self.ports:
            if item := found.get(port.name):
                state = "up" if item.up else "down"
                carrier = "carrier" if item.carrier else "no carrier"
                vlans = f", {port.vlans}" if port.vlans else ""
                lines.append(f"    port {port.name}: {state}, {carrier}, mtu {item.mtu}{vlans}, to {port.peer}")
            else:
                lines.append(f"    port {port.name}: gone")
        return "\n".join(lines)

    def diagnose(self) -> Iterator[Artifact]:
        """The ports with their states; what every switch has."""
        if self.namespace.fd < 0:
            return
        yield Artifact(f"{self.name}-show.txt", self._text())
        yield from super().diagnose()
