"""A client of DPDK's telemetry (DPDK's How To Guides, "DPDK Telemetry User Guide"), and its answers as data.

Each packet on the socket is one question or one answer; answers are JSON objects with the question as their only key.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import InfraError, Unavailable

__all__ = [
    "EalInfo",
    "Mempool",
    "PortStatistics",
    "Statistics",
    "Telemetry",
    "TelemetryError",
]

_ANSWER_S = 5.0
_QUESTION_BYTES = 1 << 20


class TelemetryError(InfraError):
    """A DPDK process does not answer."""


@dataclass(frozen=True)
class EalInfo:
    """What a DPDK process is."""

    version: str
    pid: int
    """In the PID namespace of its lab."""
    arguments: tuple[str, ...]
    """What its EAL was told."""
    heap_bytes: int
    heap_free_bytes: int


@dataclass(frozen=True)
class Mempool:
    """A pool of buffers."""

    name: str
    size: int
    """How many it has."""
    element_bytes: int
    cache_size: int


@dataclass(frozen=True)
class PortStatistics:
    """The counters of one port (rte_eth_stats), since its process began or since they were cleared."""

    number: int
    device: str
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_missed: int
    """Received by the device and lost, because nobody took them in time."""
    rx_errors: int
    tx_errors: int
    rx_no_buffers: int
    """Lost because the pool of buffers was empty."""
    link_up: bool = True
    started: bool = True
    xstats: Mapping[str, int] = field(default_factory=dict)
    """What the driver counts besides, by its own names."""

    def since(self, before: PortStatistics) -> PortStatistics:
        """What has come to it since."""
        counters = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_missed", "rx_errors", "tx_errors")
        numbers = {name: getattr(self, name) - getattr(before, name) for name in (*counters, "rx_no_buffers")}
        xstats = {name: value - before.xstats.get(name, 0) for name, value in self.xstats.items()}
        return PortStatistics(
            self.number, self.device, **numbers, link_up=self.link_up, started=self.started, xstats=xstats
        )


@dataclass(frozen=True)
class Statistics:
    """The counters of all ports at one time."""

    ports: tuple[PortStatistics, ...]

    def since(self, before: Statistics) -> Statistics:
        """What has come to them since."""
        earlier = {port.number: port for port in before.ports}
        return Statistics(
            tuple(port.since(earlier[port.number]) if port.number in earlier else port for port in self.ports)
        )

    @property
    def received(self) -> int:
        """Packets that all ports received."""
        return sum(port.rx_packets for port in self.ports)

    @property
    def sent(self) -> int:
        """Packets that all ports sent."""
        return sum(port.tx_packets for port in self.ports)

    @property
    def lost(self) -> int:
        """Packets that ports say they lost."""
        return sum(port.rx_missed + port.rx_errors + port.tx_errors + port.rx_no_buffers for port in self.ports)


class Telemetry:
    """A connection to one DPDK process.

    Args:
        path: its socket.
        what: the process, for messages.
    """

    def __init__(self, path: str, what: str) -> None:
        self.path = path
        self.what = what
        self._socket: socket.socket | None = None
        self.version = ""
        self._banner: dict[str, Any] = {}
        self._turn = threading.Lock()

    def connect(self) -> bool:
        """Open the connection if it is not open; False where nobody listens (yet)."""
        import json

        if self._socket is not None:
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(_ANSWER_S)
            connection.connect(self.path)
            self._banner = json.loads(connection.recv(_QUESTION_BYTES))
        except (OSError, ValueError):
            connection.close()
            return False
        self.version = str(self._banner.get("version", ""))
        self._socket = connection
        return True

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, command: str, *parameters: object) -> Any:
        """Ask one question and return the answer; None where the process has none.

        Raises:
            TelemetryError: the process does not answer.
        """
        import json

        question = ",".join([command, *map(str, parameters)])
        with self._turn:  # an answer goes to whoever asks next
            if not self.connect() or self._socket is None:
                raise TelemetryError(f"{self.what} does not answer {question!r}: nobody listens at {self.path}")
            try:
                self._socket.send(question.encode())
                found = json.loads(self._socket.recv(_QUESTION_BYTES))
            except (OSError, ValueError) as error:
                self.close()
                raise TelemetryError(f"{self.what} does not answer {question!r}: {error or 'it has ended'}") from error
            if not isinstance(found, dict) or command not in found:
                self.close()
                raise TelemetryError(f"{self.what} answers {question!r} with {str(found)[:80]}")
            return found[command]

    def _of_port(self, command: str, number: int) -> dict[str, Any]:
        """What one command says of a port; a port that is not there has no answer."""
        found = self.ask(command, number)
        if not isinstance(found, dict):
            raise TelemetryError(f"{self.what} has no answer to '{command},{number}': is there such a port?")
        return found

    def ports(self) -> list[int]:
        """The numbers of the ports."""
        return [int(number) for number in self.ask("/ethdev/list") or []]

    def port(self, number: int) -> PortStatistics:
        """The counters and the state of one port.

        Raises:
            TelemetryError: the process does not answer, or has no such port.
        """
        info, stats = self._of_port("/ethdev/info", number), self._of_port("/ethdev/stats", number)
        link = self._of_port("/ethdev/link_status", number)
        return PortStatistics(
            number,
            str(info.get("name", "")),
            rx_packets=stats.get("ipackets", 0),
            tx_packets=stats.get("opackets", 0),
            rx_bytes=stats.get("ibytes", 0),
            tx_bytes=stats.get("obytes", 0),
            rx_missed=stats.get("imissed", 0),
            rx_errors=stats.get("ierrors", 0),
            tx_errors=stats.get("oerrors", 0),
            rx_no_buffers=stats.get("rx_nombuf", 0),
            link_up=link.get("status") == "UP",
            started=bool(info.get("dev_started", 1)),
            xstats={name: int(value) for name, value in (self.ask("/ethdev/xstats", number) or {}).items()},
        )

    def statistics(self) -> Statistics:
        """The counters and states of all ports."""
        return Statistics(tuple(self.port(number) for number in self.ports()))

    def mempools(self) -> list[Mempool]:
        """The pools of buffers."""
        found = [self.ask("/mempool/info", name) or {"name": name} for name in self.ask("/mempool/list") or []]
        return [
            Mempool(str(item["name"]), item.get("size", 0), item.get("elt_size", 0), item.get("cache_size", 0))
            for item in found
        ]

    def rings(self) -> list[str]:
        """The queues without locks, by name.

        Raises:
            Unavailable: this DPDK does not tell.
        """
        if (found := self.ask("/ring/list")) is None:
            raise Unavailable("dpdk-rings", f"{self.version} has no command /ring/list", "use DPDK 23.11 or later")
        return [str(name) for name in found]

    def eal(self) -> EalInfo:
        """What the process is, and what memory it has."""
        heaps = [self.ask("/eal/heap_info", number) or {} for number in self.ask("/eal/heap_list") or []]
        return EalInfo(
            self.version,
            int(self._banner.get("pid", 0)),
            tuple(map(str, self.ask("/eal/params") or [])),
            sum(int(heap.get("Heap_size", 0)) for heap in heaps),
            sum(int(heap.get("Free_size", 0)) for heap in heaps),
        )
