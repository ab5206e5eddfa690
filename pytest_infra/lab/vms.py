"""`LabVms`: the part of a lab that declares virtual machines."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import BadInput
from ..core.process import Process
from ..core.wait import until
from ..services import LabServices
from .base import LabBase

if TYPE_CHECKING:
    from ..net.host import Host
    from ..vm.libvirt import Libvirt
    from ..vm.nic import Nic
    from ..vm.vm import VirtualMachine

__all__ = ["LabVms"]

_VDE_S = 10.0


class LabVms(LabBase):
    """The part of a lab that declares virtual machines."""

    def __init__(self, name: str, services: LabServices) -> None:
        super().__init__(name, services)
        self._vms: list[VirtualMachine] = []
        self._wire_ends: dict[str, list[socket.socket]] = {}
        self._vde_switches: dict[str, str] = {}

    def vm(
        self,
        name: str | None = None,
        *,
        kernel: str | os.PathLike[str] | None = None,
        rootfs: str | None = None,
        nics: Nic | Sequence[Nic] = (),
        router: bool = False,
        routes: bool = True,
        **options: Any,
    ) -> VirtualMachine:
        """Declare a virtual machine: a node like any other. It is started, ready and configured when the lab is up.

        Without `rootfs`, ``initrd`` and ``disk`` it has the programs of busybox and nothing else.

        Args:
            name: at most 15 characters; ``vm1``, ``vm2``, … by default.
            kernel: a name of ``pytest-infra kernel list``, the beginning of one, or a path; the newest by default.
            rootfs: ``"host"`` for the machine's own files, read-only below and with a layer in memory on top.
            nics: network cards that are no links: `UserNic`, `SocketNic`, `VdeNic`.
            router: whether it forwards between its links.
            routes: whether the lab works out its routes.
            options: the rest, as `vm.options.vm_options` takes it: ``memory="512 MiB"``, ``cpus=1``,
                ``accel="auto"`` (``"kvm"``, ``"tcg"``), ``model="virtio-net"`` (``"e1000"``), ``vhost``, ``initrd``,
                ``disk``, ``modules``, ``ready_within="5 min"``, ``append`` (kernel options).

        Raises:
            BadInput: the name cannot be used or is taken, no such kernel, or an option cannot be used.
        """
        from ..net.dock import Dock
        from ..net.guest import GuestInterface
        from ..vm.cards import Cards
        from ..vm.options import vm_options
        from ..vm.vm import VirtualMachine

        chosen = self._name(name, "vm")
        try:
            wanted = vm_options(kernel=kernel, rootfs=rootfs, nics=nics, **options)
        except TypeError as error:
            raise BadInput(f"vm {chosen}: {str(error).replace('vm_options() ', '')}") from None
        dock = Dock(chosen, forwards=router, **self._of_hosts(routes))
        cards = Cards(
            chosen,
            model=wanted.model,
            vhost=wanted.vhost,
            new_mac=self._macs.take,
            wire=self._wire_end,
            vde=self._vde_switch,
            interface=GuestInterface,
        )
        machine = VirtualMachine(chosen, wanted, lab=self, dock=dock, cards=cards, declared_at=dock.declared_at)
        self._new.append(dock)
        self._new_late.append(machine)
        self.nodes[chosen] = machine
        self._vms.append(machine)
        return machine

    def merge_memory(self) -> None:
        """Have the machine's kernel merge equal pages of guests, until the lab ends (KSM); see ``vm.merged_bytes``.

        It is a setting of the whole machine, and put back afterwards. Labs that want it wait for each other.

        Raises:
            Unavailable: the kernel has no KSM, or this user may not change it.
        """
        from ..vm.ksm import MergedPages

        self._stack.enter_context(MergedPages(self._lease))

    def libvirt(self, host: Host) -> Libvirt:
        """A private libvirtd in a host's network namespace, started; it ends with the lab.

        Raises:
            BadInput: `host` is no host of this lab.
            Unavailable: libvirtd or virsh is not installed.
        """
        from ..vm.libvirt import Libvirt

        self._check_mine(host)
        self.up()
        return self._stack.enter_context(Libvirt(host.name, lambda: host.namespace.fd))

    def _start_late(self) -> None:
        """Guests that are up are told of links and routes that are new."""
        running = [machine for machine in self._vms if machine.started]
        super()._start_late()
        for machine in running:
            machine.follow_plan()

    def _wire_end(self, wire: str, guest: str) -> socket.socket:
        """A guest's end of a wire between two guests."""
        if wire not in self._wire_ends:
            ends = list(socket.socketpair())
            for end in ends:
                self._stack.callback(end.close)
            self._wire_ends[wire] = ends
        if not self._wire_ends[wire]:
            raise BadInput(f"the wire {wire!r} has two guests at its ends already; {guest} cannot be a third")
        return self._wire_ends[wire].pop()

    def _vde_switch(self, name: str) -> str:
        """The folder of the sockets of a VDE switch of this lab."""
        from ..vm.requirement import VDE

        if name not in self._vde_switches:
            folder = os.path.join(self._lease.folder, f"vde-{len(self._vde_switches)}-{os.urandom(2).hex()}")
            argv = [VDE.path(), "--sock", folder, "--daemon"]
            switch = self.adopt(Process(argv, where=self.name, popen=self.guard().popen))
            until(lambda: os.path.exists(os.path.join(folder, "ctl")), within_s=_VDE_S, what="a VDE switch",
                  last_words=lambda: switch.stderr)  # fmt: skip
            self._vde_switches[name] = folder
        return self._vde_switches[name]
