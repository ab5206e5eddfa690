"""``reproduce.md``: how to see a failure again, with the plugin and by hand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from .facts import End, LabFacts, Wire
from .restore import restore_ports, restore_state

__all__ = ["ENTER", "commands", "reproduce"]


ENTER = "unshare --mount --net --pid --fork --kill-child=KILL --mount-proc sh"
"""Opens a shell with whose end everything ends that `commands` makes."""


def reproduce(nodeid: str, phase: str, labs: list[LabFacts]) -> str:
    """The file's content.

    Args:
        nodeid: the test, as pytest names it.
        phase: ``setup``, ``call`` or ``teardown``.
        labs: those that were up.
    """
    lines = [
        f"# {nodeid} ({phase})",
        "",
        "## Again, with a look inside",
        "",
        "```sh",
        f"pytest --infra --infra-pause {shlex.quote(nodeid)}",
        "```",
        "",
        "At the failure it waits, with the lab up, and prints the commands that open a shell in each node.",
    ]
    for facts in labs:
        lines += ["", f"## The lab {facts.name} by hand", ""]
        lines += ["As root, in this folder. Nothing of it stays when the shell that the first line opens is left.", ""]
        lines += ["```sh", ENTER, *commands(facts), "```"]
        if faults := facts.lab.get("faults"):
            lines += ["", "Faults that the test made, which the commands above do not:", ""]
            lines += [f"- {fault['what']}, {_how_long(fault['took_s'])}" for fault in faults]
        if impaired := [
            f"- {end}: {end.impairment}" for wire in facts.wires for end in (wire.a, wire.b) if end.impairment
        ]:
            lines += ["", "Links that were impaired, which the commands above do not do:", "", *impaired]
        if ran := facts.lab.get("commands"):
            run = [f"ip netns exec {item['where']} {item['line']}" for item in ran]
            fence = "`" * max([3, *(len(ticks) + 1 for line in run for ticks in re.findall("`{3,}", line))])
            lines += ["", "What was run in it, the latest last:", "", f"{fence}sh", *run, fence]
    return "\n".join(lines) + "\n"


def _how_long(took_s: float | None) -> str:
    return "in effect at the failure" if took_s is None else f"over after {took_s:.3g} s"


def commands(facts: LabFacts) -> Iterator[str]:
    """Shell commands that build the lab with ip(8), and where it has Open vSwitch bridges, with that.

    They are for the shell of `ENTER`. Open vSwitch's ports are in that network namespace, and
    the other nodes in namespaces with names.
    """
    yield "mount -t tmpfs tmpfs /run"
    yield "ip link set lo up"
    if "ovs" in facts.kinds.values():
        yield from _open_vswitch()
    for name, kind in facts.kinds.items():
        yield from _node(name, kind, facts)
    for wire in facts.wires:
        yield from _wire(wire, facts)
    for name, kind in facts.kinds.items():
        if kind == "ovs":
            yield from restore_ports(name, facts)
    for name, routes in facts.lab.get("routes", {}).items():
        for route in routes:
            yield f"ip -n {name} route add {route['destination']} via {route['gateway']} dev {route['port']}"
    for name in facts.kinds:
        yield from restore_state(name, facts)


def _wire(wire: Wire, facts: LabFacts) -> Iterator[str]:
    a, b = (_where(facts, end) for end in (wire.a, wire.b))
    near = f"ip{f' -n {a}' if a else ''} link add {wire.a.port} address {wire.a.mac} mtu {wire.a.mtu} type veth"
    far = f"peer name {wire.b.port} address {wire.b.mac} mtu {wire.b.mtu} netns {b or '$$'}"
    yield f"{near} {far}"
    for end, other in ((wire.a, wire.b), (wire.b, wire.a)):
        yield from _port(facts, end)
        if facts.kinds[other.node] == "ovs" and _where(facts, end):
            yield f"ip netns exec {end.node} ethtool -K {end.port} tx off || echo no TCP and UDP without ethtool"


def _open_vswitch() -> Iterator[str]:
    yield "mkdir /run/openvswitch; export OVS_RUNDIR=/run/openvswitch OVS_DBDIR=/run/openvswitch OVS_LOGDIR=/run"
    yield "ovsdb-tool create"
    yield "ovsdb-server --remote=punix:/run/openvswitch/db.sock --detach --pidfile --log-file"
    yield "ovs-vsctl --no-wait init"
    yield "ovs-vswitchd --detach --pidfile --log-file"


def _node(name: str, kind: str, facts: LabFacts) -> Iterator[str]:
    if kind == "ovs":
        yield f"ovs-vsctl add-br {name} -- set bridge {name} datapath_type=netdev"
        return
    yield f"ip netns add {name}"
    settings = facts.lab.get("settings", {}).get(name, {})
    if kind == "bridge":
        yield f"ip -n {name} link add {name} up type bridge"
    else:
        yield f"ip -n {name} link set lo up"
    for setting, value in settings.items():
        yield f"ip netns exec {name} sh -c 'echo {value} > /proc/sys/{setting.replace('.', '/')}'"


def _where(facts: LabFacts, end: End) -> str:
    """The name of the namespace of a port; empty for the one that the commands run in."""
    return "" if facts.kinds[end.node] == "ovs" else end.node


def _port(facts: LabFacts, end: End) -> Iterator[str]:
    kind = facts.kinds[end.node]
    ip = f"ip -n {end.node}" if _where(facts, end) else "ip"
    if kind == "bridge":
        yield f"{ip} link set {end.port} master {end.node}"
    yield f"{ip} link set {end.port} up"
    for address in end.addresses:
        yield f"{ip} address add {address} dev {end.port}{' nodad' if ':' in address else ''}"
