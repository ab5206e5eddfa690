"""`LinuxBridge`: the kernel's own switch (bridge(8))."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from ..core.resource import Artifact
from . import messages
from .namespace import Entrance, NetNamespace
from .reading import read_interfaces
from .switch import Switch

__all__ = ["SWITCH_SYSCTL", "LinuxBridge"]

SWITCH_SYSCTL = {"net.ipv6.conf.default.disable_ipv6": "1"}
"""A switch forwards frames and speaks no IP itself: without this the kernel sends IPv6 packets from each port."""


class LinuxBridge(Switch):
    """A Linux bridge in a network namespace of its own; spanning tree is off.

    Args:
        name: the bridge device's name.
        mac: its MAC address.
        entrance: makes the namespace.
        observe: settles what the lab has declared.
        declared_at: the line of the test that made it.
    """

    kind = "bridge"

    def __init__(
        self, name: str, *, mac: str, entrance: Entrance, observe: Callable[[], None], declared_at: str = ""
    ) -> None:
        super().__init__(name, observe=observe, declared_at=declared_at)
        self._mac = mac
        self._index = 0
        self.namespace = NetNamespace(name, entrance, SWITCH_SYSCTL)

    def _start(self, undo: ExitStack) -> None:
        undo.enter_context(self.namespace)
        self._index = self.namespace.next_index()
        with self.namespace.netlink() as netlink:
            netlink.request(
                [(messages.add_bridge(self.name, index=self._index, mac=self._mac), f"make the bridge {self.name}")]
            )

    def master_index(self) -> int:
        """The bridge device: ports are its own from the moment they are made."""
        return self._index

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
                lines.append(f"    port {port.name}: {state}, {carrier}, mtu {item.mtu}, to {port.peer}")
            else:
                lines.append(f"    port {port.name}: gone")
        return "\n".join(lines)

    def diagnose(self) -> Iterator[Artifact]:
        """The ports with their states; what every switch has."""
        if self.namespace.fd < 0:
            return
        yield Artifact(f"{self.name}-show.txt", self._text())
        yield from super().diagnose()
