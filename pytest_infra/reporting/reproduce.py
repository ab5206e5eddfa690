"""``reproduce.md``: how to see a failure again, with the plugin and by hand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from .facts import End, LabFacts

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
        a, b = (_where(facts, end) for end in (wire.a, wire.b))
        near = f"ip{f' -n {a}' if a else ''} link add {wire.a.port} address {wire.a.mac} mtu {wire.a.mtu} type veth"
        far = f"peer name {wire.b.port} address {wire.b.mac} mtu {wire.b.mtu} netns {b or '$$'}"
        yield f"{near} {far}"
        for end, other in ((wire.a, wire.b), (wire.b, wire.a)):
            yield from _port(facts, end)
            if facts.kinds[other.node] == "ovs" and _where(facts, end):
                yield f"ip netns exec {end.node} ethtool -K {end.port} tx off || echo no TCP and UDP without ethtool"
    for name, routes in facts.lab.get("routes", {}).items():
        for route in routes:
            yield f"ip -n {name} route add {route['destination']} via {route['gateway']} dev {route['port']}"
    for name, kind in facts.kinds.items():
        yield from _as_it_was(name, kind, facts)


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


def _as_it_was(name: str, kind: str, facts: LabFacts) -> Iterator[str]:
    """The flows, settings and rules that a node or switch had at the failure, and not when it was made."""
    within = "" if kind == "ovs" else f"ip netns exec {name} "
    if kind == "ovs":
        yield f"ovs-ofctl -O OpenFlow14 del-flows {name}"
        yield f"grep cookie= {facts.folder}{name}/{name}-flows.txt | ovs-ofctl -O OpenFlow14 add-flows {name} -"
    for setting, value in sorted(facts.changed.get(name, {}).items(), key=_widest_first):
        yield f"{within}sh -c {shlex.quote(f'echo {shlex.quote(value)} > /proc/sys/{setting}')}"
    if name in facts.rule_sets:
        yield f"{within}nft -f {facts.folder}{name}/nftables.txt"


def _widest_first(setting: tuple[str, str]) -> tuple[bool, bool, str]:
    """Those of all interfaces, which the kernel copies to each, before those of one."""
    name = setting[0]
    return "/conf/" in name, not name.startswith(("net/ipv4/conf/all/", "net/ipv6/conf/all/")), name


def _where(facts: LabFacts, end: End) -> str:
    """The name of the namespace of a port; empty for the one that the commands run in."""
    return "" if facts.kinds[end.node] == "ovs" else end.node


def _port(facts: LabFacts, end: End) -> Iterator[str]:
    kind = facts.kinds[end.node]
    ip = f"ip -n {end.node}" if _where(facts, end) else "ip"
    if kind == "ovs":
        yield f"ovs-vsctl add-port {end.node} {end.port}"
    if kind == "bridge":
        yield f"{ip} link set {end.port} master {end.node}"
    yield f"{ip} link set {end.port} up"
    for address in end.addresses:
        yield f"{ip} address add {address} dev {end.port}{' nodad' if ':' in address else ''}"
    if end.state == "DOWN":
        yield f"{ip} link set {end.port} down    # as it was at the failure"
