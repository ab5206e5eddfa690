"""`OvsDpdkBridge`: an Open vSwitch bridge whose ports are DPDK devices, in an Open vSwitch that is built with DPDK."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..core.errors import BadInput, InfraError
from ..core.requirement import PRIVILEGE
from ..core.resource import Artifact
from .ovs import OvsBridge
from .ovs_dpdk import (
    DPDK,
    VDEVS,
    PmdStatistics,
    Policer,
    interface_row,
    parse_pmd_statistics,
    police_rows,
    unpolice_rows,
)
from .ovs_requirements import OVS, OVS_DPDK
from .port import Port

__all__ = ["OvsDpdkBridge", "make_ovs_bridge"]


def make_ovs_bridge(name: str, dpdk: bool | str, **options: Any) -> OvsBridge:
    """A bridge of Open vSwitch, on DPDK where `dpdk` is true or names a virtual device.

    Raises:
        BadInput: an unknown datapath or device, or DPDK with another datapath than ``netdev``.
    """
    if not dpdk:
        return OvsBridge(name, **options)
    return OvsDpdkBridge(name, vdev="af_packet" if dpdk is True else dpdk, **options)


class OvsDpdkBridge(OvsBridge):
    """An Open vSwitch bridge on DPDK: the same switch, with poll mode threads, and with policers.

    Args:
        name: the bridge's name.
        vdev: the virtual device that each port is: ``"af_packet"`` or ``"af_xdp"``.
        options: what every Open vSwitch bridge takes.

    Raises:
        BadInput: no such device.
    """

    requires = (PRIVILEGE, *OVS, OVS_DPDK)
    instance_kind = DPDK

    def __init__(self, name: str, *, vdev: str = "af_packet", **options: Any) -> None:
        if vdev not in VDEVS:
            raise BadInput(f"switch {name}: a port cannot be {vdev!r}: allowed are {' and '.join(map(repr, VDEVS))}")
        if options.get("datapath", "netdev") != "netdev":
            raise BadInput(f"switch {name}: DPDK is for the datapath 'netdev', not {options['datapath']!r}")
        super().__init__(name, **options)
        self.vdev = vdev

    def interface_columns(self, port: Port) -> Mapping[str, object]:
        """A DPDK device on the end of the link."""
        return interface_row(self.vdev, port.name, port.mtu)

    def police(self, port: Port, policer: Policer) -> None:
        """Drop what goes beyond a rate at a port; another policer of the same direction takes the place of the first.

        Raises:
            BadInput: the port is not one of this switch.
            InfraError: Open vSwitch does not do it; the text has its own words.
        """
        self._mine(port)
        self._settle()
        self.instance.commit(*police_rows(port.name, policer))
        if policer.direction == "egress":
            said = self.instance.appctl("qos/show", port.name)
            if policer.algorithm not in said:
                log = "\n".join(self.instance.log("ovs-vswitchd").splitlines()[-5:])
                raise InfraError(f"Open vSwitch set no {policer.algorithm} at {port}: {said.strip()}\n{log}")

    def unpolice(self, port: Port) -> None:
        """Take the policers of a port away.

        Raises:
            BadInput: the port is not one of this switch.
        """
        self._mine(port)
        self._settle()
        self.instance.commit(*unpolice_rows(port.name))

    def _mine(self, port: Port) -> None:
        if port not in self.ports:
            raise BadInput(f"{port} is not a port of {self.name}; it has {', '.join(map(str, self.ports)) or 'none'}")

    def pmd_statistics(self) -> list[PmdStatistics]:
        """What each thread has done: packets, cycles, cache hits (``dpif-netdev/pmd-stats-show``)."""
        self._settle()
        return parse_pmd_statistics(self.instance.appctl("dpif-netdev/pmd-stats-show"))

    def clear_pmd_statistics(self) -> None:
        """Begin to count anew (``dpif-netdev/pmd-stats-clear``)."""
        self._settle()
        self.instance.appctl("dpif-netdev/pmd-stats-clear")

    def diagnose(self) -> Iterator[Artifact]:
        """What every Open vSwitch bridge has; what its poll mode threads did, and which ports they poll."""
        if self.started:
            for what in ("pmd-stats-show", "pmd-rxq-show"):
                with suppress(InfraError):
                    yield Artifact(f"{self.name}-{what}.txt", self.instance.appctl(f"dpif-netdev/{what}"))
        yield from super().diagnose()

    def counters(self, port: Port) -> dict[str, int]:
        """The counters of a port now: ``rx pkts``, ``tx drop``, ``ovs_tx_qos_drops`` (dropped by a policer) and others.

        Raises:
            BadInput: the port is not one of this switch.
        """
        self._mine(port)
        self._settle()
        text = self.ofctl(["-O", "OpenFlow14", "dump-ports", self.name, port.name]).stdout
        usual, _, own = text.partition("CUSTOM")
        found = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", own)}
        for direction, values in re.findall(r"\b(rx|tx) (pkts=.*)", usual):
            found |= {f"{direction} {name}": int(value) for name, value in re.findall(r"(\w+)=(\d+)", values)}
        return found
