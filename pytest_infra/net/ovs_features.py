"""Mirrors, queues, spanning tree, bonds and controllers of an Open vSwitch bridge (ovs-vswitchd.conf.db(5))."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import BadInput, Unavailable
from ..core.units import rate_bps
from . import messages
from .bond import Bond, BondState, parse_bond
from .ovs_rpc import Operation, mapping, set_of, transact, uuid
from .port import Port

if TYPE_CHECKING:
    from .capture import Capture
    from .namespace import NetNamespace
    from .ovs_instance import OvsInstance

__all__ = ["SPANNING_TREES", "BridgeSettings", "OvsFeatures", "SpanningTree", "TreePort"]

SpanningTree = Literal["stp", "rstp"]
SPANNING_TREES = ("stp", "rstp")
_TREE_SETTINGS = {
    # The shortest times that IEEE 802.1D allows: the default takes 30 s from a new port to its first frame.
    "stp": {"stp-forward-delay": "4", "stp-hello-time": "1", "stp-max-age": "6"},
    "rstp": {"rstp-forward-delay": "4", "rstp-max-age": "6"},
}
_CONTROLLER = re.compile(r"(?:tcp|ssl):(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:]+\])(?::\d+)?|ptcp:\d+(?::\S+)?|unix:\S+")
_FIRST_MIRROR = 60_000  # OpenFlow numbers of the ports that mirrors write to, above those of links
_QUEUES = 61_440
_MIRROR_MTU = 65_535


@dataclass(frozen=True)
class BridgeSettings:
    """What a bridge is told when it is made."""

    spanning_tree: SpanningTree | None = None
    controller: str | None = None
    """As Open vSwitch writes it, ``tcp:192.0.2.1:6653``; then the switch forwards nothing by itself."""

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            BadInput: an unknown spanning tree, or no controller as Open vSwitch writes them.
        """
        if self.spanning_tree not in (None, *SPANNING_TREES):
            raise BadInput(f"no spanning tree {self.spanning_tree!r}; there are {' and '.join(SPANNING_TREES)}")
        if self.controller is not None and not _CONTROLLER.fullmatch(str(self.controller)):
            raise BadInput(f"controller {self.controller!r} is not understood; write 'tcp:192.0.2.1:6653'")

    def rows(self) -> dict[str, Any]:
        """What `ovs_rows.make_bridge` takes besides name and datapath."""
        columns: dict[str, object] = {}
        more: list[Operation] = []
        if self.spanning_tree is not None:
            columns[f"{self.spanning_tree}_enable"] = True
            columns["other_config"] = mapping(_TREE_SETTINGS[self.spanning_tree])
        if self.controller is not None:
            row = {"target": self.controller, "max_backoff": 1000, "connection_mode": "out-of-band"}
            more.append({"op": "insert", "table": "Controller", "uuid-name": "controller", "row": row})
            columns |= {"controller": uuid("controller"), "fail_mode": "secure"}
        return {"columns": columns, "more": more}


@dataclass(frozen=True)
class TreePort:
    """A port of a switch that speaks a spanning tree protocol."""

    role: str
    """``Root``, ``Designated``, ``Alternate``, ``Backup`` or ``Disabled``."""
    state: str
    """``Forwarding``, ``Learning``, ``Listening``, ``Discarding`` or ``Blocking``."""


class OvsFeatures:
    """The part of an Open vSwitch bridge that its database configures."""

    name: str
    ports: list[Port]
    instance: OvsInstance
    namespace: NetNamespace
    settings: BridgeSettings
    datapath: str
    _lab: object
    _settle: Callable[[], None]
    shaped: Mapping[Port, str] = {}  # replaced, never changed
    """The ports that it shapes, with their rates as they were asked for."""
    _mirrors = 0

    def mirror(self, *ports: Port, filter: str = "") -> Capture:
        """Have the switch copy what passes some of its ports to a port of its own, and capture that.

        A capture at a port shows what is on the wire; a mirror shows what the switch says it forwards there.

        Args:
            ports: of this switch; all of them by default.
            filter: which frames are kept, as ``lab.capture`` takes it.

        Raises:
            BadInput: a port is not this switch's, or the filter is not understood.
        """
        self._settle()
        for port in ports:
            if port not in self.ports:
                raise BadInput(f"{port!r} is not a port of {self.name}; it has {', '.join(map(str, self.ports))}")
        self._mirrors += 1
        inner, outer = self._mirror_wire(f"{self.name[:9]}-m{self._mirrors}")
        read = [_find_port(_port_row_name(port)) for port in ports]
        found = [result["rows"][0]["_uuid"] for result in transact(self.instance.database, *read)] if read else []
        number = _FIRST_MIRROR + self._mirrors
        self.instance.commit(*_mirror_rows(self.name, inner, number, found))
        far = Port(self, outer[0], mac="", mtu=1500, addresses=(), declared_at="")  # type: ignore[arg-type]
        far.index = outer[1]
        capture: Capture = self._lab.capture(far, filter)  # type: ignore[attr-defined]
        return capture

    def _mirror_wire(self, name: str) -> tuple[str, tuple[str, int]]:
        """A veth pair in the switch's namespace: the name of one end, the name and index of the other."""
        near, far = self.namespace.next_index(), self.namespace.next_index()
        pair = messages.add_veth(
            name,
            index=near,
            mac=f"02:5e:ed:{near >> 16 & 255:02x}:{near >> 8 & 255:02x}:{near & 255:02x}",
            mtu=_MIRROR_MTU,
            peer_name=f"{name}-x",
            peer_index=far,
            peer_mac=f"02:5e:ed:{far >> 16 & 255:02x}:{far >> 8 & 255:02x}:{far & 255:02x}",
            peer_fd=self.namespace.fd,
        )
        with self.namespace.netlink() as netlink:
            what = f"make the mirror port of {self.name}"
            netlink.request([(pair, what), (messages.set_link(far, up=True), what), (messages.get_link(far), what)])
        return name, (f"{name}-x", far)

    def qos(self, port: Port, rate: str | float, queues: Mapping[int, str | float] | None = None) -> None:
        """Shape what leaves a port, as a whole and by queue (linux-htb, tc-htb(8)).

        A flow chooses the queue, ``set_queue:1,output:sw1-p2``; what chooses none is in queue 0.

        Args:
            port: of this switch.
            rate: of all queues together, ``"10 Mbit/s"`` or bit/s of the frames (L2).
            queues: the most that each may send, by number.

        Raises:
            BadInput: a port that is not this switch's, a queue or a rate that cannot be used.
            Unavailable: queues in the userspace datapath, which shapes a port as a whole only.
        """
        if port not in self.ports:
            raise BadInput(f"{port!r} is not a port of {self.name}; it has {', '.join(map(str, self.ports))}")
        rates = {0: rate_bps(rate), **{number: rate_bps(value) for number, value in (queues or {}).items()}}
        for number in rates:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _QUEUES:
                raise BadInput(f"queue {number!r} cannot be used; allowed are 0 to {_QUEUES - 1}")
        if queues and self.datapath == "netdev":
            why = "Open vSwitch's userspace datapath puts every packet into queue 0"
            raise Unavailable("ovs-kernel", why, "make the switch with lab.ovs(datapath='system')")
        self._settle()
        self.instance.commit(*_qos_rows(_port_row_name(port), round(rate_bps(rate)), rates))
        by_queue = ", ".join(f"queue {number} {value}" for number, value in (queues or {}).items())
        self.shaped = {**self.shaped, port: f"rate {rate}{by_queue and f' ({by_queue})'}"}

    @property
    def spanning_tree(self) -> dict[str, TreePort]:
        """The role and state of each port in the spanning tree, now; empty where it speaks none."""
        self._settle()
        kind = self.settings.spanning_tree
        if kind is None:
            return {}
        column = "rstp_status" if kind == "rstp" else "status"
        read: Operation = {"op": "select", "table": "Port", "where": [], "columns": ["name", column]}
        rows = {row["name"]: dict(row[column][1]) for row in transact(self.instance.database, read)[0]["rows"]}
        found = {name: rows.get(name, {}) for name in map(_port_row_name, self.ports)}
        prefix = "rstp_port_" if kind == "rstp" else "stp_"
        return {
            name: TreePort(row.get(f"{prefix}role", "?").capitalize(), row.get(f"{prefix}state", "?").capitalize())
            for name, row in found.items()
        }

    def bond(self, bond: Bond) -> BondState:
        """A bond's state at this end, now (``ovs-appctl bond/show``).

        Raises:
            BadInput: it does not end here.
        """
        members = [port.name for port in self.ports if port.bond is bond]
        if not members:
            raise BadInput(f"bond {bond.number} of the lab does not end at {self.name}")
        self._settle()
        return parse_bond(self.instance.appctl("bond/show", bond.name_at(self.name)), members)

    @property
    def controller_connected(self) -> bool:
        """Whether the switch speaks with its controller, as Open vSwitch says every five seconds."""
        self._settle()
        read: Operation = {"op": "select", "table": "Controller", "where": [], "columns": ["target", "is_connected"]}
        rows = transact(self.instance.database, read)[0]["rows"]
        return any(row["is_connected"] for row in rows if row["target"] == self.settings.controller)


def _port_row_name(port: Port) -> str:
    return port.bond.name_at(port.node.name) if port.bond is not None else port.name


def _find_port(name: str) -> Operation:
    return {"op": "select", "table": "Port", "where": [["name", "==", name]], "columns": ["_uuid"]}


def _mirror_rows(bridge: str, output: str, number: int, ports: Sequence[object]) -> list[Operation]:
    chosen = {"select_src_port": set_of(ports), "select_dst_port": set_of(ports)} if ports else {"select_all": True}
    interface = {"name": output, "ofport_request": number}
    port = {"name": output, "interfaces": uuid("interface")}
    mirror = {"name": output, "output_port": uuid("port"), **chosen}
    bridge_where = [["name", "==", bridge]]
    change = [["ports", "insert", set_of([uuid("port")])], ["mirrors", "insert", set_of([uuid("mirror")])]]
    return [
        {"op": "insert", "table": "Interface", "uuid-name": "interface", "row": interface},
        {"op": "insert", "table": "Port", "uuid-name": "port", "row": port},
        {"op": "insert", "table": "Mirror", "uuid-name": "mirror", "row": mirror},
        {"op": "mutate", "table": "Bridge", "where": bridge_where, "mutations": change},
    ]


def _qos_rows(port: str, rate: int, queues: Mapping[int, float]) -> list[Operation]:
    rows: list[Operation] = [
        {
            "op": "insert",
            "table": "Queue",
            "uuid-name": f"queue{number}",
            "row": {"other_config": mapping({"max-rate": str(round(bits))})},
        }
        for number, bits in queues.items()
    ]
    references = ["map", [[number, uuid(f"queue{number}")] for number in queues]]
    qos = {"type": "linux-htb", "other_config": mapping({"max-rate": str(rate)}), "queues": references}
    return [
        *rows,
        {"op": "insert", "table": "QoS", "uuid-name": "qos", "row": qos},
        {"op": "update", "table": "Port", "where": [["name", "==", port]], "row": {"qos": uuid("qos")}},
    ]
