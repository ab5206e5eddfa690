"""What a bridge of Open vSwitch is told by its database now, as ovs-vsctl(8) takes it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .ovs_rpc import Operation, RpcClient, members, transact

__all__ = ["read_settings"]

_COLUMNS: Mapping[str, Sequence[str]] = {
    "Bridge": ("name", "ports", "stp_enable", "rstp_enable", "mcast_snooping_enable", "fail_mode", "other_config"),
    "Port": ("_uuid", "name", "interfaces", "tag", "trunks", "vlan_mode", "bond_mode", "lacp", "other_config"),
    "Interface": ("_uuid", "name", "ingress_policing_rate", "ingress_policing_burst"),
}
_NOT_SETTINGS = {"_uuid", "name", "ports", "interfaces"}


def read_settings(database: RpcClient, bridge: str) -> dict[str, Any]:
    """The settings of a bridge, its ports and their interfaces; those that are as by default are left out.

    Mirrors, queues and controllers, which are rows of their own, are not among them.

    Returns:
        ``{"settings": […], "ports": {name: {"settings": […], "interfaces": {name: […]}}}}``, each setting as
        ``column=value`` or ``column:key=value``.
    """
    reads = [_select(table, bridge if table == "Bridge" else "") for table in _COLUMNS]
    bridges, ports, interfaces = (result["rows"] for result in transact(database, *reads))
    if not bridges:
        return {"settings": [], "ports": {}}
    mine = members(bridges[0]["ports"])
    of = {row["_uuid"][1]: row for row in interfaces}
    found = {}
    for port in ports:
        if port["_uuid"][1] in mine and port["name"] != bridge:
            rows = [of[uuid] for uuid in members(port["interfaces"])]
            found[port["name"]] = {
                "settings": _settings(port),
                "interfaces": {row["name"]: _settings(row) for row in sorted(rows, key=lambda row: str(row["name"]))},
            }
    return {"settings": _settings(bridges[0]), "ports": dict(sorted(found.items()))}


def _select(table: str, name: str) -> Operation:
    where = [["name", "==", name]] if name else []
    return {"op": "select", "table": table, "where": where, "columns": list(_COLUMNS[table])}


def _settings(row: Mapping[str, Any]) -> list[str]:
    found = []
    for column, value in sorted(row.items()):
        if column in _NOT_SETTINGS or value in (False, "", 0):
            continue
        kind, content = value if isinstance(value, list) else ("", value)
        if kind == "map":
            found += [f"{column}:{key}={_text(item)}" for key, item in sorted(content)]
        elif kind == "set":
            found += [f"{column}={','.join(map(_text, content))}"] if content else []
        else:
            found.append(f"{column}={_text(content)}")
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
