"""`LabTopologyFiles`: labs from and to topology files in containerlab's format, and graphs of networkx.

Of containerlab's format (https://containerlab.dev/manual/topo-def-file/) the part that says what is linked with what:
nodes of the kinds linux, bridge and ovs-bridge, and links. What else a file says is refused with its line.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.errors import BadInput
from ..core.node import Node
from ..core.requirement import PythonModule
from ..net.bridge import LinuxBridge
from ..net.host import Host
from ..net.router import Router
from ..net.switch import Switch
from .topologies import LabTopologies

if TYPE_CHECKING:
    from .base import LabNode

__all__ = ["NETWORKX", "YAML", "LabTopologyFiles"]

YAML = PythonModule("pyyaml", module="yaml", extra="topology", purpose="topology files: lab.load(), lab.save()")
NETWORKX = PythonModule("networkx", extra="topology", purpose="graphs: lab.add_graph(), lab.graph()")

_KINDS = ("linux", "bridge", "ovs-bridge")
_TOP = {"name", "topology", "prefix", "mgmt"}
_TOPOLOGY = {"nodes", "links", "kinds", "defaults"}
_NODE = {"kind", "image", "exec", "sysctls", "labels", "group"}
_LINK = {"endpoints", "mtu", "type", "labels", "vars"}
_ENDPOINT = {"node", "interface", "mac"}
_FORWARD = "net.ipv4.ip_forward"


@dataclass(frozen=True)
class _Item:
    """A value of a file, and its line."""

    value: Any
    line: int

    def children(self, allowed: set[str] | None, what: str, path: str) -> dict[str, _Item]:
        """A mapping whose keys are all known; with None, any are."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise BadInput(f"{path}, line {self.line}: {what} is a mapping, not {self.plain()!r}")
        for key, item in self.value.items():
            if allowed is not None and key not in allowed:
                known = ", ".join(sorted(allowed))
                raise BadInput(f"{path}, line {item.line}: {what} with {key!r} is not supported; known are {known}")
        return self.value

    def items(self, what: str, path: str) -> list[_Item]:
        """A list."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise BadInput(f"{path}, line {self.line}: {what} is a list, not {self.plain()!r}")
        return self.value

    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


class _Twice(ValueError):
    """A key of a mapping that was there before."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem)
        self.problem_mark = mark


def _read(path: str) -> _Item:
    YAML.demand()
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            root = yaml.compose(file, yaml.SafeLoader)
        found = _item(root, yaml.SafeLoader("")) if root is not None else None
    except OSError as error:
        raise BadInput(f"the topology file {path!r} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, a date of month 13
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        what = "" if isinstance(error, _Twice) else "not YAML: "
        raise BadInput(f"{path}{line}: {what}{getattr(error, 'problem', None) or error}") from error
    if found is None:
        raise BadInput(f"{path}: the topology file is empty")
    return found


def _item(node: Any, loader: Any) -> _Item:
    line = node.start_mark.line + 1
    if node.id == "mapping":
        found: dict[str, _Item] = {}
        for key, value in node.value:
            item, name = _item(value, loader), str(loader.construct_object(key))
            if name in found:
                raise _Twice(f"{name!r} is there twice, first in line {found[name].line}", key.start_mark)
            found[name] = _Item(item.value, key.start_mark.line + 1)
        return _Item(found, line)
    if node.id == "sequence":
        return _Item([_item(one, loader) for one in node.value], line)
    return _Item(loader.construct_object(node), line)


@dataclass
class _Loading:
    """A file on its way into a lab."""

    lab: LabTopologyFiles
    path: str
    sysctls: list[tuple[Any, str, str, int]] = field(default_factory=list)
    execs: list[tuple[Any, str, list[str], int]] = field(default_factory=list)

    def run(self) -> None:
        top = _read(self.path).children(_TOP, "a topology file", self.path)
        if "topology" not in top:
            raise BadInput(f"{self.path}, line 1: a topology file has a 'topology'")
        topology = top["topology"].children(_TOPOLOGY, "a topology", self.path)
        kinds = topology.get("kinds", _Item(None, 1)).children(set(_KINDS), "'kinds'", self.path)
        defaults = topology.get("defaults", _Item(None, 1)).children(_NODE, "'defaults'", self.path)
        nodes = topology.get("nodes", _Item({}, 1))
        if not isinstance(nodes.value, dict) or not nodes.value:
            raise BadInput(f"{self.path}, line {nodes.line}: 'nodes' is a mapping of at least one node")
        links = topology.get("links", _Item(None, 1)).items("'links'", self.path)
        checked = [self._link(item, nodes.value) for item in links]  # before anything is declared
        settings = {name: self._settings(name, item, kinds, defaults) for name, item in nodes.value.items()}
        for name, setting in settings.items():
            self._node(name, setting, nodes.value[name].line)
        for ends, mtu, line in checked:
            self._declare(ends, mtu, line)
        self._execute()

    def _settings(
        self, name: str, item: _Item, kinds: Mapping[str, _Item], defaults: Mapping[str, _Item]
    ) -> dict[str, _Item]:
        own = item.children(_NODE, f"node {name!r}", self.path)
        kind = (own.get("kind") or defaults.get("kind") or _Item("linux", item.line)).value
        if kind not in _KINDS:
            line = own["kind"].line if "kind" in own else item.line
            raise BadInput(f"{self.path}, line {line}: kind {kind!r} is not supported; known are {', '.join(_KINDS)}")
        of_kind = kinds[kind].children(_NODE, f"kind {kind!r}", self.path) if kind in kinds else {}
        for key, part in {**of_kind, **own}.items():
            if kind != "linux" and key in ("exec", "sysctls"):
                raise BadInput(f"{self.path}, line {part.line}: {key!r} of a {kind} is not supported; of a linux it is")
        setting = {**defaults, **of_kind, **own, "kind": _Item(kind, item.line)}
        self._sysctls(setting)
        self._commands(setting)
        return setting

    def _sysctls(self, setting: Mapping[str, _Item]) -> list[tuple[str, str, int]]:
        """Kernel settings: names, values, lines."""
        items = (setting.get("sysctls") or _Item(None, 1)).children(None, "'sysctls'", self.path)
        for name, item in items.items():
            at = f"{self.path}, line {item.line}: the sysctl {name!r}"
            if not isinstance(item.value, str | int) or isinstance(item.value, bool):
                raise BadInput(f"{at} is a number or a text, not {item.plain()!r}")
            if "default" in name.replace("/", ".").split("."):
                raise BadInput(f"{at} is not supported: it is for interfaces that are made later; name one, or 'all'")
        return [(name, str(item.value), item.line) for name, item in items.items()]

    def _commands(self, setting: Mapping[str, _Item]) -> list[tuple[str, list[str], int]]:
        """Commands: texts, arguments, lines."""
        commands = []
        for item in (setting.get("exec") or _Item(None, 1)).items("'exec'", self.path):
            try:
                argv = shlex.split(item.value) if isinstance(item.value, str) else []
            except ValueError as error:
                raise BadInput(f"{self.path}, line {item.line}: {item.value!r} is no command: {error}") from error
            if not argv:
                raise BadInput(f"{self.path}, line {item.line}: {item.plain()!r} is no command")
            commands.append((item.value, argv, item.line))
        return commands

    def _node(self, name: str, setting: Mapping[str, _Item], line: int) -> None:
        kind = setting["kind"].value
        try:
            if kind == "bridge":
                self.lab.bridge(name)
            elif kind == "ovs-bridge":
                self.lab.ovs(name)
            else:
                self._linux(name, setting)
        except BadInput as error:
            raise BadInput(f"{self.path}, line {line}: {error}") from error

    def _linux(self, name: str, setting: Mapping[str, _Item]) -> None:
        sysctls = self._sysctls(setting)
        forwards = any(name == _FORWARD and value == "1" for name, value, _ in sysctls)
        node = (self.lab.router if forwards else self.lab.host)(name, routes=False)
        rest = [one for one in sysctls if one[:2] not in ((_FORWARD, "0"), (_FORWARD, "1"))]
        self.sysctls += [(node, *one) for one in rest]
        self.execs += [(node, *one) for one in self._commands(setting)]

    def _link(self, item: _Item, nodes: Mapping[str, _Item]) -> tuple[list[tuple[str, str, str | None]], int, int]:
        link = item.children(_LINK, "a link", self.path)
        kind = link.get("type")
        if kind is not None and kind.value != "veth":
            raise BadInput(
                f"{self.path}, line {kind.line}: a link of the type {kind.value!r} is not supported; veth is"
            )
        ends = [
            self._endpoint(end, nodes)
            for end in link.get("endpoints", _Item([], item.line)).items("'endpoints'", self.path)
        ]
        if len(ends) != 2:
            raise BadInput(f"{self.path}, line {item.line}: a link has two endpoints, not {len(ends)}")
        mtu = link.get("mtu")
        return ends, 1500 if mtu is None else mtu.value, item.line

    def _endpoint(self, item: _Item, nodes: Mapping[str, _Item]) -> tuple[str, str, str | None]:
        if isinstance(item.value, dict):
            parts = item.children(_ENDPOINT, "an endpoint", self.path)
            plain = {key: str(part.value) for key, part in parts.items()}
            name, interface, mac = plain.get("node", ""), plain.get("interface", ""), plain.get("mac")
        else:
            name, _, interface = str(item.value).partition(":")
            mac = None
        if name not in nodes or not interface:
            known = ", ".join(nodes)
            raise BadInput(
                f"{self.path}, line {item.line}: endpoint {item.plain()!r} is not NODE:INTERFACE; nodes are {known}"
            )
        return name, interface, mac

    def _declare(self, ends: list[tuple[str, str, str | None]], mtu: int, line: int) -> None:
        nodes = [self.lab.switches.get(name) or self.lab.nodes[name] for name, _, _ in ends]
        (_, name, mac), (_, peer_name, peer_mac) = ends
        if isinstance(nodes[0], Switch) and not isinstance(nodes[1], Switch):  # lab.link names the other end first
            name, mac, peer_name, peer_mac = peer_name, peer_mac, name, mac
        hosts = [node for node in nodes if not isinstance(node, Switch)]
        none: dict[str, Any] = {"ip": []} if hosts else {}
        none |= {"peer_ip": []} if len(hosts) == 2 else {}
        names: dict[str, Any] = {"name": name, "peer_name": peer_name, "mac": mac, "peer_mac": peer_mac, "mtu": mtu}
        try:
            self.lab.link(nodes[0], nodes[1], **names, **none)
        except BadInput as error:
            raise BadInput(f"{self.path}, line {line}: {error}") from error

    def _execute(self) -> None:
        for node, name, value, line in self.sysctls:
            try:
                node.sysctl[name] = value
            except (BadInput, KeyError) as error:
                raise BadInput(f"{self.path}, line {line}: {error.args[0]}") from error
        for node, command, argv, line in self.execs:
            done = node.run(argv, check=False)
            if not done.ok:
                said = (done.stderr or done.stdout).strip().partition("\n")[0]
                raise BadInput(
                    f"{self.path}, line {line}: {command!r} in {node.name} ended with status {done.returncode}: {said}"
                )


class LabTopologyFiles(LabTopologies):
    """The part of a lab that reads and writes topology files and graphs."""

    def load(self, path: str | os.PathLike[str]) -> None:
        """Declare what a topology file in containerlab's format says, and run its ``exec`` lines.

        Nodes of the kind ``linux`` become hosts (routers, where their ``sysctls`` turn ``net.ipv4.ip_forward`` on) and
        have the addresses that their ``exec`` lines give them; other ``sysctls`` are written before these, and their
        images are not run. ``bridge`` and ``ovs-bridge``
        become switches.

        Raises:
            BadInput: the file cannot be read, or says what is not supported; the text names the line.
            Unavailable: PyYAML is not installed (``pip install 'pytest-infra[topology]'``).
        """
        _Loading(self, os.fspath(path)).run()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the lab as a topology file in containerlab's format; `load` makes the same network of it.

        Addresses and routes become ``exec`` lines.

        Raises:
            BadInput: the lab has what the format cannot say: a node that is no plain host or router, such as a
                container or one with routing daemons; a switch in a host, on DPDK, with a spanning tree or a
                controller; a link with VLANs or an impairment, a bond, a tunnel.
            Unavailable: PyYAML is not installed.
        """
        YAML.demand()
        import yaml

        self._check_sayable()
        self.up()
        nodes = {name: _saved(node) for name, node in self.nodes.items()}
        nodes |= {
            name: {"kind": "ovs-bridge" if one.kind == "ovs" else "bridge"} for name, one in self.switches.items()
        }
        links = [{"endpoints": [str(port) for port in link.ports], "mtu": link.a.mtu} for link in self.links]
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump({"name": self.name, "topology": {"nodes": nodes, "links": links}}, file, sort_keys=False)

    def _check_sayable(self) -> None:
        for node in self.nodes.values():
            if type(node) not in (Host, Router):  # a guest, one with daemons, a root file system …
                raise BadInput(f"a topology file cannot say what {node!r} is (declared at {node.declared_at})")
        for switch in self.switches.values():
            if what := _unsayable(switch):
                raise BadInput(f"a topology file cannot say that {switch.name} {what}")
        for link in self.links:
            if hasattr(link, "key") or any(port.vlans or port.bond for port in link.ports):
                raise BadInput(f"a topology file cannot say what {link} is (declared at {link.declared_at})")
            if any(link.impairments.values()):
                raise BadInput(f"a topology file cannot say how {link} is impaired (declared at {link.declared_at})")

    def add_graph(self, graph: Any, *, routers: bool = True) -> dict[Any, LabNode]:
        """Declare the nodes and edges of a networkx graph; returns the lab's nodes by those of the graph.

        Args:
            graph: an undirected graph; an edge's attributes are what ``link`` takes (``mtu=``, ``ip=`` …).
            routers: whether its nodes are routers, else hosts.

        Raises:
            BadInput: it is no graph, or an edge has attributes that ``link`` does not take.
        """
        if not hasattr(graph, "edges") or not hasattr(graph, "nodes"):
            raise BadInput(f"a networkx graph is wanted; got {graph!r}")
        made = {
            one: (self.router if routers else self.host)(one if isinstance(one, str) else None) for one in graph.nodes
        }
        for a, b, attributes in graph.edges(data=True):
            try:
                self.link(made[a], made[b], **attributes)
            except TypeError as error:
                raise BadInput(f"edge {a!r} -- {b!r}: {error}") from error
        return dict(made)

    def graph(self) -> Any:
        """The lab as a networkx ``MultiGraph``: nodes by name with their ``kind``, edges with their ``link``.

        Raises:
            Unavailable: networkx is not installed (``pip install 'pytest-infra[topology]'``).
        """
        NETWORKX.demand()
        import networkx

        graph = networkx.MultiGraph(name=self.name)
        for name, one in {**self.nodes, **self.switches}.items():
            graph.add_node(name, kind=one.kind)
        for link in self.links:
            graph.add_edge(link.a.node.name, link.b.node.name, link=link)
        return graph


def _unsayable(switch: Switch) -> str:
    """What a switch is that the format has no word for."""
    from ..net.ovs import OvsBridge

    if switch.host is not None:
        return f"is in {switch.host.name}"
    if type(switch) not in (LinuxBridge, OvsBridge):
        return "is on DPDK"
    settings = switch.settings if isinstance(switch, OvsBridge) else None
    if settings.spanning_tree if settings else getattr(switch, "spanning_tree", False):
        return "has a spanning tree"
    return "has a controller" if settings and settings.controller else ""


def _saved(node: Any) -> dict[str, Any]:
    """A host or router as a node of a topology file."""
    commands = list(_commands(node))
    saved: dict[str, Any] = {"kind": "linux"}
    if isinstance(node, Router):
        saved["sysctls"] = {"net.ipv4.ip_forward": 1}
    return {**saved, "exec": commands} if commands else saved


def _commands(node: Node) -> Iterator[str]:
    for port in node.ports:
        for ip in port.addresses:
            yield f"ip address add {ip} dev {port.name}"
    for network, hop in getattr(node, "planned_routes", {}).items():
        family = "-6 " if network.version == 6 else ""
        yield f"ip {family}route add {network} via {hop.gateway} dev {hop.port.name}"
