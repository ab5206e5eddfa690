"""Bridges and ports as operations on the Open_vSwitch database (ovs-vswitchd.conf.db(5), RFC 7047)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .ovs_rpc import Operation, set_of, uuid
from .vlan import VlanMembership

__all__ = ["add_ports", "make_bridge", "vlan_columns"]


def make_bridge(
    name: str, datapath_type: str, columns: Mapping[str, object] | None = None, more: Sequence[Operation] = ()
) -> list[Operation]:
    """A bridge with its local interface, which has the same name.

    Args:
        name: its name.
        datapath_type: ``netdev``, ``system`` or ``dummy``.
        columns: more columns of table Bridge.
        more: rows that those refer to.
    """
    row = {"name": name, "datapath_type": datapath_type, "ports": _references([name]), **(columns or {})}
    insert = {"op": "insert", "table": "Bridge", "uuid-name": "bridge", "row": row}
    mutation = ["bridges", "insert", set_of([uuid("bridge")])]
    register = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [mutation]}
    return [*more, _interface(name, {"type": "internal"}), _port(name, [name], {}), insert, register]


def add_ports(
    bridge: str,
    ports: Mapping[str, int],
    columns: Mapping[str, Mapping[str, object]] | None = None,
    settings: Mapping[str, Mapping[str, object]] | None = None,
    bonds: Mapping[str, Sequence[str]] | None = None,
) -> list[Operation]:
    """Interfaces as ports of a bridge, by OpenFlow number.

    Args:
        bridge: its name.
        ports: the interfaces and their numbers.
        columns: what the rows of the interfaces say besides, by name.
        settings: columns of table Port, by port or bond.
        bonds: the interfaces that are one port together, by the bond's name.
    """
    bonds, settings, columns = bonds or {}, settings or {}, columns or {}
    bonded = {name for members in bonds.values() for name in members}
    groups = {**{name: [name] for name in ports if name not in bonded}, **bonds}
    rows: list[Operation] = []
    for port, members in groups.items():
        rows += [_interface(name, {"ofport_request": ports[name], **columns.get(name, {})}) for name in members]
        rows.append(_port(port, members, settings.get(port, {})))
    mutation = ["ports", "insert", _references(groups)]
    mutate = {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": [mutation]}
    return [*rows, mutate]


def vlan_columns(vlans: VlanMembership | None) -> dict[str, object]:
    """The columns of table Port for the VLANs of a port (ovs-vswitchd.conf.db(5), "VLAN Configuration")."""
    if vlans is None:
        return {}
    if vlans.access is not None:
        return {"vlan_mode": "access", "tag": vlans.access}
    trunks: dict[str, object] = {"trunks": set_of(vlans.trunk)} if vlans.trunk else {}
    if vlans.native is None:
        return {"vlan_mode": "trunk", **trunks}
    return {"vlan_mode": "native-untagged", "tag": vlans.native, **trunks}


def _interface(name: str, columns: Mapping[str, object]) -> Operation:
    row = {"name": name, **columns}
    return {"op": "insert", "table": "Interface", "uuid-name": _id("interface", name), "row": row}


def _port(name: str, interfaces: Sequence[str], columns: Mapping[str, object]) -> Operation:
    references = set_of([uuid(_id("interface", one)) for one in interfaces])
    row = {"name": name, "interfaces": references, **columns}
    return {"op": "insert", "table": "Port", "uuid-name": _id("port", name), "row": row}


def _references(names: Iterable[str]) -> list[object]:
    return set_of([uuid(_id("port", name)) for name in names])


def _id(kind: str, name: str) -> str:
    return f"{kind}_{name.encode().hex()}"  # an identifier: a name may have other characters
