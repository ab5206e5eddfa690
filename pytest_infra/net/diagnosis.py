"""Evidence of a lab: what each of its namespaces has now, as text and as data. Nothing is settled or changed."""

from __future__ import annotations

import os
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..core.errors import InfraError, reason
from ..core.evidence import NOT_TAKEN, Artifact
from ..core.fault import Fault
from ..core.node import Address, Interface, Neighbour, Route
from ..core.process import Process, run
from ..core.report import as_json, to_json
from ..core.requirement import find_program
from .counters import Counters, read_counters
from .namespace import NetNamespace
from .pcapng import pcapng
from .reading import read_addresses, read_interfaces, read_neighbours, read_routes
from .sysctl import read_all_sysctl

if TYPE_CHECKING:
    from .capture import Capture
    from .recorder import Recorder

__all__ = ["LAB_VERSION", "Journal", "Owner", "Ran", "count_all", "diagnose_network", "network_state", "quick_state"]

P = TypeVar("P", bound=Process)

_PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "nftables": ("nft", "-a", "list", "ruleset"),
    "rules": ("ip", "rule"),
    "sockets": ("ss", "-Htuna"),
    "queues": ("tc", "-s", "qdisc"),
}
"""What is asked of other people's programs, where they are installed."""
LAB_VERSION = 1
"""Raised whenever the fields of ``lab.json`` or ``state.json`` change their meaning."""
_PROGRAM_S = 5.0
_RULES_OF_THE_KERNEL = 3
_COMMANDS_KEPT = 1000
_OUTPUT_KEPT = 1 << 19  # characters, of each stream of a process
_NOISE = ("nf_conntrack_count", "ns_last_pid", "random", "secret", ".route.flush", "nf_conntrack_buckets", "/mtu")
_BEGIN_AS = {"conf": "default", "neigh": "lo"}


def network_state(namespace: NetNamespace) -> dict[str, Any]:
    """What the kernel has in a namespace: interfaces, addresses, routes, neighbours, counters."""
    with namespace.netlink() as netlink:
        return {
            "interfaces": read_interfaces(netlink),
            "addresses": read_addresses(netlink),
            "routes": read_routes(netlink),
            "neighbours": read_neighbours(netlink),
            "counters": namespace.within(read_counters),
        }


def count_all(owners: Iterable[Owner]) -> dict[str, Counters]:
    """The counters of each node or switch that is there."""
    spaces = {owner.name: getattr(owner, "namespace", None) for owner in owners}
    return {name: space.within(read_counters) for name, space in spaces.items() if space and space.fd >= 0}


def quick_state(owners: Iterable[Owner]) -> dict[str, Any]:
    """The interfaces and counters of each node or switch that is there, in JSON types: what a picture shows."""
    spaces = {owner.name: getattr(owner, "namespace", None) for owner in owners}
    return {name: _quick_state(space) for name, space in spaces.items() if space and space.fd >= 0}


def _quick_state(namespace: NetNamespace) -> Any:
    with namespace.netlink() as netlink:
        return to_json({"interfaces": read_interfaces(netlink), "counters": namespace.within(read_counters)})


def diagnose_network(namespace: NetNamespace) -> Iterator[Artifact]:
    """The state of one namespace: ``state.json`` for programs, the rest for people; nothing where it is gone."""
    if namespace.fd < 0:
        return
    state = network_state(namespace)
    yield Artifact("state.json", as_json(state))
    yield Artifact("interfaces.txt", _lines(map(_interface, state["interfaces"].values())))
    yield Artifact("addresses.txt", _lines(map(_address, state["addresses"])))
    yield Artifact("routes.txt", _lines(map(_route, state["routes"])))
    yield Artifact("neighbours.txt", _lines(map(_neighbour, state["neighbours"])))
    yield Artifact("counters.txt", _counters(state["counters"]))
    yield Artifact("sysctl.txt", _text_or_error(lambda: _lines(_changed_sysctl(namespace))))
    for name, argv in _PROGRAMS.items():
        if name == "queues" and all(item.qdisc in ("", "noqueue") for item in state["interfaces"].values()):
            continue
        if path := find_program(argv[0]):
            text = _text_or_error(lambda argv=argv, path=path: _ask(namespace, [path, *argv[1:]]))  # type: ignore[misc]
            if text and not (name == "rules" and text.count("\n") == _RULES_OF_THE_KERNEL):
                yield Artifact(f"{name}.txt", text)


def _ask(namespace: NetNamespace, argv: list[str]) -> str:
    done = namespace.call(run, argv, check=False, timeout_s=_PROGRAM_S, where=namespace.name)
    return done.stdout + done.stderr


def _text_or_error(read: Callable[[], str]) -> str:
    try:
        return read()
    except (InfraError, OSError) as error:
        return f"could not be read: {reason(error)}\n"


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _interface(item: Interface) -> str:
    state = f"{'up' if item.up else 'DOWN'}, {'carrier' if item.carrier else 'NO CARRIER'}, {item.operstate}"
    more = [item.kind, f"port of {item.master}" if item.master else "", item.qdisc]
    return ", ".join([f"{item.name}: {state}, mtu {item.mtu}, {item.mac}", *filter(None, more)])


def _address(item: Address) -> str:
    return f"{item.interface}: {item.ip} {item.scope}{' tentative' * item.tentative}{' duplicate' * item.duplicate}"


def _neighbour(item: Neighbour) -> str:
    return f"{item.ip} at {item.mac or '?'} on {item.interface} {item.state}"


def _route(item: Route) -> str:
    words = [item.kind if item.kind != "unicast" else "", str(item.destination)]
    words += [f"via {item.gateway}" if item.gateway else "", f"dev {item.interface}" if item.interface else ""]
    words += [f"src {item.source}" if item.source else "", f"metric {item.metric}" if item.metric else ""]
    words += [f"proto {item.protocol}", "linkdown" if item.linkdown else ""]
    return " ".join(filter(None, words))


def _counters(counters: Counters) -> str:
    width = max(map(len, counters), default=0)
    return _lines(f"{name.ljust(width)}  {value}" for name, value in counters.items())


def _changed_sysctl(namespace: NetNamespace) -> Iterator[str]:
    """The settings that differ from those of a namespace that the lab would make now."""
    now = namespace.within(read_all_sysctl)
    fresh = namespace.settings_when_made()
    for name, value in sorted(now.items()):
        wanted = fresh.get(name, fresh.get(_of_new_interfaces(name)))
        if wanted is not None and value != wanted and not any(word in name for word in _NOISE):
            yield f"{name} = {value}    (when made: {wanted})"


def _of_new_interfaces(name: str) -> str:
    """``net/ipv4/conf/eth0/forwarding`` begins as ``net/ipv4/conf/default/forwarding``; neighbours have no such."""
    words = name.split("/")
    if len(words) == 5 and words[2] in _BEGIN_AS:
        words[3] = _BEGIN_AS[words[2]]
    return "/".join(words)


class Owner(Protocol):
    """A node or a switch; it has a `namespace` once it is there."""

    @property
    def name(self) -> str:
        """Its name in the lab."""

    @property
    def ports(self) -> Any:
        """Its ports."""

    def diagnose(self) -> Iterator[Artifact]:
        """What it tells of itself."""


@dataclass
class Ran:
    """A command that was started in a node."""

    where: str
    line: str
    """As a shell would take it."""
    began_s: float
    """Seconds since 1970."""
    process: Process | None = None
    """None where it could not be started."""

    def facts(self) -> dict[str, Any]:
        """In JSON types; ``status`` and ``took_s`` are null while it runs, or where it could not be started."""
        status, took_s = (self.process.returncode, self.process.took_s) if self.process else (None, None)
        started = {"where": self.where, "line": self.line, "began_s": self.began_s}
        return {**started, "took_s": took_s, "status": status}


class Journal:
    """What happened in a lab, for its evidence: commands, background processes, captures, recorded frames.

    Args:
        recorder: has the latest frames; None where nobody asked for it.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self.note = ""
        """Why the evidence is taken: a comment in capture files, on the file and on the last frame."""
        self._recorder = recorder
        self._recorded: list[NetNamespace] = []
        self.commands: deque[Ran] = deque(maxlen=_COMMANDS_KEPT)
        """The latest ones."""
        self.processes: list[Process] = []
        self.captures: list[Capture] = []
        self.faults: deque[Fault] = deque(maxlen=_COMMANDS_KEPT)
        """What the test has broken on purpose."""

    def process(
        self, argv: Sequence[str | os.PathLike[str]], *, where: str, kind: Callable[..., P], **options: Any
    ) -> P:
        """Start a process and remember it; `kind` makes it, with these options."""
        ran = Ran(where, shlex.join([os.fspath(word) for word in argv]), time.time())
        self.commands.append(ran)
        ran.process = process = kind(argv, where=where, **options)
        return process

    def record(self, namespace: NetNamespace, undo: ExitStack) -> None:
        """Have the latest frames of a namespace at hand, if that was asked for."""
        if self._recorder is not None and self._recorder.watch(namespace):
            if not self._recorded:
                undo.callback(self._forget)
            self._recorded.append(namespace)

    def _forget(self) -> None:
        assert self._recorder is not None
        self._recorder.drop(self._recorded)
        self._recorded.clear()

    def _frames(self, owners: Iterable[Owner]) -> Iterator[Artifact]:
        for number, capture in enumerate(self.captures, 1):
            name = f"captures/{number}-{capture.port.node.name}-{capture.port.name}.pcapng"
            yield Artifact(name, capture.content(self.note))
        if self._recorder is not None:
            names = {(space, port.name): str(port) for space, port in _interfaces_of(owners)}
            seen = self._recorder.frames(self._recorded, names)
            frames = [frame for frame in seen if not frame.is_sentinel]
            last = {len(frames) - 1: self.note} if self.note else {}
            lost = self._recorder.lost(self._recorded)
            left_out = len(seen) - len(frames)
            words = [f"{lost} frames are missing in between" if lost else ""]
            words.append(f"{left_out} sentinels that checks sent are left out" if left_out else "")
            comment = "; ".join(filter(None, [self.note, *words]))
            yield Artifact("captures/all.pcapng", pcapng(frames, comment=comment, comments=last))

    def diagnose(
        self, facts: Mapping[str, Any], nodes: Mapping[str, Owner], switches: Mapping[str, Owner]
    ) -> Iterator[Artifact]:
        """The whole lab: ``lab.json`` for programs, and a folder for each node and switch."""
        settings = {name: dict(getattr(node, "sysctl_defaults", {})) for name, node in nodes.items()}
        routes = {name: [_planned(*item) for item in _routes_of(node)] for name, node in nodes.items()}
        processes = [_process(process) for process in self.processes]
        journal = {"commands": [ran.facts() for ran in self.commands], "processes": processes}
        journal["faults"] = [fault.facts() for fault in self.faults]
        yield Artifact(
            "lab.json", as_json({"version": LAB_VERSION, **facts, "settings": settings, "routes": routes, **journal})
        )
        owners = [*nodes.values(), *switches.values()]
        yield from _whole("captures", self._frames(owners))
        for owner in owners:
            yield from _whole(owner.name, _of_owner(owner))
        for item in processes:
            text = "\n".join(
                [" ".join(item["argv"]), item["ending"], "-- stdout", item["stdout"], "-- stderr", item["stderr"]]
            )
            yield Artifact(f"{item['where']}/process-{item['pid']}.txt", text)


def _whole(where: str, artifacts: Iterator[Artifact]) -> Iterator[Artifact]:
    """The artifacts of one owner; what goes wrong there takes nothing from the others."""
    try:
        yield from artifacts
    except Exception as error:  # noqa: BLE001 - it must not hide the failure that is explained
        yield Artifact(f"{where}/{NOT_TAKEN}", f"{type(error).__name__}: {error}\n")


def _of_owner(owner: Owner) -> Iterator[Artifact]:
    names = set()
    for artifact in owner.diagnose():
        names.add(artifact.name)
        yield Artifact(f"{owner.name}/{artifact.name}", artifact.content)
    if "state.json" not in names and hasattr(owner, "namespace"):  # a container tells other things of itself
        for artifact in diagnose_network(owner.namespace):
            yield Artifact(f"{owner.name}/{artifact.name}", artifact.content)


def _interfaces_of(owners: Iterable[Owner]) -> Iterator[tuple[NetNamespace, Any]]:
    for owner in owners:
        if (space := getattr(owner, "namespace", None)) is not None:
            yield from ((space, port) for port in owner.ports)


def _routes_of(node: Owner) -> Iterable[tuple[Any, Any]]:
    return getattr(node, "planned_routes", {}).items()


def _planned(network: Any, hop: Any) -> dict[str, object]:
    return {"destination": network, "gateway": hop.gateway, "port": hop.port.name}


def _process(process: Process) -> dict[str, Any]:
    ended = process.returncode
    ending = "still running" if ended is None else f"ended with {ended}"
    who = {"where": process.where, "pid": process.pid, "argv": process.argv}
    return {**who, "ending": ending, "status": ended, "stdout": _end(process.stdout), "stderr": _end(process.stderr)}


def _end(text: str) -> str:
    """The end of what a process has written; what is left out is said."""
    left_out = len(text) - _OUTPUT_KEPT
    return text if left_out <= 0 else f"({left_out} characters before this are left out)\n{text[left_out:]}"
