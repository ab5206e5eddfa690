"""Open vSwitch's meters in virtual time: what passes depends on the trace and on nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import ExitStack

from ..core.errors import BadInput, InfraError
from ..core.requirement import PRIVILEGE
from ..core.resource import Resource
from ..core.wait import until
from ..net.namespace import Entrance
from ..net.ovs_instance import OvsInstance
from ..net.ovs_requirements import OVS
from ..net.ovs_rows import add_ports, make_bridge
from .meter import Arrival, Colour, OvsMeter
from .packet import Packet
from .wire import SMALLEST_FRAME, encode

__all__ = ["OvsMeterDevice"]

_MS = 10**6
_BRIDGE = "meter"
_PORTS = {"in": 1, "out": 2}
_LONGEST = 1500
_WAIT_S = 5.0
_ETHERNET = 14  # bytes of its header
_LOOKUPS = re.compile(r"lookups: hit:(\d+) missed:(\d+)")
_BAND = re.compile(r"^0: packet_count:(\d+)", re.MULTILINE)


class _VirtualOvs(OvsInstance):
    """An instance whose interfaces are dummies and whose clock can be stopped (ovs-vswitchd(8), --enable-dummy)."""

    def _start(self, undo: ExitStack) -> None:
        super()._start(undo)
        self.datapath_type = "dummy"

    def _options(self) -> list[str]:
        return ["--disable-system", "--enable-dummy=override"]


class OvsMeterDevice(Resource):
    """A meter of Open vSwitch's userspace datapath, in an instance of its own whose time this process moves.

    The datapath is the real one; only its interfaces and its clock are not.
    """

    requires = (PRIVILEGE, *OVS)
    name = "Open vSwitch's meter"

    def _start(self, undo: ExitStack) -> None:
        entrance = undo.enter_context(Entrance())
        self._instance = undo.enter_context(_VirtualOvs("ovs-clock", entrance))
        self._instance.commit(*make_bridge(_BRIDGE, self._instance.datapath_type))
        self._instance.commit(*add_ports(_BRIDGE, _PORTS))
        self._instance.appctl("time/stop")

    def colours(self, profile: OvsMeter, trace: Iterable[Arrival]) -> tuple[Colour, ...]:
        """Give a new meter this profile, send it the trace, and return which packets passed (green) or not (red).

        Args:
            profile: the meter.
            trace: packets of 60 to 1500 bytes, at whole milliseconds.

        Raises:
            BadInput: a packet at another time, of another size, or not in order of time.
                InfraError: a packet was lost otherwise than by the meter.
        """
        self.start()
        packets = list(trace)
        _check(packets)
        instance = self._instance
        for argv in (
            ["del-flows", _BRIDGE],
            ["del-meters", _BRIDGE],
            ["add-meter", _BRIDGE, f"meter=1,{profile.flow_arguments}"],
            ["add-flow", _BRIDGE, "in_port=1,actions=meter:1,output:2"],
        ):
            instance.tool("ovs-ofctl", ["-O", "OpenFlow13", *argv])
        instance.appctl("revalidator/purge")  # the datapath would go on using the meter before
        now_ms, found = 0, []
        for packet in packets:
            if later := packet.at_ns // _MS - now_ms:
                instance.appctl("time/warp", str(later))
                now_ms += later
            found.append(self._send(packet.size_bytes))
        if (dropped := self._dropped_by_meter()) != found.count(Colour.RED):
            raise InfraError(f"{found.count(Colour.RED)} packets did not come out, but the meter dropped {dropped}")
        return tuple(found)

    def _send(self, size: int) -> Colour:
        """Send a packet of that size, and wait until the datapath has looked at it: it decides at once."""
        looked_at, sent = self._counts()
        self._instance.appctl("netdev-dummy/receive", "in", encode(Packet(), bytes(size - _ETHERNET)).hex())
        until(lambda: self._counts()[0] > looked_at, within_s=_WAIT_S, what=f"{self.name} has looked at a packet")
        return Colour.GREEN if self._counts()[1] > sent else Colour.RED

    def _counts(self) -> tuple[int, int]:
        """Packets that the datapath has looked at, and packets that have left by the port out."""
        shown = self._instance.appctl("dpctl/show", "-s", "dummy@ovs-dummy")
        looked_at = sum(int(number) for number in _LOOKUPS.findall(shown)[0])
        sent = shown[shown.index(": out\n") :].partition("TX packets:")[2]
        return looked_at, int(sent.split()[0])

    def _dropped_by_meter(self) -> int:
        said = self._instance.tool("ovs-ofctl", ["-O", "OpenFlow13", "meter-stats", _BRIDGE, "meter=1"]).stdout
        found = _BAND.search(said)
        return int(found.group(1)) if found else 0


def _check(packets: list[Arrival]) -> None:
    for before, packet in zip([Arrival(0, 1), *packets], packets, strict=False):
        if packet.at_ns % _MS or packet.at_ns < before.at_ns:
            raise BadInput(f"{packet}: virtual time goes in whole milliseconds, and only forward")
        if not SMALLEST_FRAME <= packet.size_bytes <= _LONGEST:
            raise BadInput(f"{packet}: a frame has {SMALLEST_FRAME} to {_LONGEST} bytes")
