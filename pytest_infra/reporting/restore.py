"""Shell commands that bring a lab that was built again into the state that it had at the failure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from .facts import End, LabFacts

__all__ = ["restore_ports", "restore_state"]

_OWN = ("kernel", "ra")
_METRIC_OF_IPV6 = 1024


def restore_ports(switch: str, facts: LabFacts) -> Iterator[str]:
    """The ports of an Open vSwitch bridge with their VLANs and bonds, and its own settings."""
    told = facts.switch_settings.get(switch)
    if told is None:
        planned = [end.port for wire in facts.wires for end in (wire.a, wire.b) if end.node == switch]
        told = {"settings": [], "ports": {name: {"settings": [], "interfaces": {name: []}} for name in planned}}
    for name, port in told["ports"].items():
        interfaces = port["interfaces"]
        words = ["add-bond", switch, name, *interfaces] if len(interfaces) > 1 else ["add-port", switch, name]
        for table, row, settings in (("port", name, port["settings"]), *_of_interfaces(interfaces)):
            words += ["--", "set", table, row, *settings] if settings else []
        yield shlex.join(["ovs-vsctl", *words])
    if told["settings"]:
        yield shlex.join(["ovs-vsctl", "set", "bridge", switch, *told["settings"]])


def _of_interfaces(interfaces: dict[str, list[str]]) -> list[tuple[str, str, list[str]]]:
    return [("interface", name, settings) for name, settings in interfaces.items()]


def restore_state(name: str, facts: LabFacts) -> Iterator[str]:
    """What a node or switch had at the failure, and not when it was made."""
    ovs = facts.kinds[name] == "ovs"
    within = "" if ovs else f"ip netns exec {name} "
    if ovs:
        yield from _openflow(name, facts)
    for setting, value in sorted(facts.changed.get(name, {}).items(), key=_widest_first):
        yield f"{within}sh -c {shlex.quote(f'echo {shlex.quote(value)} > /proc/sys/{setting}')}"
    ends = {end.port: end for wire in facts.wires for end in (wire.a, wire.b) if end.node == name}
    if not ovs and name in facts.state:
        yield from _addresses_and_routes(name, facts, ends)
    for end in ends.values():
        if end.state == "DOWN":
            yield f"ip{'' if ovs else f' -n {name}'} link set {end.port} down    # as it was at the failure"
    if name in facts.rule_sets:
        yield f"{within}nft -f {facts.folder}{name}/nftables.txt"


def _openflow(name: str, facts: LabFacts) -> Iterator[str]:
    """Groups and meters go before the flows that name them."""
    for number, meter in re.findall(r"^meter=(\d+) (.*?)(?=^meter=|\Z)", facts.meters.get(name, ""), re.M | re.S):
        settings, _, bands = " ".join(meter.split()).partition("bands=")
        bands = bands.strip().replace(" type=", ",type=").replace(" ", ",")
        text = f"meter={number},{settings.strip().replace(' ', ',')},bands={bands}"
        yield f"ovs-ofctl -O OpenFlow15 add-meter {name} {shlex.quote(text)}"
    for group in re.findall(r"^ *(group_id=.*)$", facts.groups.get(name, ""), re.MULTILINE):
        yield f"ovs-ofctl -O OpenFlow15 add-group {name} {shlex.quote(group)}"
    yield f"ovs-ofctl -O OpenFlow14 del-flows {name}"
    yield f"grep cookie= {facts.folder}{name}/{name}-flows.txt | ovs-ofctl -O OpenFlow14 add-flows {name} -"


def _addresses_and_routes(name: str, facts: LabFacts, ends: dict[str, End]) -> Iterator[str]:
    state, ip = facts.state[name], f"ip -n {name}"
    up = {interface for interface, item in state["interfaces"].items() if item["up"] and item["carrier"]}
    planned = {(end.port, address) for end in ends.values() for address in end.addresses}
    has = {
        (item["interface"], item["ip"])
        for item in state["addresses"]
        if item["scope"] != "link" and not item["dynamic"] and item["interface"] in {*ends, "lo"}
    }
    has -= {("lo", "127.0.0.1/8"), ("lo", "::1/128")}
    ways = {(item["destination"], item["gateway"], item["port"]) for item in facts.lab.get("routes", {}).get(name, ())}
    now = [item for item in state["routes"] if item["protocol"] not in _OWN and not item["linkdown"]]
    there = {(item["destination"], item["gateway"], item["interface"]) for item in now}
    for destination, gateway, port in sorted(ways - there):
        if port in up:
            yield f"{ip} route del {destination} via {gateway} dev {port}"
    for interface, address in sorted(planned - has):
        if interface in state["interfaces"]:
            yield f"{ip} address del {address} dev {interface}"
    for interface, address in sorted(has - planned):
        yield f"{ip} address add {address} dev {interface}{' nodad' if ':' in address else ''}"
    for item in sorted(now, key=lambda item: item["gateway"] is not None):  # gateways are reached by those without one
        if (item["destination"], item["gateway"], item["interface"]) not in ways:
            yield f"{ip} route append {_route(item)}"
    for item in state["neighbours"]:
        if item["state"] == "PERMANENT" and item["mac"]:
            yield f"{ip} neigh replace {item['ip']} lladdr {item['mac']} dev {item['interface']} nud permanent"


def _route(item: dict[str, Any]) -> str:
    kind = "" if item["kind"] == "unicast" else f"{item['kind']} "
    way = f" via {item['gateway']}" if item["gateway"] else ""
    way += f" dev {item['interface']}" if item["interface"] else ""
    if item["metric"] and not (":" in item["destination"] and item["metric"] == _METRIC_OF_IPV6):
        way += f" metric {item['metric']}"
    return f"{kind}{item['destination']}{way}"


def _widest_first(setting: tuple[str, str]) -> tuple[bool, bool, str]:
    """Those of all interfaces, which the kernel copies to each, before those of one."""
    name = setting[0]
    return "/conf/" in name, not name.startswith(("net/ipv4/conf/all/", "net/ipv6/conf/all/")), name
