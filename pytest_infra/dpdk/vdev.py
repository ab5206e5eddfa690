"""DPDK's virtual devices: those that sit on a link of the lab, and those that need none (DPDK's NIC guides)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from ..core.errors import BadInput
from ..core.naming import node_name

__all__ = ["AfPacket", "AfXdp", "Memif", "Null", "Pcap", "Ring", "Tap", "Vdev", "tap_name", "vdev_of"]


def tap_name(number: int) -> str:
    """The name of the TAP device of a port."""
    return f"dtap{number}"


@dataclass(frozen=True)
class Vdev:
    """A virtual device: one port of a DPDK process."""

    kind: ClassVar[str] = ""
    on_link: ClassVar[bool] = True
    """Whether it sits on an end of one of the lab's links."""

    def argument(self, number: int, interface: str, server: bool = False) -> str:
        """What ``--vdev`` is told: the driver with a number, then its settings.

        Args:
            number: the port's number in its process.
            interface: the end of the link; empty for a device that needs none.
            server: whether this end of a shared memory interface makes the socket.
        """
        raise AssertionError(f"{type(self).__name__} has no argument: {number}, {interface}, {server}")


@dataclass(frozen=True)
class AfPacket(Vdev):
    """Packets through a ring that is shared with the kernel (packet(7), PACKET_MMAP)."""

    kind = "af_packet"
    queues: int = 1
    bypass_qdisc: bool = False
    """Whether what it sends skips the kernel's queueing (PACKET_QDISC_BYPASS)."""

    def argument(self, number: int, interface: str, server: bool = False) -> str:
        """See `Vdev.argument`."""
        del server
        return f"net_af_packet{number},iface={interface},qpairs={self.queues},qdisc_bypass={int(self.bypass_qdisc)}"


@dataclass(frozen=True)
class AfXdp(Vdev):
    """Packets past the kernel's network stack, by an XDP program (Documentation/networking/af_xdp)."""

    kind = "af_xdp"
    zero_copy: bool = False
    """Whether it may share its memory with the driver, where that can; a veth copies in any case."""
    busy_budget: int | None = None
    """How many packets a busy poll takes; 0 turns it off."""

    def argument(self, number: int, interface: str, server: bool = False) -> str:
        """See `Vdev.argument`."""
        del server
        budget = "" if self.busy_budget is None else f",busy_budget={self.busy_budget}"
        return f"net_af_xdp{number},iface={interface},force_copy={int(not self.zero_copy)}{budget}"


@dataclass(frozen=True)
class Tap(Vdev):
    """A TAP device of the kernel, which a bridge in the process's own network namespace joins with the link."""

    kind = "tap"

    def argument(self, number: int, interface: str, server: bool = False) -> str:
        """See `Vdev.argument`."""
        del interface, server
        return f"net_tap{number},iface={tap_name(number)}"


@dataclass(frozen=True)
class Pcap(Vdev):
    """Packets through libpcap: live on a link, or from and to files.

    Args:
        rx_file: a capture file whose packets are received, once; a link's packets by default.
        tx_file: the capture file into which all that is sent goes.
    """

    kind = "pcap"
    rx_file: str = ""
    tx_file: str = ""

    def __post_init__(self) -> None:
        if self.rx_file and not os.path.isfile(self.rx_file):
            raise BadInput(f"no capture file {self.rx_file!r}")
        if self.tx_file and not os.path.isdir(os.path.dirname(os.path.abspath(self.tx_file))):
            raise BadInput(f"no folder for the capture file {self.tx_file!r}")
        if self.rx_file.startswith("/run/") or self.tx_file.startswith("/run/"):
            raise BadInput("a DPDK process has a /run of its own: keep capture files elsewhere")

    @property
    def on_link(self) -> bool:  # type: ignore[override]
        """Whether a link is needed: not where files stand for both directions."""
        return not (self.rx_file or self.tx_file)

    def argument(self, number: int, interface: str, server: bool = False) -> str:
        """See `Vdev.argument`."""
        del server
        if self.on_link:
            return f"net_pcap{number},rx_iface_in={interface},tx_iface={interface}"
        files = {"rx_pcap": self.rx_file, "tx_pcap": self.tx_file}
        return ",".join(
            [f"net_pcap{number}", *(f"{key}={os.path.abspath(path)}" for key, path in files.items() if path)]
        )


@dataclass(frozen=True)
class Memif(Vdev):
    """Memory shared with another DPDK process of the lab: the two that name the same wire are joined.

    Args:
        wire: its name, the same at both ends.
        zero_copy: whether the other side's memory is read in place (the driver's option zero-copy; it is the
            client's to choose, and needs memory in one file: huge pages).
        ring_size_log2: the size of its rings, as a power of two.
    """

    kind = "memif"
    on_link = False
    wire: str = "memif"
    zero_copy: bool = False
    ring_size_log2: int = 10

    def __post_init__(self) -> None:
        node_name(self.wire)

    def argument(self, number: int, interface: str, server: bool = False) -> str:
        """See `Vdev.argument`."""
        del interface
        role = "server" if server else f"client,zero-copy={'yes' if self.zero_copy else 'no'}"
        where = f"socket=/run/memif-{self.wire},socket-abstract=no"
        return f"net_memif{number},role={role},id=0,{where},rsize={self.ring_size_log2}"


@dataclass(frozen=True)
class Ring(Vdev):
    """A queue without locks in memory: what is sent into it comes out of it again."""

    kind = "ring"
    on_link = False

    def argument(self, number: int, interface: str, server: bool = False) -> str:
        """See `Vdev.argument`."""
        del interface, server
        return f"net_ring{number}"


@dataclass(frozen=True)
class Null(Vdev):
    """Gives as many packets as are asked for, and takes all; nothing is behind it."""

    kind = "null"
    on_link = False
    size_bytes: int = 64
    copy: bool = False
    """Whether each packet's content is copied."""

    def argument(self, number: int, interface: str, server: bool = False) -> str:
        """See `Vdev.argument`."""
        del interface, server
        return f"net_null{number},size={self.size_bytes},copy={int(self.copy)}"


def _kinds() -> dict[str, type[Vdev]]:
    return {kind.kind: kind for kind in (AfPacket, AfXdp, Tap, Memif, Ring, Null, Pcap)}


def vdev_of(what: Vdev | str) -> Vdev:
    """A virtual device from its name, with the settings that it has by default.

    Raises:
        BadInput: there is none of that name.
    """
    if isinstance(what, Vdev):
        return what
    kinds = _kinds()
    if not isinstance(what, str) or what not in kinds:
        raise BadInput(f"no virtual device {what!r}; there are {', '.join(kinds)}")
    return kinds[what]()
