"""Bridges and ports as operations on the Open_vSwitch database (ovs-vswitchd.conf.db(5), RFC 7047)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .ovs_rpc import Operation, set_of, uuid

__all__ = ["add_ports", "make_bridge"]


def make_bridge(name: str, datapath_type: str) -> list[Operation]:
    """A bridge with its local interface, which has the same name."""
    row = {"name": name, "datapath_type": datapath_type, "ports": _references([name])}
    insert = {"op": "insert", "table": "Bridge", "uuid-name": "bridge", "row": row}
    mutation = ["bridges", "insert", set_of([uuid("bridge")])]
    register = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [mutation]}
    return [*_rows(name, {"type": "internal"}), insert, register]


def add_ports(
    bridge: str, ports: Mapping[str, int], columns: Mapping[str, Mapping[str, object]] | None = None
) -> list[Operation]:
    """Interfaces as ports of a bridge, by OpenFlow number; `columns` has what their rows say besides, by name."""
    mutation = ["ports", "insert", _references(ports)]
    mutate = {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": [mutation]}
    return [*_port_rows(ports, columns or {}), mutate]


def _rows(name: str, interface: dict[str, object]) -> list[Operation]:
    row = {"name": name, **interface}
    port = {"name": name, "interfaces": uuid(_id("interface", name))}
    return [
        {"op": "insert", "table": "Interface", "uuid-name": _id("interface", name), "row": row},
        {"op": "insert", "table": "Port", "uuid-name": _id("port", name), "row": port},
    ]


def _port_rows(ports: Mapping[str, int], columns: Mapping[str, Mapping[str, object]]) -> list[Operation]:
    numbered = {name: {"ofport_request": number, **columns.get(name, {})} for name, number in ports.items()}
    return [row for name, interface in numbered.items() for row in _rows(name, interface)]


def _references(names: Iterable[str]) -> list[object]:
    return set_of([uuid(_id("port", name)) for name in names])


def _id(kind: str, name: str) -> str:
    return f"{kind}_{name.encode().hex()}"  # an identifier: a name may have other characters
