"""What Open vSwitch with DPDK is told: settings, devices, policers; and what its poll mode threads say, as data.

No hugepages, no network card: ports are DPDK's virtual devices on the lab's links, its memory is ordinary memory. A
poll mode thread that finds nothing to do sleeps for a while, so that an idle switch does not burn a core.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.errors import BadInput, InfraError
from ..core.units import format_rate, rate_bps, size_bytes
from .ovs_rpc import Operation, mapping, set_of, uuid

__all__ = [
    "DPDK",
    "LARGEST_MTU",
    "VDEVS",
    "PmdStatistics",
    "Policer",
    "dpdk_settings",
    "interface_row",
    "parse_pmd_statistics",
    "police_rows",
    "unpolice_rows",
]

DPDK = "dpdk"
"""The kind of instance."""

VDEVS = {
    "af_packet": "net_af_packet_{port},iface={port}",
    "af_xdp": "net_af_xdp_{port},iface={port},force_copy=1",
}
"""The devices that a port can be, and their arguments (DPDK's guide to network interface controller drivers)."""

LARGEST_MTU = 1500
"""In bytes: the drivers of af_packet and af_xdp say that they take no frame larger than 1518 bytes."""

_MEMORY_MIB = 128
_LONGEST_SLEEP_US = 200


def dpdk_settings() -> dict[str, str]:
    """The settings of an instance with DPDK (ovs-vswitchd.conf.db(5), column other_config of table Open_vSwitch)."""
    cores = sorted(os.sched_getaffinity(0))
    eal = f"--no-huge --legacy-mem --no-pci --no-telemetry -m {_MEMORY_MIB} --file-prefix=ovs"
    sleep = str(_LONGEST_SLEEP_US)
    return {
        "dpdk-init": "true",
        "dpdk-extra": eal,  # without --legacy-mem Open vSwitch adds --in-memory, which --no-huge excludes
        "dpdk-lcore-mask": hex(1 << cores[0]),
        "pmd-cpu-mask": hex(1 << cores[-1]),
        "pmd-maxsleep": sleep,  # its name in Open vSwitch 3.1
        "pmd-sleep-max": sleep,  # and since 3.2
    }


def interface_row(vdev: str, port: str, mtu: int) -> Mapping[str, object]:
    """The columns of a port that is a virtual device on an interface of the kernel (table Interface)."""
    if mtu > LARGEST_MTU:
        raise BadInput(
            f"{port}: its MTU is {mtu} bytes; {vdev} devices of DPDK take frames of an MTU of up to {LARGEST_MTU}"
        )
    arguments = VDEVS[vdev].format(port=port)
    return {"type": "dpdk", "options": mapping({"dpdk-devargs": arguments}), "mtu_request": mtu}


@dataclass(frozen=True)
class Policer:
    """What a port lets pass; the rest is dropped. Rates and sizes are of IP packets, without the Ethernet header.

    Args:
        cir: the committed information rate: ``"10 Mbit/s"``, or bits per second.
        cbs: the committed burst size: ``"20 kB"``, or bytes.
        eir: the excess information rate, on top of `cir`; only for what the port sends.
        ebs: the excess burst size.
        direction: ``"egress"``, what the port sends, or ``"ingress"``, what it receives.

    Raises:
        BadInput: a rate, size or direction that cannot be used.
    """

    cir: str | float
    cbs: str | int
    eir: str | float = 0
    ebs: str | int = 0
    direction: str = "egress"

    def __post_init__(self) -> None:
        if self.direction not in ("egress", "ingress"):
            raise BadInput(f"a policer's direction is 'egress' or 'ingress', not {self.direction!r}")
        if rate_bps(self.cir) < 8 or size_bytes(self.cbs) < 1:
            raise BadInput(f"a policer needs a cir of at least 8 bit/s and a cbs of at least 1 byte; got {self}")
        if self.direction == "ingress" and (rate_bps(self.eir) or size_bytes(self.ebs)):
            raise BadInput("a policer of what a port receives has one rate: cir and cbs, no eir and ebs")
        if self.direction == "ingress" and (rate_bps(self.cir) % 1000 or size_bytes(self.cbs) % 125):
            raise BadInput(
                "Open vSwitch polices what a port receives in whole kbit/s and kbit: cir is a multiple of 1000 bit/s "
                f"and cbs one of 125 bytes; got {format_rate(rate_bps(self.cir))} and {size_bytes(self.cbs)} bytes"
            )

    @property
    def algorithm(self) -> str:
        """``egress-policer`` (RFC 2697) or ``trtcm-policer`` (RFC 4115), as Open vSwitch calls them."""
        return "trtcm-policer" if rate_bps(self.eir) or size_bytes(self.ebs) else "egress-policer"

    def numbers(self) -> dict[str, str]:
        """The settings of its QoS, in bytes per second and bytes (column other_config of table QoS)."""
        found = {"cir": int(rate_bps(self.cir)) // 8, "cbs": size_bytes(self.cbs)}
        if self.algorithm == "trtcm-policer":
            found |= {"eir": int(rate_bps(self.eir)) // 8, "ebs": size_bytes(self.ebs)}
        return {name: str(value) for name, value in found.items()}


def police_rows(port: str, policer: Policer) -> list[Operation]:
    """A policer as operations on the database (ovs-vswitchd.conf.db(5), table QoS; ingress_policing_rate)."""
    if policer.direction == "ingress":
        rate, burst = int(rate_bps(policer.cir)) // 1000, size_bytes(policer.cbs) * 8 // 1000
        return [_set("Interface", port, {"ingress_policing_rate": rate, "ingress_policing_burst": burst})]
    row = {"type": policer.algorithm, "other_config": mapping(policer.numbers())}
    insert = {"op": "insert", "table": "QoS", "uuid-name": "policer", "row": row}
    return [insert, _set("Port", port, {"qos": uuid("policer")})]


def unpolice_rows(port: str) -> list[Operation]:
    """The end of a port's policers, as operations on the database."""
    free = {"ingress_policing_rate": 0, "ingress_policing_burst": 0}
    return [_set("Interface", port, free), _set("Port", port, {"qos": set_of([])})]


def _set(table: str, name: str, row: Mapping[str, object]) -> Operation:
    return {"op": "update", "table": table, "where": [["name", "==", name]], "row": row}


@dataclass(frozen=True)
class PmdStatistics:
    """What one thread of the userspace datapath has done since the switch began, or since they were cleared."""

    thread: str
    """``pmd thread numa_id 0 core_id 1``, or ``main thread``."""
    core: int | None
    """Its CPU core; None for the main thread."""
    packets_received: int
    idle_cycles: int
    processing_cycles: int
    counters: Mapping[str, float]
    """The rest, by Open vSwitch's own words: ``emc hits``, ``miss with success upcall`` …"""

    @property
    def cycles_per_packet(self) -> float | None:
        """CPU cycles spent on work, for each packet received; None where there was none."""
        return self.processing_cycles / self.packets_received if self.packets_received else None


def _counter(line: str) -> tuple[str, float] | None:
    """``  idle cycles: 1624002 (99.00%)`` as a name and a number; None for a name without one."""
    name, _, value = line.strip().partition(": ")
    if not value:
        return None
    try:
        return name, float(value.split()[0])
    except (ValueError, IndexError):
        raise InfraError(f"Open vSwitch says of a thread {line.strip()!r}, which is no counter") from None


def parse_pmd_statistics(text: str) -> list[PmdStatistics]:
    """What ``ovs-appctl dpif-netdev/pmd-stats-show`` says.

    Raises:
        InfraError: it says something that is not understood; the text has the line.
    """
    found = []
    for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        if not block.strip():
            continue
        title, *lines = block.strip().splitlines()
        values = dict(filter(None, map(_counter, lines)))
        core = re.search(r"core_id (\d+)", title)
        found.append(
            PmdStatistics(
                title.rstrip(":"),
                int(core[1]) if core else None,
                int(values.pop("packets received", 0)),
                int(values.pop("idle cycles", 0)),
                int(values.pop("processing cycles", 0)),
                values,
            )
        )
    return found
