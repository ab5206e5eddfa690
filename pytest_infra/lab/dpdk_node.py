"""`DpdkNode`: a DPDK process with its network namespace: a node of the lab that forwards frames by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..core.errors import BadInput, InfraError, Unavailable
from ..core.guard import Guard
from ..core.node import Address, Neighbour, Route
from ..core.process import Completed, Process
from ..core.requirement import Absent
from ..core.resource import Artifact, Facts
from ..dpdk.capability import CAPABILITIES, probe_capability
from ..dpdk.faults import Fault, faults_of
from ..dpdk.process import DpdkProcess
from ..dpdk.requirement import AF_XDP
from ..dpdk.telemetry import PortStatistics, Statistics, Telemetry, TelemetryError
from ..dpdk.vdev import AfPacket, Memif, Tap, Vdev, tap_name
from ..net import messages
from ..net.bridge import SWITCH_SYSCTL
from ..net.host import Host, HostLab
from ..net.namespace import Entrance
from ..net.offload import set_transmit_checksum
from ..net.ovs_requirements import TUN
from ..net.port import Port
from ..net.switch import Switch
from ..net.sysctl import Sysctl

if TYPE_CHECKING:
    from ..net.diagnosis import Journal

__all__ = ["DpdkNode"]

T = TypeVar("T")


class _InDpdkGuard:
    """What the node's host needs of its lab; its commands run beside the process, in a guard with a /run of its own."""

    def __init__(self, lab: HostLab, guard: Callable[[], Guard]) -> None:
        self.up = lab.up
        self.adopt = lab.adopt
        self.guard = guard
        self.journal: Journal = lab.journal


class _Inside(Host):
    """The network namespace of a DPDK process: its interfaces have no addresses, and its kernel speaks no IPv6."""

    sysctl_defaults: ClassVar[Mapping[str, str]] = {**Host.sysctl_defaults, **SWITCH_SYSCTL}


class DpdkNode(Switch):
    """A DPDK process. The lab takes it for a switch: what it forwards, frame by frame, is one segment.

    Args:
        name: its name.
        devices: one for each port, in order; those that sit on a link get the links in the order of their declaration.
        default: the device of each link beyond those.
        lab: what it needs of its lab.
        guard: gives the guard in which its processes run.
        entrance: makes its network namespace.
        process: makes the process, when this node is there.
        declared_at: the line of the test that made it.
    """

    kind = "dpdk"
    forwards_frames = True
    """For checks that follow a frame: it passes through."""

    def __init__(
        self,
        name: str,
        *,
        devices: Sequence[Vdev],
        default: Vdev | None,
        lab: HostLab,
        guard: Callable[[], Guard],
        entrance: Entrance,
        process: Callable[[DpdkNode], DpdkProcess],
        wires: dict[str, list[tuple[DpdkNode, int]]],
        declared_at: str = "",
    ) -> None:
        super().__init__(name, observe=lab.up, declared_at=declared_at)
        self.inside = _Inside(name, lab=_InDpdkGuard(lab, guard), entrance=entrance, declared_at=declared_at)
        self.namespace = self.inside.namespace
        self.devices = list(devices)
        self._default = default
        self._entrance = entrance
        self._wires = wires
        self._take_wires()
        self.process = process(self)
        self._forwarding: bool = getattr(self.process.application, "start", True)

    def _take_wires(self) -> None:
        """Note that this node is an end of each shared memory interface that its devices name.

        Raises:
            BadInput: one of them has two ends already.
        """
        mine = [(number, device.wire) for number, device in enumerate(self.devices) if isinstance(device, Memif)]
        for _, wire in mine:
            ends = [node.name for node, _ in self._wires.get(wire, [])] + [self.name] * [w for _, w in mine].count(wire)
            if len(ends) > 2:
                raise BadInput(
                    f"dpdk {self.name}: a memif wire has two ends, and {wire!r} would be at {', '.join(ends)}"
                )
        for number, wire in mine:
            self._wires.setdefault(wire, []).append((self, number))

    @property
    def joined(self) -> Sequence[Switch]:
        """The nodes at the other ends of its shared memory interfaces."""
        ends = [node for found in self._wires.values() if self in [end for end, _ in found] for node, _ in found]
        return [node for node in dict.fromkeys(ends) if node is not self]

    def _serves(self, device: Vdev, number: int) -> bool:
        """Whether a port is the first end of a shared memory interface, which makes its socket."""
        return isinstance(device, Memif) and self._wires[device.wire][0] == (self, number)

    # -- making ------------------------------------------------------------------------------------------------

    def _start(self, undo: ExitStack) -> None:
        needs = {"af_xdp": AF_XDP, "tap": TUN}
        for device in self._all_devices():
            if device.kind in needs:
                needs[device.kind].demand()
        undo.enter_context(self.inside)

    def _all_devices(self) -> list[Vdev]:
        """The devices of all ports, those of links beyond the declared ones too."""
        on_links = sum(device.on_link for device in self.devices)
        if on_links > len(self.ports):
            kinds = ", ".join(device.kind for device in self.devices if device.on_link)
            raise BadInput(
                f"dpdk {self.name}, declared at {self.declared_at}: more ports than links: {on_links} ports need "
                f"a link ({kinds}), and {len(self.ports)} end here"
            )
        beyond = len(self.ports) - on_links
        if beyond and self._default is None:
            raise BadInput(f"dpdk {self.name}: {beyond} links end here for which ports= has no device")
        return [*self.devices, *([self._default] * beyond if self._default else [])]

    def wires(self) -> list[tuple[Vdev, Port | None]]:
        """Each port's device, and the end of a link that it sits on."""
        ports = iter(self.ports)
        return [(device, next(ports) if device.on_link else None) for device in self._all_devices()]

    def arguments(self) -> tuple[str, ...]:
        """What ``--vdev`` is told, for each port."""
        found = []
        for number, (device, port) in enumerate(self.wires()):
            found.append(device.argument(number, port.name if port else "", self._serves(device, number)))
        return tuple(found)

    def attach(self, ports: Sequence[Port]) -> None:
        """Have the other ends compute checksums: outside the kernel nobody sees that they are still to be made."""
        if self.process.started:
            raise BadInput(f"dpdk {self.name} runs already: declare its links before the lab is looked at")
        for port in ports:
            far = port.peer
            set_transmit_checksum(partial(self._entrance.within, far.node.namespace.fd), far.name, False)

    def join_taps(self) -> None:
        """Join each TAP device with its link, by a bridge; the process has just made them."""
        for number, (device, port) in enumerate(self.wires()):
            if isinstance(device, Tap) and port is not None:
                self._join(tap_name(number), port, number)

    def _join(self, tap: str, port: Port, number: int) -> None:
        bridge = f"dbr{number}"
        with self.namespace.netlink() as netlink:
            index = self.namespace.next_index()
            tap_index = self.inside.interfaces[tap].index
            netlink.request([
                (messages.add_bridge(bridge, index=index, mac=port.mac), f"make the bridge of {port}"),
                (messages.set_link(index, up=True), f"set the bridge of {port} up"),
                (messages.set_link(tap_index, up=True, master=index), f"join {tap} with {port}"),
                (messages.set_link(port.index, up=True, master=index), f"join {port} with {tap}"),
            ])  # fmt: skip

    def waits_for(self, port: PortStatistics) -> bool:
        """Whether a port's link has to be up before the process is ready: not that of a wire's first end."""
        wires = self.wires()
        return port.number >= len(wires) or not self._serves(wires[port.number][0], port.number)

    def kernel_sources(self) -> dict[int, int | str]:
        """Where the kernel counts what it drops on the way to a port: an interface's index, or a TAP device."""
        found: dict[int, int | str] = {}
        for number, (device, port) in enumerate(self.wires()):
            if port is not None and isinstance(device, AfPacket | Tap):
                found[number] = port.index if isinstance(device, AfPacket) else tap_name(number)
        return found

    # -- a node ------------------------------------------------------------------------------------------------

    def run(self, argv: Sequence[Any], **options: Any) -> Completed:
        """Run a command beside the process, to its end; see `Host.run`."""
        return self.inside.run(argv, **options)

    def spawn(self, argv: Sequence[Any], **options: Any) -> Process:
        """Start a command beside the process, in the background; see `Host.spawn`."""
        return self.inside.spawn(argv, **options)

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a Python function in the node's network namespace; see `Host.call`."""
        return self.inside.call(function, *args, **kwargs)

    @property
    def addresses(self) -> list[Address]:
        """The IP addresses of the kernel's interfaces there: by default none but the loopback's."""
        return self.inside.addresses

    @property
    def routes(self) -> list[Route]:
        """The kernel's routes there: by default none."""
        return self.inside.routes

    @property
    def neighbours(self) -> list[Neighbour]:
        """The kernel's neighbours there: by default none."""
        return self.inside.neighbours

    @property
    def sysctl(self) -> Sysctl:
        """The kernel settings of its network namespace."""
        return self.inside.sysctl

    # -- DPDK --------------------------------------------------------------------------------------------------

    @property
    def telemetry(self) -> Telemetry:
        """The telemetry of the process, for what has no method here."""
        self.observe()
        return self.process.telemetry

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        self.observe()
        return self.process.running

    def statistics(self) -> Statistics:
        """The counters and states of all ports, now.

        Raises:
            TelemetryError: the process does not answer; the text says how it ended.
        """
        self.observe()
        try:
            return self.process.statistics()
        except TelemetryError as error:
            if not self.process.running:
                process = self.process
                raise TelemetryError(
                    f"{process.program} in {self.name} {process.end()}\n{process.last_words()}"
                ) from error
            raise

    def console(self, command: str) -> str:
        """One command to testpmd's console, and what it says (DPDK's Testpmd Application User Guide).

        Raises:
            BadInput: the application is not testpmd.
        """
        self.observe()
        if self.process.console is None:
            raise BadInput(f"{self.process.program} in {self.name} has no console; testpmd has one")
        if command.split()[:1] in (["start"], ["stop"]):
            self._forwarding = command.startswith("start")
        return self.process.console.command(command)

    @property
    def forwarding(self) -> bool:
        """Whether it was told to forward."""
        return self._forwarding

    def start_forwarding(self) -> None:
        """Have testpmd forward."""
        self.console("start")

    def stop_forwarding(self) -> str:
        """Have testpmd stop; returns its own statistics."""
        return self.console("stop")

    def demand(self, capability: str, port: int = 0) -> None:
        """Go on only where a port's driver can do it: ``rte_flow``, ``meter`` or ``tm`` (traffic management).

        Raises:
            Unavailable: it cannot; the text has the driver's own words.
            BadInput: an unknown capability or port.
        """
        if capability not in CAPABILITIES:
            raise BadInput(f"no capability {capability!r}; there are {', '.join(CAPABILITIES)}")
        if port not in (numbers := self.telemetry.ports()):
            raise BadInput(f"{self.name} has no port {port}; it has {', '.join(map(str, numbers))}")
        if self.process.console is None:
            raise Unavailable(capability, f"only testpmd can be asked; {self.process.program} has no console", "")
        found = probe_capability(self.process.console, capability, port)
        if isinstance(found, Absent):
            raise Unavailable(capability, found.why, found.remedy)

    def faults(self, before: Statistics | None = None) -> list[Fault]:
        """What is wrong with it, the gravest first; counters count from `before`, or from the beginning."""
        process, now = self.process, None
        if not process.started:
            self.observe()
        with suppress(InfraError):
            now = process.statistics() if process.running else None
        return faults_of(
            what=f"{process.program} in {self.name}",
            end=process.end(),
            last_words=process.last_words(),
            core_pattern=_core_pattern(),
            now=now,
            before=before or Statistics(()),
            forwarding=self._forwarding,
            shared_cores=process.cores.shared,
            wrong_cores=process.wrong_cores(),
            no_carrier=self._no_carrier(),
        )

    def _no_carrier(self) -> frozenset[int]:
        """The ports that sit on an end of a link that has no signal."""
        now = self.interfaces
        ends = [(number, end.name) for number, (_, end) in enumerate(self.wires()) if end is not None]
        return frozenset(number for number, name in ends if name not in now or not now[name].carrier)

    def show(self) -> str:
        """The process and its ports as text, for people."""
        self.observe()
        process = self.process
        lines = [f"{process.program} in {self.name}: cores {', '.join(map(str, process.cores.cpus))}"]
        lines += [f"    shares {note}" for note in process.cores.shared]
        for (device, end), port in zip(self.wires(), self.statistics().ports, strict=False):
            where = f" on {end}" if end else ""
            counts = f"received {port.rx_packets}, sent {port.tx_packets}"
            lines.append(
                f"    port {port.number}: {device.kind}{where}, link {'up' if port.link_up else 'down'}, {counts}"
            )
        return "\n".join(lines)

    def describe(self) -> Facts:
        """The node, its ports and what runs in it."""
        facts = {**super().describe(), "application": self.process.program}
        return {**facts, "devices": [device.kind for device in self.devices], "cores": list(self.process.cores.cpus)}

    def diagnose(self) -> Iterator[Artifact]:
        """What the process wrote and counted; what the kernel has in its network namespace."""
        yield from self.process.diagnose()
        if self.namespace.fd >= 0:
            yield from super().diagnose()


def _core_pattern() -> str:
    try:
        with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
