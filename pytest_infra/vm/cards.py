"""`Cards`: what is plugged into a guest while it runs: network cards and a disk."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.errors import BadInput, StartFailed, Unavailable
from ..core.naming import ip_interface
from ..core.wait import until
from .guest import Guest
from .nic import MODELS, Nic, SocketNic, UserNic, VdeNic
from .qemu import SLOTS

__all__ = ["Card", "Cards"]

_VHOST = "/dev/vhost-net"


@dataclass
class Card:
    """A network card in a slot."""

    slot: int
    mac: str
    model: str
    name: str
    """The interface's name in the guest."""
    port: Any = None
    """The lab's port; None of a card that is no link."""
    nic: Nic | None = None
    vhost: bool = False

    def device(self) -> dict[str, Any]:
        """What QEMU is told."""
        return {
            "driver": MODELS[self.model],
            "id": f"card{self.slot}",
            "netdev": f"net{self.slot}",
            "mac": self.mac,
            "bus": f"slot{self.slot}",
        }


class Cards:
    """The cards of one guest.

    Args:
        name: the guest's name.
        model: the card that a link ends at.
        vhost: whether the kernel moves the packets of virtio-net cards (vhost-net); None where it can.
        new_mac: gives a MAC address.
        wire: gives the guest's end of a named wire between two guests.
        vde: gives the folder of a named VDE switch.
        interface: makes a `net.guest.GuestInterface` from MAC, name, MTU and addresses.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str,
        vhost: bool | None,
        new_mac: Callable[[], str],
        wire: Callable[[str, str], socket.socket],
        vde: Callable[[str], str],
        interface: Callable[..., Any],
    ) -> None:
        self.all: list[Card] = []
        self._name, self._model, self._vhost = name, model, vhost
        self._new_mac, self._wire, self._vde, self._interface = new_mac, wire, vde, interface
        self._used: set[int] = set()
        self.has_disk = False

    def forget(self) -> None:
        """The guest has ended, and its cards with it."""
        self.all.clear()
        self._used.clear()

    @property
    def linked(self) -> list[Any]:
        """The ports of links whose cards are in."""
        return [card.port for card in self.all if card.port is not None]

    def others(self) -> list[Any]:
        """The interfaces that are no links, as the guest shall configure them."""
        return [
            self._interface(card.mac, card.name, 1500, (ip_interface(card.nic.ip),) if card.nic.ip else ())
            for card in self.all
            if card.nic is not None
        ]

    def _slot(self) -> int:
        slot = next((slot for slot in range(SLOTS) if slot not in self._used), None)
        if slot is None:
            raise BadInput(
                f"the guest {self._name} has no slot left: it takes {SLOTS} network cards and disks together"
            )
        self._used.add(slot)
        return slot

    def plug_links(self, guest: Guest, dock: Any) -> None:
        """Plug in a card for each link that has none."""
        for port in dock.ports:
            if port not in self.linked:
                card = Card(self._slot(), port.mac, self._model, port.name, port=port, vhost=self._use_vhost())
                guest.emulator.qmp.ask_with("netdev_add", self.open_tap(guest, dock, card))
                self._insert(guest, card)

    def open_tap(self, guest: Guest, dock: Any, card: Card) -> dict[str, Any]:
        """Hand QEMU a new tap on the wire of a card; returns how it is to use it."""
        qmp = guest.emulator.qmp
        fd = dock.tap(card.port)
        try:
            qmp.give(f"fd{card.slot}", fd)
        finally:
            os.close(fd)
        vhost = {"vhost": True} if card.vhost else {}
        return {"type": "tap", "id": f"net{card.slot}", "fd": f"fd{card.slot}", **vhost}

    def _use_vhost(self) -> bool:
        there = os.path.exists(_VHOST) and self._model == "virtio-net"
        if self._vhost and not there:
            raise Unavailable("vhost", f"there is no {_VHOST}", "modprobe vhost_net, or leave vhost out")
        return there and self._vhost is not False

    def plug_nic(self, guest: Guest, nic: Nic) -> None:
        """Plug in a card that is no link."""
        slot = self._slot()
        card = Card(slot, self._new_mac(), nic.model, f"{nic.kind}{slot}", nic=nic)
        guest.emulator.qmp.ask_with("netdev_add", {"id": f"net{slot}", **self._netdev(guest, nic, slot)})
        self._insert(guest, card)

    def _netdev(self, guest: Guest, nic: Nic, slot: int) -> dict[str, Any]:
        if isinstance(nic, SocketNic):
            with self._wire(nic.wire, self._name) as end:
                guest.emulator.qmp.give(f"fd{slot}", end.fileno())
            return {"type": "socket", "fd": f"fd{slot}"}
        if isinstance(nic, VdeNic):
            return {"type": "vde", "sock": self._vde(nic.switch)}
        if isinstance(nic, UserNic):
            return nic.netdev()
        raise StartFailed(f"{nic!r} cannot be plugged in")

    def _insert(self, guest: Guest, card: Card) -> None:
        guest.emulator.qmp.ask_with("device_add", card.device())
        self.all.append(card)

    def unplug(self, guest: Guest, name: str, within_s: float) -> None:
        """Take a card out; the guest has to let it go."""
        card = next((card for card in self.all if card.name == name), None)
        if card is None:
            names = ", ".join(card.name for card in self.all) or "none"
            raise BadInput(f"the guest {self._name} has no network card {name!r}; there are {names}")
        qmp = guest.emulator.qmp
        qmp.events.clear()  # an earlier card of this slot may have gone
        qmp.ask("device_del", id=f"card{card.slot}")

        def gone() -> bool:
            qmp.ask("query-status")  # events come with answers
            deleted = [event["data"].get("device") for event in qmp.events if event["event"] == "DEVICE_DELETED"]
            return f"card{card.slot}" in deleted

        until(gone, within_s=within_s, what=f"the guest {self._name} lets its card {name} go")
        qmp.ask("netdev_del", id=f"net{card.slot}")
        self.all.remove(card)
        self._used.discard(card.slot)

    def plug_disk(self, guest: Guest, path: str) -> None:
        """Plug in a disk, read-only: what is written to it by the guest stays in the guest."""
        slot, qmp = self._slot(), guest.emulator.qmp
        self.has_disk = True
        with open(path, "rb") as file:
            qcow = file.read(4) == b"QFI\xfb"
        image = {"driver": "file", "filename": path, "read-only": True, "locking": "off"}
        arguments = {"driver": "qcow2" if qcow else "raw", "node-name": "disk0", "read-only": True, "file": image}
        qmp.ask_with("blockdev-add", arguments)
        device = {"driver": "virtio-blk-pci", "id": f"card{slot}", "drive": "disk0", "bus": f"slot{slot}"}
        qmp.ask_with("device_add", device)
